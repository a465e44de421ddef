"""What the user sees while a command runs: notices and progress on stderr, data on stdout.

This is the only module (beside the commands) that writes to a terminal, so that stdout holds data and nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

SCHEMA = 1  # of the object that `--json` prints
LINE_EVERY = 5.0  # seconds between progress lines when stderr is not a terminal


class Console:
    """Notices, progress and results of one command.

    `quiet` silences all but errors; `as_json` replaces the data on stdout by one JSON object. Notices are collected in
    both cases, because they tell what was changed without being asked for. `prefix` goes before every line on stderr:
    in a batch it says whose line it is.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False, prefix: str = "") -> None:
        self.quiet = quiet
        self.as_json = as_json
        self.prefix = prefix
        self.notices: list[str] = []
        self._live: Any = None  # the rich bar on screen, which must print the lines that come meanwhile

    def notice(self, message: str) -> None:
        """Say once, on stderr, what was decided or changed; repeated messages are dropped."""
        if message in self.notices:
            return
        self.notices.append(message)
        self._line(message)

    def show(self, line: str) -> None:
        """One line on stderr that is no notice: a row of a table."""
        self._line(line)

    def data(self, line: str) -> None:
        """One line of data on stdout (left out with `--json`, where `result` prints the object)."""
        if not self.as_json:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()

    def result(self, command: str, **fields: Any) -> None:
        """The one object of `--json`; nothing otherwise."""
        if self.as_json:
            self._object({"schema": SCHEMA, "command": command, "ok": True, **fields, "notices": self.notices})

    def failure(self, command: str, code: int, what: str, hint: str, **facts: Any) -> None:
        """Two lines on stderr, and with `--json` the same, and `facts`, as an object on stdout."""
        self.error(what, hint)
        if self.as_json:
            error = {"code": code, "what": what, "hint": hint}
            fields = {"schema": SCHEMA, "command": command, "ok": False, "error": error, **facts}
            self._object({**fields, "notices": self.notices})

    def error(self, what: str, hint: str) -> None:
        """Two lines on stderr, also when quiet."""
        sys.stderr.write(f"{self.prefix}error: {what}\n" + (f"{self.prefix}hint: {hint}\n" if hint else ""))
        sys.stderr.flush()

    def progress(self, items: Iterable[T], total: int | None, label: str, start: int = 0) -> Iterator[T]:
        """Pass `items` on; show how many of `total` are done (`start` of them before this run)."""
        if self.quiet:
            yield from items
        elif sys.stderr.isatty():
            yield from self._bar(items, total, self.prefix + label, start)
        else:
            yield from self._lines(items, total, label, start)

    def _line(self, message: str) -> None:
        if self.quiet:
            return
        message = self.prefix + message
        if self._live is not None:
            self._live.console.print(message, markup=False, highlight=False)
        else:
            sys.stderr.write(message + "\n")
            sys.stderr.flush()

    def _object(self, fields: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(fields, default=str) + "\n")
        sys.stdout.flush()

    def _bar(self, items: Iterable[T], total: int | None, label: str, start: int) -> Iterator[T]:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total, completed=start)
            self._live = bar
            try:
                for item in items:
                    yield item
                    bar.advance(task)
            finally:
                self._live = None

    def _lines(self, items: Iterable[T], total: int | None, label: str, start: int) -> Iterator[T]:
        began = last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - last >= LINE_EVERY:
                last = now
                self._line(progress_line(label, start + done, total, done / (now - began)))


class CallbackConsole(Console):
    """A console that writes nothing: progress and notices go to functions (None: to nobody)."""

    def __init__(
        self,
        progress: Callable[[str, int, int | None], None] | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(quiet=True)
        self._tell_progress, self._tell_notice = progress, notice

    def notice(self, message: str) -> None:
        """Hand a notice on, once."""
        if message not in self.notices and self._tell_notice is not None:
            self._tell_notice(message)
        super().notice(message)

    def progress(self, items: Iterable[T], total: int | None, label: str, start: int = 0) -> Iterator[T]:
        """Pass `items` on and tell `progress(label, done, total)` after each; what it raises ends the work."""
        for done, item in enumerate(items, start=start + 1):
            yield item
            if self._tell_progress is not None:
                self._tell_progress(label, done, total)


def progress_line(label: str, done: int, total: int | None, rate: float) -> str:
    """`align 120/450, 24.1/s, 14 s left`."""
    if not total:
        return f"{label} {done}, {rate:.1f}/s"
    left = max(total - done, 0) / max(rate, 1e-9)
    return f"{label} {done}/{total}, {rate:.1f}/s, {left:.0f} s left"
