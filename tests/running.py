"""The command run as a user runs it, and short clips to run it on."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
GOLDEN = TESTS / "golden"
SHARED = (
    ROOT.parent / "shared"
)  # footage and images that are not part of the project; tests on them are skipped without
CLIP_PLACES = (ROOT / "examples", ROOT.parent / "shared" / "synthface_data" / "clips")


@dataclass(frozen=True)
class Ran:
    """How a command ended; `out` is empty when stdout was not text."""

    code: int
    out: str
    err: str
    raw: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def last_two(self) -> list[str]:
        """The error: `error: ...` and `hint: ...`."""
        return self.err.strip().splitlines()[-2:]


def environment(**changes: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests, on one thread so that tests can share a machine."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SG3_")}
    kept = {name: os.environ[name] for name in ("SG3_MODELS", "SG3_INVERT_LIKENESS") if name in os.environ}
    return {**plain, **kept, "OMP_NUM_THREADS": "1", "SG3_CONFIG": "/nonexistent", **changes}


def sg3(*arguments: object, cwd: Path, stdin: str | None = None, binary: bool = False, **env: str) -> Ran:
    """Run `sg3` in a process of its own; without `stdin` nothing is piped in."""
    return ended(["-m", "sg3cli", *map(str, arguments)], cwd, stdin, binary, **env)


def ended(arguments: list[str], cwd: Path, stdin: str | None = None, binary: bool = False, **env: str) -> Ran:
    """Run the interpreter and wait for it."""
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment(**env),
        **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin.encode()}),
        capture_output=True,
        timeout=300,
    )
    return Ran(ran.returncode, "" if binary else ran.stdout.decode(), ran.stderr.decode(), ran.stdout)


def example_clip(name: str) -> Path:
    """A rendered clip with a face and sound; skips the test when it is not there."""
    for place in CLIP_PLACES:
        if (place / name).is_file():
            return place / name
    pytest.skip(f"{name} is not among the examples")


def relocate(project: Path, before: Path, after: Path) -> None:
    """Let a project whose folder was copied be that of the clip that was copied with it."""
    from sg3cli.manifest import read_manifest, write_manifest

    told = json.dumps(read_manifest(project)).replace(str(before), str(after))
    write_manifest(project, json.loads(told))


def cut(source: Path, out: Path, frames: int, first: int = 0) -> Path:
    """Frames `first` to `first + frames` of `source` at half its size; the sound comes along whole."""
    from sg3cli.settings import EncodeConfig
    from sg3cli.video import VideoReader, VideoWriter

    encode = EncodeConfig(crf=10, preset="veryfast")
    with VideoReader(source) as reader:
        size = (reader.info.width // 2, reader.info.height // 2)
        with VideoWriter(out, reader.info, encode, size) as writer:
            for frame in islice(reader.frames(first), frames):
                writer.write(replace(frame, rgb=halved(frame.rgb)))
    return out


def halved(rgb: np.ndarray) -> np.ndarray:
    """`[H, W, 3]` uint8 -> `[H/2, W/2, 3]`, means of 2x2 pixels."""
    height, width = rgb.shape[0] // 2, rgb.shape[1] // 2
    return rgb.reshape(height, 2, width, 2, 3).mean(axis=(1, 3)).astype(np.uint8)


class Pipe(io.BytesIO):
    def __init__(self, data=b"", tty=False):
        super().__init__(data)
        self.buffer, self.tty = self, tty

    def isatty(self):
        return self.tty


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command and group under `group` by its full name."""
    import typer

    tree = typer.main.get_command(group)
    pending = [(prefix, tree)]
    while pending:
        name, node = pending.pop()
        yield name, node
        pending += [(f"{name} {key}".strip(), child) for key, child in getattr(node, "commands", {}).items()]
