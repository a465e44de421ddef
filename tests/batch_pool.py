"""A pool of one worker, in this process: the batch as on a cluster, without one."""

from __future__ import annotations

from sg3cli.pipeline.batch.schedule import Ended
from sg3cli.pipeline.batch.tasks import Task
from sg3cli.pipeline.batch.worker import Worker


class LocalPool:
    """Does each task while it is waited for."""

    def __init__(self) -> None:
        self._worker = Worker()
        self._given: list[tuple[int, Task]] = []

    def free(self) -> int:
        """One, but while a task is waited for."""
        return 0 if self._given else 1

    def submit(self, number: int, task: Task) -> None:
        """Take a task."""
        self._given.append((number, task))

    def wait(self) -> Ended | None:
        """Do it."""
        number, task = self._given.pop()
        return Ended(number, *self._worker.perform(task))

    def close(self) -> None:
        """Remove the worker's folder."""
        self._worker.close()
