"""What the user sees while a command runs: notices and progress on stderr, data on stdout.

This is the only module (beside the commands) that writes to a terminal, so that stdout holds data and nothing else.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from sg3cli.errors import InputError

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
            write_out(line + "\n")

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
            with suppress(InputError, BrokenPipeError):  # it has failed already
                self._object({**fields, "notices": self.notices})

    def error(self, what: str, hint: str) -> None:
        """Two lines on stderr, also when quiet."""
        with suppress(BrokenPipeError):
            write_err(f"{self.prefix}error: {what}\n" + (f"{self.prefix}hint: {hint}\n" if hint else ""))

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
            write_err(message + "\n")

    def _object(self, fields: dict[str, Any]) -> None:
        write_out(json.dumps(as_text(fields), default=str) + "\n")

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


# ---- the standard streams, whatever state they are in ---------------------------------------------------------------

STREAMS = ("stdin", "stdout", "stderr")
UNDECODED = re.compile("[\ud800-\udfff]")  # bytes of a name that are no text, as Python holds them
CLOSED: set[str] = set()  # those that were closed when the command began
AS_BYTES = "sg3-bytes"  # how stdout writes them


def open_streams() -> None:
    """Let all three standard streams exist and take any text.

    One that was closed reads nothing and drops everything. Otherwise the first file that is opened, a model or an
    output, would get its number, and what a library prints would go into it.
    """
    for number, name in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number
            CLOSED.add(name)
        if getattr(sys, name) is None:
            mode = "r" if number == 0 else "w"
            setattr(sys, name, open(number, mode, encoding="utf8", closefd=False))  # noqa: SIM115 (for good)
    codecs.register_error(AS_BYTES, _bytes_or_escapes)
    for name, errors in zip(STREAMS, ("surrogateescape", AS_BYTES, "backslashreplace"), strict=True):
        if reconfigure := getattr(getattr(sys, name), "reconfigure", None):
            reconfigure(errors=errors)


def _bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    """For an encoder: the bytes of a name as they were, what the encoding lacks as `\\xe9` or `\\u2019`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts = []
    for char in error.object[error.start : error.end]:
        raw = ord(char) - 0xDC00
        parts.append(bytes([raw]) if 0x80 <= raw <= 0xFF else char.encode("ascii", "backslashreplace"))
    return b"".join(parts), error.end


def write_out(text: str) -> None:
    """Data to stdout; `InputError` when it cannot be written (`BrokenPipeError` stays: the reader has had enough)."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise lost_output(error) from error


def write_err(text: str) -> None:
    """A message to stderr. Where nobody can read it the work goes on all the same."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except BrokenPipeError:
        raise
    except OSError:
        drop("stderr")


def lost_output(error: OSError) -> InputError:
    """The error of a stdout that takes nothing more; what is still to come is dropped."""
    drop("stdout")
    what = f"cannot write to standard output: {error.strerror or error}"
    return InputError(what, "make room where it goes to, or send it elsewhere")


def drop(name: str) -> None:
    """Send what a standard stream holds, and will be given, nowhere: the interpreter flushes once more at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, getattr(sys, name).fileno())
        os.close(null)


def as_text(value: Any) -> Any:
    """A reply in which every text can be written as JSON: bytes of a name that are no text become `\\xe9`."""
    if isinstance(value, str):
        return UNDECODED.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", value)
    if isinstance(value, dict):
        return {as_text(key): as_text(inner) for key, inner in value.items()}
    return [as_text(inner) for inner in value] if isinstance(value, list | tuple) else value
