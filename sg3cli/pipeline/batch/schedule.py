"""Who does what when: tasks of several clips go to a pool of workers, until every clip is done or has failed.

A worker that is lost costs its task, which is given to another one; a task that fails costs its clip.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sg3cli.errors import DeviceError
from sg3cli.pipeline.batch.clip import BatchClip, Steps
from sg3cli.pipeline.batch.tasks import Result, Task, finished

RETRIES = 3  # workers that a task may lose


@dataclass(frozen=True)
class Ended:
    """How a task ended: `result`, `error`, or `lost`, which says what became of its worker."""

    number: int
    result: Result | None = None
    error: Exception | None = None
    lost: str = ""


class Pool(Protocol):
    """Workers, to which tasks go by number."""

    def free(self) -> int:
        """How many tasks could begin now."""

    def submit(self, number: int, task: Task) -> None:
        """Let a free worker do a task."""

    def wait(self) -> Ended | None:
        """Wait until a task has ended, or (None) `free` may be another number."""


@dataclass
class Flow:
    """A clip that is worked on. `results` are those of its step, None where they are waited for.

    `begin` opens the clip; `end` is told how that went, None: well.
    """

    name: str
    begin: Callable[[], BatchClip]
    end: Callable[[BatchClip | None, Exception | None], None]
    clip: BatchClip | None = None
    steps: Steps | None = None
    results: list[Result | None] = field(default_factory=list)
    done: int = 0  # tasks
    expected: int = 1
    over: bool = False


@dataclass
class _Given:
    """A task of a clip's step, and how many workers it has lost."""

    flow: Flow
    place: int
    task: Task
    losses: int = 0


class Schedule:
    """Does all `flows`; `tell` hears of lost workers. With `keep_going` false nothing begins after a failure."""

    def __init__(
        self,
        flows: Sequence[Flow],
        pool: Pool,
        tell: Callable[[str], None],
        keep_going: bool = True,
        retries: int = RETRIES,
    ) -> None:
        self._flows, self._waiting, self._pool, self._tell = list(flows), deque(flows), pool, tell
        self._began = time.monotonic()
        self._keep_going, self._retries = keep_going, retries
        self._ready: deque[_Given] = deque()
        self._running: dict[int, _Given] = {}
        self._open: list[Flow] = []
        self._number = 0
        self.lost = 0  # workers

    def run(self) -> Iterator[str]:
        """Work; yields the title of each task that is done, `render 0-250` say, also of those that were done before.

        Where the pool has waited and nothing has ended, that is an empty title.
        """
        try:
            while self._waiting or self._ready or self._running:
                yield from self._give()
                if self._running or self._ready or self._waiting:  # then all workers are busy, or begin
                    ended = self._pool.wait()
                    yield from [""] if ended is None else self._ended(ended)
        finally:
            for flow in self._open:
                _close(flow)

    def state(self) -> str:
        """`2 of 5 clips and 17 tasks done, about 4 min left`."""
        over, done = sum(flow.over for flow in self._flows), sum(flow.done for flow in self._flows)
        words = f"{over} of {len(self._flows)} clips and {done} tasks done"
        share = sum(1.0 if flow.over else min(flow.done / flow.expected, 1.0) for flow in self._flows)
        share /= len(self._flows)
        if not 0 < share < 1:
            return words
        seconds = (time.monotonic() - self._began) * (1 - share) / share
        return f"{words}, about {f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'} left"

    def _give(self) -> Iterator[str]:
        """Hand out what is ready; another clip is begun when workers would be idle."""
        free = self._pool.free()
        while free > 0 and (self._ready or self._waiting):
            if not self._ready:
                yield from self._begin(self._waiting.popleft())
                continue
            given = self._ready.popleft()
            if given.flow.over:
                continue
            self._number += 1
            self._running[self._number] = given
            self._pool.submit(self._number, given.task)
            free -= 1

    def _begin(self, flow: Flow) -> Iterator[str]:
        self._open.append(flow)
        try:
            flow.clip = flow.begin()
            flow.expected, flow.steps = flow.clip.cuts().tasks, flow.clip.steps()
            tasks = next(flow.steps, None)
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, the other clips are not to suffer)
            self._over(flow, error)
        else:
            yield from self._step(flow, tasks)

    def _step(self, flow: Flow, tasks: list[Task] | None) -> Iterator[str]:
        """Queue the tasks of a clip's next step; those whose results the store has are done at once."""
        while tasks is not None and flow.clip is not None:
            flow.results = [finished(task, flow.clip.store) for task in tasks]
            missing = [place for place, result in enumerate(flow.results) if result is None]
            for place in set(range(len(tasks))) - set(missing):
                flow.done += 1
                yield tasks[place].title
            self._ready.extend(_Given(flow, place, tasks[place]) for place in missing)
            if missing:
                return
            tasks = self._advance(flow)
        if not flow.over:
            self._over(flow, None)

    def _advance(self, flow: Flow) -> list[Task] | None:
        """The next step's tasks; None when there is none, or the clip has failed."""
        assert flow.steps is not None
        try:
            return flow.steps.send([result for result in flow.results if result is not None])
        except StopIteration:
            return None
        except BrokenPipeError:
            raise
        except Exception as error:  # noqa: BLE001 (as above)
            self._over(flow, error)
            return None

    def _ended(self, ended: Ended) -> Iterator[str]:
        given = self._running.pop(ended.number)
        flow = given.flow
        if flow.over:
            return
        if ended.lost:
            self._lost(given, ended.lost)
        elif ended.error is not None:
            self._over(flow, ended.error)
        else:
            flow.done += 1
            yield given.task.title
            flow.results[given.place] = ended.result
            if all(result is not None for result in flow.results):
                yield from self._step(flow, self._advance(flow))

    def _lost(self, given: _Given, why: str) -> None:
        given.losses += 1
        self.lost += 1
        what = f"{given.flow.name}: {given.task.title} lost its worker ({why})"
        if given.losses > self._retries:
            times = f"{given.losses} workers were lost at {given.task.title} ({why})"
            self._over(given.flow, DeviceError(times, "give workers more memory (fewer of them), or see Ray's logs"))
            return
        self._tell(f"{what}; it is done again")
        self._ready.appendleft(given)

    def _over(self, flow: Flow, error: Exception | None) -> None:
        flow.over = True
        _close(flow)
        self._open.remove(flow)
        flow.end(flow.clip, error)
        if error is not None and not self._keep_going:
            self._waiting.clear()


def _close(flow: Flow) -> None:
    """Let go of the clip's lock."""
    if flow.steps is not None:
        flow.steps.close()
