"""A training run in one folder, in the background: it saves by time, continues exactly, logs and draws sheets."""

from __future__ import annotations

import json
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from sg3cli.files import atomic_path
from sg3cli.training.people128.spare_cores import SpareCores

LOG_EVERY = 10  # steps

Say = Callable[[str], None]


class Trainer(Protocol):
    """What takes a step on a batch, and can tell and take over all that the next step depends on."""

    now: int

    def step(self, batch: Any, progress: float, /) -> dict[str, float]: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any], /) -> None: ...


class Pace(Protocol):
    """Where a run writes, how long it is, and how often it saves and draws."""

    @property
    def work(self) -> Path: ...

    @property
    def minutes(self) -> float: ...

    @property
    def save_minutes(self) -> float: ...

    @property
    def sheet_minutes(self) -> float: ...

    @property
    def threads(self) -> int: ...


class BackgroundRun(ABC):
    """The loop of a run; its data, what is kept of it and its sheets are those of the kind of run."""

    def __init__(self, pace: Pace, trainer: Trainer, say: Say, device: str = "cpu") -> None:
        self._pace, self._trainer, self.say = pace, trainer, say
        self.seconds, self.stopping = 0.0, False
        path = pace.work / "state.pt"
        if path.is_file():
            state = torch.load(path, map_location=device, weights_only=True)
            trainer.restore(state)
            self.seconds = float(state["seconds"])
            self.say(f"continued at step {trainer.now}, {self.seconds / 60:.1f} minutes")

    @abstractmethod
    def batches(self, first: int) -> Iterator[Any]:
        """What the steps from `first` on are taken on."""

    @abstractmethod
    def keep(self, meta: dict[str, Any]) -> None:
        """Write what the run is for: the averaged networks; `meta` tells how far they are."""

    @abstractmethod
    def sheets(self) -> None:
        """Draw what is held out with the averaged networks."""

    def train(self, steps: int | None = None) -> None:
        """To the end of the minutes, or for `steps` more."""
        pace, trainer, cores = self._pace, self._trainer, SpareCores(self._pace.threads)
        total, sums, counted = 60 * pace.minutes, dict[str, float](), dict[str, int]()
        saved, sheet = self.seconds, self.seconds // (60 * pace.sheet_minutes)
        last = None if steps is None else trainer.now + steps
        began = time.monotonic()  # the wait for a batch counts, saving and drawing do not
        for batch in self.batches(trainer.now):
            if self.stopping or self.seconds >= total or trainer.now == last:
                break
            threads = float(cores.adapt())
            for name, value in ({"threads": threads} | trainer.step(batch, self.seconds / total)).items():
                sums[name], counted[name] = sums.get(name, 0.0) + value, counted.get(name, 0) + 1
            self.seconds += time.monotonic() - began
            if trainer.now % LOG_EVERY == 0:
                self._log({name: value / counted[name] for name, value in sums.items()})
                sums, counted = {}, {}
            if self.seconds - saved >= 60 * pace.save_minutes:
                self.save()
                saved = self.seconds
            if self.seconds // (60 * pace.sheet_minutes) > sheet:
                self.sheets()
                sheet = self.seconds // (60 * pace.sheet_minutes)
            began = time.monotonic()
        self.save()
        if not self.stopping:
            self.sheets()

    def stop(self) -> None:
        """Save after the present step and end."""
        self.stopping = True

    def save(self) -> None:
        """The state, and what the run is for."""
        with atomic_path(self._pace.work / "state.pt") as temporary:
            torch.save(self._trainer.state() | {"seconds": self.seconds}, temporary)
        self.keep({"step": self._trainer.now, "minutes": round(self.seconds / 60, 1)})

    def _log(self, means: dict[str, float]) -> None:
        row = {"step": self._trainer.now, "minutes": round(self.seconds / 60, 2)}
        row |= {name: round(value, 4) for name, value in means.items()}
        with (self._pace.work / "log.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
        if self._trainer.now % (10 * LOG_EVERY) == 0:
            self.say(json.dumps(row))


def say(text: str) -> None:
    """A line with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def stopped_by_sigterm(run: BackgroundRun) -> None:
    """Let SIGTERM end the run as `stop` does."""
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
