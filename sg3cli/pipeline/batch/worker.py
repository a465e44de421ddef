"""A worker of a batch: it reads each model once, and keeps files that it was sent for its next task."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sg3cli.errors import Sg3Error
from sg3cli.files import is_alive, remove

if TYPE_CHECKING:
    from sg3cli.pipeline.batch.tasks import Result, Task

PREFIX = "sg3-batch"
CLIPS = 3  # whose files a worker keeps


class Worker:
    """Does tasks one after the other. `threads` are those that it computes with, None: as the environment says."""

    def __init__(self, threads: int | None = None) -> None:
        from sg3cli.weights.loaded_nets import LoadedNets

        os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command does, before torch reads it
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        sweep()
        self.nets = LoadedNets()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{own_prefix()}{os.getpid()}-", ignore_cleanup_errors=True)
        self._caches: dict[str, Path] = {}  # of the last clips, by their stores

    def name(self) -> str:
        """Who it is, once it has begun."""
        from sg3cli.pipeline.batch.tasks import worker_name

        return worker_name()

    def perform(self, task: Task) -> tuple[Result | None, Exception | None]:
        """Do a task: its result, or why there is none."""
        from sg3cli.pipeline.batch.tasks import perform

        try:
            return perform(task, self.nets, self._cache_of(task.store)), None
        except Exception as error:  # noqa: BLE001 (whatever it is, the worker goes on with other clips)
            return None, portable(error)

    def _cache_of(self, store: str) -> Path:
        """A folder for the files of a clip; those of the last `CLIPS` are kept."""
        cache = self._caches.pop(store, None) or Path(tempfile.mkdtemp(prefix="files-", dir=self._folder.name))
        self._caches[store] = cache
        if len(self._caches) > CLIPS:
            remove(self._caches.pop(next(iter(self._caches))))
        return cache

    def close(self) -> None:
        """Remove its folder."""
        self._folder.cleanup()


def portable(error: Exception) -> Exception:
    """The error without its frames, which hold arrays; one of a library as text that every machine can read."""
    if isinstance(error, OSError) and not isinstance(error, Sg3Error):
        return OSError(error.errno, error.strerror or str(error), error.filename)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return MemoryError()
    if not isinstance(error, Sg3Error):
        return Sg3Error(f"{type(error).__name__}: {error}".splitlines()[0], "this is a bug in sg3; report the command")
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def own_prefix() -> str:
    """What the folders of this machine's workers begin with."""
    return f"{PREFIX}-{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname()[:32])}-"


def sweep() -> None:
    """Remove the folders of workers of this machine that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{own_prefix()}*"):
        found = re.fullmatch(rf"{re.escape(own_prefix())}(\d+)-\w+", path.name)
        if found and not is_alive(int(found[1])):
            remove(path)
