"""Many inputs, each with a project of its own, one after the other, with a table at the end."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sg3cli.cli import Stopped, as_expected, batch_inputs, find_project, setting_sources
from sg3cli.cli.batch_inputs import NOT_STARTED, TEMPLATE, Entry
from sg3cli.cli.flags import Session
from sg3cli.console import Console
from sg3cli.errors import CONTROLS, BatchError, UsageError
from sg3cli.files import write_error
from sg3cli.latents.edits import Edit

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

Work = Callable[[Session, str, str], "Job"]  # the whole chain on one input, to one output

OutDir = Annotated[
    Path | None, typer.Option("--out-dir", metavar="OUT", help="Folder for the outputs and projects of many inputs.")
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="TEMPLATE",
        help=f"Names in it, of {{stem}} {{suffix}} {{index}} {{edit}}. [default: {TEMPLATE}]",
    ),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="LIST", help="More inputs: a text file with a path a line, `-`: stdin.")
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going/--fail-fast", help="What a failed input means for those after it.")
]
TOGETHER = "several inputs: --out-dir OUT; one input: -o OUT"


def entries(
    session: Session,
    given: Sequence[str],
    output: str | None,
    out_dir: Path | None,
    name: str | None,
    edits: list[Edit],
    make: bool = True,
) -> list[Entry]:
    """The plan of a batch; nothing when it is one input with `-o`. Raises `UsageError` for options that do not fit.

    `make`: whether the output folder is made.
    """
    if out_dir is None:
        if len(given) > 1 and output is None:
            raise UsageError(f"there are {len(given)} inputs and no --out-dir", TOGETHER)
        if output is None:
            raise UsageError("missing option '--output' / '-o'", "sg3 run --help")
        if name is not None:
            raise UsageError("--name is for the files in --out-dir", TOGETHER)
        batch_inputs.only(given)
        return []
    if output is not None:
        raise UsageError("-o and --out-dir exclude each other", TOGETHER)
    if session.project is not None and len(given) > 1:
        raise UsageError("--project is for one input", "the projects of a batch lie in --out-dir")
    flags, around = session.flags.get("encode", {}), setting_sources.from_here()["encode"]
    planned = batch_inputs.plan(
        given, out_dir, name or TEMPLATE, edits, flags.get("format", around.get("format")), make
    )
    if session.project is not None and planned[0].project is not None:
        planned[0].project = session.project
    return planned


def run(session: Session, batch: Sequence[Entry], work: Work, keep_going: bool, command: str = "run") -> None:
    """Work on each input, then `finish`. An interrupt ends the batch."""
    began = time.monotonic()
    for entry in batch:
        try:
            _run_one(session, entry, work, alone=len(batch) == 1)
        except Stopped as stop:
            stop.facts = {"inputs": [each.to_dict() for each in batch]}
            show_table(session.console, batch)
            raise
        if entry.error is not None and not keep_going:
            break
        if words := progress_of(batch):
            session.console.show(words)
    finish(session, batch, command, began)


def finish(session: Session, batch: Sequence[Entry], command: str, began: float, **more: Any) -> None:
    """The table, and with `--json` the object, to which `more` is added. Raises `BatchError` when some failed.

    A single input's error is raised as it is.
    """
    show_table(session.console, batch)
    facts = {"inputs": [entry.to_dict() for entry in batch], **more}
    failed = [entry.error for entry in batch if entry.error is not None]
    if not failed:
        session.console.result(command, **facts, seconds=round(time.monotonic() - began, 2))
        return
    waiting = sum(entry.status == NOT_STARTED for entry in batch)
    words = f"{len(failed)} of {len(batch)} inputs failed" + (f", {waiting} were not started" if waiting else "")
    hint = "correct what the lines above say; the same command computes nothing twice"
    error = failed[0] if len(batch) == 1 else BatchError(words, hint)
    error.facts = facts
    raise error


def progress_of(batch: Sequence[Entry]) -> str:
    """`2 of 5 inputs done, about 3 min left`, by what those took that computed something; empty when all are done."""
    waiting = sum(entry.status == NOT_STARTED for entry in batch)
    if not waiting:
        return ""
    words = f"{len(batch) - waiting} of {len(batch)} inputs done"
    took = [entry.seconds for entry in batch if entry.status == "done"]
    if not took:
        return words
    seconds = waiting * sum(took) / len(took)
    return f"{words}, about {f'{seconds:.0f} s' if seconds < 100 else f'{seconds / 60:.0f} min'} left"


def _run_one(session: Session, entry: Entry, work: Work, alone: bool) -> None:
    """One input, whose failure is kept in the entry and said at once; what it holds is let go before the next."""
    began = time.monotonic()
    console = own_console(session.console, entry)
    entry.status = "interrupted"
    try:
        make_folder(entry.output)
        job = work(replace(session, console=console, project=entry.project), entry.input, entry.output)
    except BrokenPipeError:
        raise  # whoever reads our lines has gone; no input is at fault
    except Exception as error:  # noqa: BLE001 (whatever it is, the other inputs are not to suffer)
        if session.debug and not alone:
            traceback.print_exc()
        entry.status, entry.error = "failed", as_expected(error, "run")
        if not alone:
            console.error(str(entry.error), entry.error.hint)
            # Its frames hold models and arrays, which must not stay while the other inputs are worked on.
            entry.error.__traceback__ = entry.error.__cause__ = entry.error.__context__ = None
    else:
        entry.status = job.stages["render"]["status"]
        entry.facts = {"stages": job.stages, "edits": job.project.stored_edits}
        session.console.data(find_project.path_line(job.project.path))
    finally:
        entry.seconds = time.monotonic() - began
        entry.facts["notices"] = console.notices


def own_console(console: Console, entry: Entry) -> Console:
    """A console that says whose line each is."""
    return Console(console.quiet, console.as_json, f"{_plain(entry.input)}: ")


def make_folder(output: str) -> None:
    """The folder that a template such as `{stem}/edited.mp4` asks for."""
    folder = Path(output) if output.endswith("/") else Path(output).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error


def show_table(console: Console, batch: Sequence[Entry]) -> None:
    """The table, on stderr."""
    for line in table(batch):
        console.show(line)


def table(batch: Sequence[Entry]) -> list[str]:
    """Input, status, seconds, and the output or the error: a header and a line for each input."""
    rows: list[tuple[str, ...]] = [("input", "status", "seconds", "output or error")]
    for entry in batch:
        last = entry.output if entry.error is None else str(entry.error)
        seconds = "" if entry.status == NOT_STARTED else f"{entry.seconds:.1f}"
        rows.append((_plain(entry.input), entry.status, seconds, "" if entry.status == NOT_STARTED else _plain(last)))
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    return [f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:>{wide[2]}}  {d}".rstrip() for a, b, c, d in rows]


def _plain(text: str) -> str:
    """A name as it can be shown: control characters escaped, bytes that are no text replaced."""
    return text.translate(CONTROLS).encode("utf8", "replace").decode("utf8")
