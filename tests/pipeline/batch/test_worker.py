"""Errors on their way to another machine, and what killed workers leave."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sg3cli.errors import InputError, Sg3Error
from sg3cli.pipeline.batch.worker import Worker, own_prefix, portable


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (InputError("a.mp4 is no video", "look at it"), InputError, "a.mp4 is no video"),
        (OSError(28, "No space left on device", "x"), OSError, "No space left"),
        (MemoryError("lots"), MemoryError, ""),
        (ZeroDivisionError("oh\nno"), Sg3Error, "ZeroDivisionError: oh"),
    ],
)
def test_an_error_arrives_as_what_it_was(error: Exception, kind: type[Exception], words: str) -> None:
    try:
        raise error
    except Exception as caught:  # noqa: BLE001
        sent = portable(caught)
    there = pickle.loads(pickle.dumps(sent))
    assert type(there) is kind and words in str(there) and sent.__traceback__ is None
    assert getattr(there, "hint", None) == getattr(sent, "hint", None)
    if kind is OSError:
        assert there.errno == 28 and there.filename == "x"


def test_the_folders_of_killed_workers_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, used = tmp_path / f"{own_prefix()}{dead.pid}-abc", tmp_path / f"{own_prefix()}{os.getpid()}-abc"
    foreign = tmp_path / f"sg3-batch-{dead.pid}-abc"
    for folder in (left, used, foreign):
        folder.mkdir()
    worker = Worker()
    assert not left.exists() and used.exists() and foreign.exists()
    assert len(list(tmp_path.iterdir())) == 3
    worker.close()
    assert len(list(tmp_path.iterdir())) == 2
