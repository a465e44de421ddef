"""Runs of `sg3` that end where a test wants: forked from a process that has imported everything, so that each is short.

As a script this is that process: it reads a JSON object per line (a run) and answers with one.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.chmod", "shutil.rmtree"}  # audit events
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Forks:
    """Runs command lines; `changes` counts what a run does to the file system from Python."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, line: Sequence[object], cwd: Path, **how: Any) -> dict[str, Any]:
        """`code` (negative: a signal), `err`, `changes` of `sg3 LINE`.

        `at`: the signal `number` (SIGKILL) just before that change (1 is the first), or before the first one that this
        pattern describes (`os.rename FROM TO`). `file_size`: bytes to which files are limited (a write beyond fails).
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        told = {"line": [str(word) for word in line], "cwd": str(cwd), **how}
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def forks() -> Iterator[Forks]:
    """A process to fork from."""
    from running import environment

    with subprocess.Popen(
        [sys.executable, __file__], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Forks(process)
        assert process.stdin is not None
        process.stdin.close()


def serve() -> None:
    """Answer runs until stdin ends."""
    import cv2
    import torch

    import sg3cli.cli.app
    import sg3cli.pipeline.finetune
    import sg3cli.pipeline.render  # noqa: F401 (what a run needs is here before it is forked)

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as own:
        report, err = Path(own) / "changes", Path(own) / "err"
        for asked in sys.stdin:
            report.write_text("0")
            if (child := os.fork()) == 0:
                try:
                    code = _child(json.loads(asked), report, err)
                    os._exit(code)
                finally:
                    os._exit(os.EX_SOFTWARE)  # never into the loop of the parent
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            answer = {"code": code, "err": err.read_text(), "changes": int(report.read_text())}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


def _child(told: dict[str, Any], report: Path, err: Path) -> int:
    from sg3cli import cli

    os.chdir(told["cwd"])
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, cli._stop)
    if told.get("file_size"):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (told["file_size"], resource.RLIM_INFINITY))
    count = os.open(report, os.O_RDWR)
    _count_changes(count, told)
    code = cli.run(told["line"])
    sys.stderr.flush()
    return code


def _count_changes(count: int, told: dict[str, Any]) -> None:
    """Note in the file `count` how many changes there were, and meet the signal at the one that was asked for."""
    done = 0
    at, number = told.get("at", 0), told.get("number", signal.SIGKILL)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal done, at
        if event not in CHANGES and not (event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        done += 1
        os.pwrite(count, str(done).encode(), 0)
        if done == at or (isinstance(at, str) and re.search(at, f"{event} {arguments[0]} {arguments[1:2]}")):
            at = 0  # once
            os.kill(os.getpid(), number)

    sys.addaudithook(heard)


if __name__ == "__main__":
    serve()
