"""The `sg3` command: parse, run, and turn every ending into its exit code and at most two lines."""

from __future__ import annotations

import os
import re
import signal
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from sg3cli import places
from sg3cli.cli.flags import debugging
from sg3cli.console import Console, drop, lost_output, open_streams
from sg3cli.errors import DeviceError, InputError, Sg3Error, UsageError
from sg3cli.files import NO_ROOM

# typer brings its own click; its base error is reached through the class that typer exports.
ParseError = typer.BadParameter.__mro__[2]
BROKEN_PIPE = 141


class Stopped(BaseException):
    """SIGINT or SIGTERM arrived: leave by the ordinary way, so that temporary files are removed and locks released."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number
        self.facts: dict[str, Any] = {}  # as those of an `Sg3Error`


def main() -> None:
    """Entry point of `sg3` and `python -m sg3cli`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    open_streams()
    places.lend_home()
    # Before torch reads it: its threads wait for each other asleep. Where they spin and the machine is shared, they
    # take the time that the thread they wait for would need, and two threads are several times slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line; returns its exit code."""
    from sg3cli.cli.app import app, command_name

    console = Console(as_json="--json" in argv)
    name = command_name(argv)
    try:
        check_words(argv)
        code = typer.main.get_command(app).main(argv, prog_name="sg3", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except Stopped as stop:
        _trace_if_debugging(argv)
        word = "interrupted" if stop.number == signal.SIGINT else "terminated"
        console.failure(name, 128 + stop.number, f"{name} was {word}", what_is_kept(name), **stop.facts)
        return 128 + stop.number
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as ending:  # of shell completion, and what typer makes of a broken pipe
        return _reader_left() if isinstance(ending.__context__, BrokenPipeError) else int(ending.code or 0)
    except Exception as error:  # noqa: BLE001 (the one place where every failure becomes an exit code)
        _trace_if_debugging(argv)
        expected = _of_stdout() or as_expected(error, name)
        console.failure(name, expected.code, str(expected), expected.hint, **expected.facts)
        return expected.code


def what_is_kept(command: str) -> str:
    """What an interruption costs."""
    if command in ("run", "align", "faces", "invert", "finetune", "edit", "render"):
        return "what was done is kept, all but the last seconds: the same command continues"
    if command == "batch":
        return (
            "what was done is kept, all but the last seconds, or on Ray the tasks at work: the same command continues"
        )
    if command == "adapt" or (command.startswith("train ") and command != "train score"):
        return "what was saved in its --work folder is kept: the same command continues"
    return "nothing of it is kept: run it again"


def _reader_left() -> int:
    """Whoever read our output has gone: end quietly."""
    drop("stdout")
    try:
        sys.stderr.flush()
    except OSError:
        drop("stderr")
    return BROKEN_PIPE


def _of_stdout() -> Sg3Error | None:
    """The error of a stdout that takes nothing more, if that is what has failed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return None
    except OSError as error:
        return lost_output(error)
    return None


def check_words(argv: list[str]) -> None:
    """Raise `UsageError` for an argument that is empty: a shell's variable that was not set, most of the time."""
    for place, word in enumerate(argv):
        if word == "" or re.fullmatch(r"--[\w-]+=", word):
            before = argv[place - 1] if place else ""
            whose = word[:-1] or (before if before.startswith("-") else f"argument {place + 1}")
            raise UsageError(f"{whose} is empty", "is a variable of the shell not set? --help tells what goes there")


def as_expected(error: Exception, command: str) -> Sg3Error:
    """The error in two lines; what is not foreseen is a bug and ends with code 1."""
    if isinstance(error, Sg3Error):
        return error
    if isinstance(error, ParseError):
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        if named := [word for word in sys.argv[1:] if word.startswith("-") and Path(word).is_file()]:
            return UsageError(f"{named[0]} was taken for an option", f"write ./{named[0]} for the file")
        return UsageError(message[:1].lower() + message[1:], f"sg3 {command} --help".replace("  ", " "))
    no_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if no_memory or "can't allocate memory" in str(error):  # what torch says of the CPU's
        return DeviceError("out of memory", "use smaller batches (--invert-batch, --render-batch) or --device cpu")
    if isinstance(error, OSError):
        return of_system(error)
    if isinstance(error, UnicodeEncodeError):
        what = f"the names of this locale are {error.encoding}, which has no {error.object[error.start : error.end]!a}"
        return InputError(what, "set LC_ALL=C.UTF-8")
    return Sg3Error(
        f"{type(error).__name__}: {error}".splitlines()[0],
        "this is a bug in sg3; run it again with --debug and report what it prints",
    )


def of_system(error: OSError) -> Sg3Error:
    """What the operating system refused, in two lines; a stage that knows more has said it before."""
    try:
        os.getcwd()
    except OSError:
        return InputError("the folder in which this command was started is gone", "cd to one that is there")
    reason = error.strerror or str(error) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    what = f"{' and '.join(names)}: {reason}" if names else f"the system refused something: {reason}"
    if error.errno in NO_ROOM:
        return InputError(what, "free some space; the same command continues")
    return InputError(what, "check the place and its permissions; --debug shows where it happened")


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Stopped(number)


def _trace_if_debugging(argv: list[str]) -> None:
    if debugging(argv):
        with suppress(OSError):
            traceback.print_exc()
