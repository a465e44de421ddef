"""`sg3 evaluate`: figures of a project and of what was rendered from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from sg3cli.cli import find_project, setting_sources
from sg3cli.cli.flags import Session
from sg3cli.console import Console
from sg3cli.errors import InputError, UsageError
from sg3cli.evaluation.figure_words import MISSING, figure_rows, number
from sg3cli.project import Project

SWEEP_SYNTAX = "write it as DIRECTION=S,S,...: age=-2,-1,0,1,2"

Target = Annotated[str | None, typer.Argument(metavar="PROJECT", help="A project, or its video.", show_default=False)]
Outputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="OUT", help="Rendered videos [default: those the project knows].", show_default=False),
]
Sweep = Annotated[
    str | None, typer.Option("--sweep", metavar="DIRECTION=S,S,...", help="Judge a direction at these strengths.")
]
Grid = Annotated[
    Path | None,
    typer.Option("--grid", metavar="PNG", help="Picture of the sweep: the source above, then a row per strength."),
]
Every = Annotated[
    int | None,
    typer.Option("--every", metavar="K", min=1, help="Judge every K-th frame [default: all; 16 in a sweep]."),
]
Model = Annotated[str | None, typer.Option("--model", help="Where the project's model is now, if it was moved.")]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to compute.")
]


def evaluate(
    session: Session,
    project: Target = None,
    outputs: Outputs = None,
    sweep: Sweep = None,
    grid: Grid = None,
    every: Every = None,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Measure a project and its output: timing, faces, reconstruction, identity, and what lies outside the mask."""
    swept = None if sweep is None else parse_sweep(sweep)
    check_grid(grid, swept is not None)
    found = find_project.open_target(find_project.find_target(project, None, session.console), None)
    if not (found.path / "project.json").is_file():
        raise UsageError(f"{found.path} is not there yet", "run the clip first: sg3 run INPUT -o OUT")
    flags: setting_sources.Values = {} if model is None else {"invert": {"model": model}}
    wanted = setting_sources.of_project(found, flags)
    from sg3cli.pipeline import Job

    with found.lock("evaluate"):
        job = Job(found, wanted, session.console, device=device)
        if swept is not None:
            from sg3cli.evaluation.strength_sweep import sweep as run_sweep

            figures = run_sweep(job, *swept, every, grid)
        else:
            from sg3cli.evaluation.project_metrics import evaluate as measure

            figures = measure(job, outputs or rendered(found, session.console), every or 1)
    for line in sweep_lines(figures) if swept is not None else figure_lines(figures):
        session.console.data(line)
    session.console.result("evaluate", project=str(found.path), edits=found.stored_edits, **figures)


def parse_sweep(text: str) -> tuple[str, tuple[float, ...]]:
    """`age=-2,0,2` -> the direction and its strengths. Raises `UsageError`."""
    name, equals, listed = text.rpartition("=")
    try:
        strengths = tuple(float(part) for part in listed.split(","))
    except ValueError:
        raise UsageError(f"cannot read the strengths of {text!r}", SWEEP_SYNTAX) from None
    if not name or not equals or not all(map(math.isfinite, strengths)) or len(set(strengths)) < len(strengths):
        raise UsageError(f"cannot read the sweep {text!r}", SWEEP_SYNTAX)
    return name.strip(), strengths


def check_grid(grid: Path | None, swept: bool) -> None:
    """Raise before any work when the picture could not be written."""
    if grid is None:
        return
    if not swept:
        raise UsageError("--grid shows a sweep", "add --sweep age=-2,-1,0,1,2")
    if grid.suffix.lower() != ".png" or grid.is_dir():
        raise UsageError(f"{grid} is not the name of a PNG file", "give --grid NAME.png")


def rendered(project: Project, console: Console) -> list[str]:
    """The outputs of the project's last renders that are still there."""
    known = project.record("render").facts.get("outputs", {})
    for path in known:
        if not Path(path).is_file():
            console.notice(f"evaluate: {path} is no longer there")
    there = [path for path in known if Path(path).is_file()]
    if known and not there:
        raise InputError("none of the project's outputs is there any more", "render again, or name a file")
    return there


# ---- tables --------------------------------------------------------------------------------------------------------


def figure_lines(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as a table for people."""
    for name, words in figure_rows(figures):
        yield row(name, words)


def row(name: str, words: str) -> str:
    return f"{name:<26}{words}"


def sweep_lines(figures: dict[str, Any]) -> Iterator[str]:
    """Mean readings per strength, labels by slope."""
    yield row(f"sweep of {figures['direction']}", f"{figures['frames']} frames")
    yield row("strength", "".join(f"{s:>10g}" for s in figures["strengths"]) + "     slope   per std")
    if figures["labels"] is None:
        yield row("labels", MISSING)
        yield row("identity", MISSING)
        return
    yield row("identity", "".join(f"{value:>10.4f}" for value in figures["identity"]))
    for name, entry in sorted(figures["labels"].items(), key=lambda item: -abs(item[1]["slope_std"] or 0)):
        means = "".join(f"{value:>10.4f}" for value in entry["means"])
        slopes = f"{number(entry['slope']):>10}{number(entry['slope_std'], 2):>10}"
        yield row(name, means + slopes + ("  monotone" if entry["monotone"] else ""))
