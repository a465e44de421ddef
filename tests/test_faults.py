"""Runs that are killed at any moment come to the same film; a full disk is said and costs nothing that stands."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import cut, environment, example_clip, sg3

from sg3cli.files import digest_of

FRAMES, KILLS = 60, 20
SETTINGS = ("--edit=age=2", "--finetune-steps=20", "--finetune-batch=2", "--loss=structural", "--save-every=5")
LIMITED = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}));"
    "from sg3cli import cli; sys.exit(cli.run({1}))"
)


def line(bundle: Path) -> list[str]:
    return ["run", "talk.mp4", "-o", "out.mp4", f"--model={bundle}", *SETTINGS, "--segment=0.4", "--preset=veryfast"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, face_model: None) -> Path:
    """A folder in which an unbroken run has made `out.mp4` of `talk.mp4`."""
    folder = tmp_path_factory.mktemp("whole")
    cut(example_clip("woman_talks.mp4"), folder / "talk.mp4", FRAMES)
    assert sg3(*line(tiny_bundle), cwd=folder).code == 0
    return folder


def killed_after(seconds: float, arguments: list[str], folder: Path) -> bool:
    """Run a command and kill it (SIGKILL) after so long; False if it had ended before."""
    with subprocess.Popen(
        [sys.executable, "-m", "sg3cli", *arguments],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_twenty_moments_the_film_is_the_same(whole: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    arguments, rng, broken = line(tiny_bundle), random.Random(0), 0
    again = tmp_path / "timed"
    again.mkdir()
    shutil.copy(whole / "talk.mp4", again)
    began = time.monotonic()
    assert sg3(*arguments, cwd=again).code == 0
    longest = time.monotonic() - began
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(whole / "talk.mp4", folder)
        broken += killed_after(rng.uniform(0.05, 1.0) * longest, arguments, folder)
        ran = sg3(*arguments, cwd=folder)
        assert ran.code == 0, ran.err
        assert digest_of(folder / "out.mp4") == digest_of(whole / "out.mp4"), number
        left = [
            path.name
            for path in folder.iterdir()
            if path.name not in ("talk.mp4", "talk.sg3", "out.mp4", "out.mp4.json")
        ]
        assert not left and not (folder / "talk.sg3" / "render").exists()
        shutil.rmtree(folder)
    assert broken >= KILLS // 2


@pytest.mark.parametrize("limit", [30_000, pytest.param(70_000, marks=pytest.mark.slow)])
def test_a_file_that_may_not_grow_is_said_and_the_next_run_goes_on(
    limit: int, whole: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """The size limit of a process stands for a full disk; it stops another stage each time."""
    shutil.copy(whole / "talk.mp4", tmp_path)
    arguments = line(tiny_bundle)
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED.format(limit, arguments)],
        cwd=tmp_path,
        env=environment(),
        text=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=300,
        check=False,
    )
    what, hint = ran.stderr.strip().splitlines()[-2:]
    assert ran.returncode == 3 and what.startswith("error: ") and hint.startswith("hint: "), ran.stderr
    assert not (tmp_path / "out.mp4").exists() and not list(tmp_path.rglob("*.part"))
    assert sg3(*arguments, cwd=tmp_path).code == 0
    assert digest_of(tmp_path / "out.mp4") == digest_of(whole / "out.mp4")
