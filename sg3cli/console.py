"""What the user sees while a command runs: notices and progress on stderr, data on stdout.

This is the only module (beside the commands) that writes to a terminal, so that stdout holds data and nothing else.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

SCHEMA = 1  # of the object that `--json` prints
RECENT = 10.0  # seconds over which a pace is measured
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

    def heading(self, line: str) -> None:
        """What stands over a table, or under it: for people, so only where stdout is a terminal."""
        if sys.stdout.isatty():
            self.data(line)

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
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        pace = Pace()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total, completed=start, left="")
            self._live = bar
            try:
                for done, item in enumerate(items, start=start + 1):
                    yield item
                    pace.note(time.monotonic(), done)
                    bar.update(task, completed=done, left=pace.left(done, total))
            finally:
                self._live = None

    def _lines(self, items: Iterable[T], total: int | None, label: str, start: int) -> Iterator[T]:
        pace, last = Pace(), time.monotonic()
        for done, item in enumerate(items, start=start + 1):
            yield item
            now = time.monotonic()
            pace.note(now, done)
            if now - last >= LINE_EVERY:
                last = now
                self._line(progress_line(label, done, total, pace))


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


class Pace:
    """How fast a stage goes: over the last seconds and as a whole. What is left is told once the two agree."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._first: tuple[float, int] | None = None

    def note(self, now: float, done: int) -> None:
        """`done` items stand at the time `now` in seconds."""
        self._first = self._first or (now, done)
        self._seen.append((now, done))
        while now - self._seen[0][0] > RECENT and len(self._seen) > 2:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Items a second over the last `RECENT` seconds."""
        return self._since(self._seen[0]) if self._seen else 0.0

    def _since(self, start: tuple[float, int]) -> float:
        now, done = self._seen[-1]
        return (done - start[1]) / max(now - start[0], 1e-9)

    def left(self, done: int, total: int | None) -> str:
        """`2 min left`, or nothing while that would be a guess."""
        if not total or self._first is None or self._seen[-1][0] - self._first[0] < RECENT or self.rate <= 0:
            return ""
        if not 0.7 < self._since(self._first) / self.rate < 1.4:
            return ""
        seconds = max(total - done, 0) / self.rate
        return f"{seconds:.0f} s left" if seconds < 100 else f"{seconds / 60:.0f} min left"


def progress_line(label: str, done: int, total: int | None, pace: Pace) -> str:
    """`align 120/450, 24.1/s, 14 s left`."""
    of = f"{done}/{total}" if total else f"{done}"
    return ", ".join(filter(None, (f"{label} {of}", f"{pace.rate:.1f}/s", pace.left(done, total))))
