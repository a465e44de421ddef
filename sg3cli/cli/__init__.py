"""The `sg3` command: parse, run, and turn every ending into its exit code and at most two lines."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from sg3cli.cli.flags import debugging
from sg3cli.console import Console
from sg3cli.errors import DeviceError, Sg3Error, UsageError

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
        expected = as_expected(error, name)
        console.failure(name, expected.code, str(expected), expected.hint, **expected.facts)
        return expected.code


def what_is_kept(command: str) -> str:
    """What an interruption costs."""
    if command in ("run", "align", "faces", "invert", "finetune", "edit", "render"):
        return "what was done is kept, all but the last seconds: the same command continues"
    if command.startswith("train ") and command != "train score":
        return "what was saved in its --work folder is kept: the same command continues"
    return "nothing of it is kept: run it again"


def _reader_left() -> int:
    """Whoever read our output has gone: end quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at exit
    return BROKEN_PIPE


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
    return Sg3Error(
        f"{type(error).__name__}: {error}".splitlines()[0],
        "this is a bug in sg3; run it again with --debug and report what it prints",
    )


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Stopped(number)


def _trace_if_debugging(argv: list[str]) -> None:
    if debugging(argv):
        traceback.print_exc()
