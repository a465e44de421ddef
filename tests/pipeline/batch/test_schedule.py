"""Who does what when, with a pool that only pretends: losses, failures, more clips than workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from sg3cli.errors import DeviceError, InputError
from sg3cli.pipeline.batch.clip import BatchClip
from sg3cli.pipeline.batch.plan import Cuts
from sg3cli.pipeline.batch.schedule import Ended, Flow, Schedule
from sg3cli.pipeline.batch.staging import Snapshot
from sg3cli.pipeline.batch.store import FolderStore
from sg3cli.pipeline.batch.tasks import Result, Task
from sg3cli.settings import Settings


def task(clip: str, number: int) -> Task:
    return Task("render", "", Snapshot({}, {}), Settings(), {}, plan=clip, span=(number, number + 1))


def result(name: str) -> Result:
    return Result({}, {name: ""}, {}, {}, [], 1.0, "")


@dataclass
class Clip:
    """Two steps of tasks: one, then three; `got` are the results of each step."""

    name: str
    store: FolderStore
    got: list[list[str]] = field(default_factory=list)
    closed: bool = False

    def cuts(self) -> Cuts:
        return Cuts((), ((0, 1),) * 2)

    def steps(self) -> Any:
        try:
            for numbers in ([0], [1, 2, 3]):
                results = yield [task(self.name, number) for number in numbers]
                self.got.append([name for one in results for name in one.files])
        finally:
            self.closed = True


@dataclass
class Pretended:
    """Workers that end tasks in the order in which they got them, as `answer` says (None: well)."""

    workers: int
    answer: Callable[[Task], Exception | str | None] = lambda task: None
    given: deque[tuple[int, Task]] = field(default_factory=deque)
    order: list[str] = field(default_factory=list)

    def free(self) -> int:
        return self.workers - len(self.given)

    def submit(self, number: int, task: Task) -> None:
        assert self.free() > 0
        self.given.append((number, task))
        self.order.append(f"{task.plan}{task.span[0] if task.span else ''}")

    def wait(self) -> Ended:
        number, task = self.given.popleft()
        said = self.answer(task)
        if isinstance(said, str):
            return Ended(number, lost=said)
        return Ended(number, error=said) if said else Ended(number, result(f"{task.plan}{task.span}"))


def scheduled(
    pool: Pretended, place: Path, names: str, **options: Any
) -> tuple[dict[str, Any], list[str], dict[str, Clip]]:
    """How each clip ended, what was said, and the clips."""
    clips = {name: Clip(name, FolderStore(place)) for name in names}
    ended: dict[str, Any] = {}
    said: list[str] = []

    def flow(name: str) -> Flow:
        begin = lambda: cast(BatchClip, clips[name])  # noqa: E731
        return Flow(name, begin, lambda clip, error: ended.__setitem__(name, error))

    list(Schedule([flow(name) for name in names], pool, said.append, **options).run())
    return ended, said, clips


def test_results_come_in_the_order_of_their_tasks_and_workers_have_work(tmp_path: Path) -> None:
    pool = Pretended(2)
    ended, said, clips = scheduled(pool, tmp_path, "abc")
    assert ended == {"a": None, "b": None, "c": None} and not said
    for name, clip in clips.items():
        assert clip.got == [[f"{name}(0, 1)"], [f"{name}({k}, {k + 1})" for k in (1, 2, 3)]] and clip.closed
    assert pool.order[:2] == ["a0", "b0"]  # the second clip begins where the first has nothing for a worker
    assert "c0" in pool.order[2:] and len(pool.order) == 12


def test_a_lost_worker_costs_its_task_alone(tmp_path: Path) -> None:
    losses = iter(["process 7: gone", "process 8: gone"])
    pool = Pretended(2, lambda task: next(losses, None) if task.span == (2, 3) else None)
    ended, said, clips = scheduled(pool, tmp_path, "a")
    assert ended == {"a": None} and clips["a"].got[1][1] == "a(2, 3)"
    assert pool.order.count("a2") == 3 and len(pool.order) == 6
    assert said == [f"a: render 2-3 lost its worker (process {n}: gone); it is done again" for n in (7, 8)]


def test_a_task_that_loses_every_worker_fails_its_clip(tmp_path: Path) -> None:
    pool = Pretended(1, lambda task: "gone" if task.plan == "a" and task.span == (1, 2) else None)
    ended, _, clips = scheduled(pool, tmp_path, "ab", retries=2)
    assert isinstance(ended["a"], DeviceError) and "3 workers were lost at render 1-2" in str(ended["a"])
    assert ended["b"] is None and clips["a"].closed
    assert pool.order.count("a1") == 3 and "a2" not in pool.order  # nothing more is begun for it


@pytest.mark.parametrize("keep_going", [True, False])
def test_a_failure_is_its_clip_s(tmp_path: Path, keep_going: bool) -> None:
    pool = Pretended(1, lambda task: InputError("broken") if task.plan == "a" else None)
    ended, _, clips = scheduled(pool, tmp_path, "ab", keep_going=keep_going)
    assert str(ended["a"]) == "broken" and clips["a"].closed
    assert ended.get("b", "not begun") is None if keep_going else "b" not in ended


def test_an_interrupt_lets_go_of_the_clips(tmp_path: Path) -> None:
    def stop(task: Task) -> None:
        raise KeyboardInterrupt

    clip = Clip("a", FolderStore(tmp_path))
    flow = Flow("a", lambda: cast(BatchClip, clip), lambda clip, error: None)
    with pytest.raises(KeyboardInterrupt):
        list(Schedule([flow], Pretended(1, stop), print).run())
    assert clip.closed
