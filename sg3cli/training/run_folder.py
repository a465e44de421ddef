"""The working folder of a training: the state it continues from, its log as a table, its settings.

WORK/settings.json     what the run was started with; another run in the same folder must agree
WORK/state.pt          everything that the next step depends on; written beside and renamed, never half
WORK/log.csv           a row each time; rows after the state that a killed run left are dropped when it continues
WORK/log/              the same for TensorBoard, when it is installed
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from sg3cli.errors import InputError, UsageError
from sg3cli.files import SAVE_SECONDS, atomic_path, sweep, write_error, write_json

STATE, SETTINGS, LOG = "state.pt", "settings.json", "log.csv"

LOG_EVERY = 10  # steps, of `kept_steps`


class RunFolder:
    """State, settings and log of one training in the folder `work`. Only the first process of a group writes."""

    def __init__(self, work: Path, settings: Mapping[str, Any], lasting: tuple[str, ...] = ()) -> None:
        """Open or begin `work`; settings named in `lasting` may change when a run continues (its length, say).

        Raises UsageError when the folder holds a run with other settings.
        """
        self.work = work
        try:
            work.mkdir(parents=True, exist_ok=True)
            for name in (STATE, SETTINGS, LOG):
                sweep(work / name)
        except OSError as error:
            raise write_error(work, error) from error
        self.settings = json.loads(json.dumps(settings))
        self._check_settings(lasting)
        self._board: Any = None

    def _check_settings(self, lasting: tuple[str, ...]) -> None:
        path = self.work / SETTINGS
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf8"))
            names = before.keys() | self.settings.keys()
            changed = sorted(k for k in names - {*lasting} if before.get(k) != self.settings.get(k))
            if changed:
                was = ", ".join(f"{k} was {before.get(k)!r}" for k in changed)
                raise UsageError(f"{self.work} holds a run with other settings: {was}", "give another --work folder")

    def write_settings(self) -> None:
        """Record the settings; the first process calls it once."""
        write_json(self.work / SETTINGS, self.settings)

    def load(self, device: torch.device | str = "cpu") -> dict[str, Any] | None:
        """The state to continue from, None in a new folder. Raises InputError when it cannot be read."""
        path = self.work / STATE
        if not path.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        except Exception as error:
            raise InputError(f"{path} cannot be read: {error}".splitlines()[0], "remove it to begin again") from error
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state; the one before is there until the new one is whole."""
        with atomic_path(self.work / STATE) as temporary:
            torch.save(dict(state), temporary)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append a row `step, values...`. A row with a new column begins the table anew, with the old rows kept."""
        path = self.work / LOG
        row = {"step": str(step)} | {name: f"{value:.6g}" for name, value in values.items()}
        known = self._columns()
        if known and set(row) <= set(known):
            with path.open("a", newline="", encoding="utf8") as file:
                csv.DictWriter(file, known).writerow(row)
        else:
            self._rewrite([*self.rows(), row])
        self._log_to_board(step, values)

    def rows(self) -> list[dict[str, str]]:
        """The table so far."""
        path = self.work / LOG
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf8") as file:
            return list(csv.DictReader(file))

    def drop_after(self, step: int) -> None:
        """Forget rows of steps that the state does not know; they will be made again."""
        rows = self.rows()
        kept = [row for row in rows if (row["step"] or "").isdigit() and int(row["step"]) <= step]
        if len(kept) != len(rows):
            self._rewrite(kept)

    def _columns(self) -> list[str]:
        path = self.work / LOG
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf8") as file:
            return next(csv.reader(file), [])

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row)) or ["step"]
        with atomic_path(self.work / LOG) as temporary, temporary.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    def _log_to_board(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                self._board = False
            else:
                self._board = SummaryWriter(str(self.work / "log"))
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)


class StepConfig(Protocol):
    """How many steps a training has."""

    @property
    def steps(self) -> int: ...


class Stepped(Protocol):
    """What trains in steps and can be kept."""

    step: int

    @property
    def config(self) -> StepConfig: ...

    def run(self) -> Iterator[dict[str, float]]: ...

    def state(self) -> dict[str, Any]: ...


def kept_steps(trainer: Stepped, folder: RunFolder, seconds: float | None = None) -> Iterator[dict[str, float]]:
    """What each step has found, to the end or for so many `seconds`; logs and saves on the way.

    Raises `UsageError` when the training has come apart.
    """
    began = saved = time.monotonic()
    for found in trainer.run():
        now, last = time.monotonic(), trainer.step == trainer.config.steps
        over = seconds is not None and now - began > seconds
        if not math.isfinite(found["loss"]):
            raise UsageError(f"the loss is not finite at step {trainer.step}", "try a smaller --lr")
        if trainer.step % LOG_EVERY == 0 or last or over:
            folder.log(trainer.step, found)
        if last or over or now - saved > SAVE_SECONDS:
            folder.save(trainer.state())
            saved = now
        yield found
        if over:
            return
