"""`sg3 report`: one page that shows what became of one project or of many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sg3cli.cli import find_project, setting_sources
from sg3cli.cli.batch_inputs import read_list
from sg3cli.cli.evaluate import Device, Every, Model
from sg3cli.cli.evaluate_video import Embedder, check_embedder, present
from sg3cli.cli.flags import Session
from sg3cli.console import Console
from sg3cli.errors import UsageError
from sg3cli.project import Project

if TYPE_CHECKING:
    from sg3cli.evaluation.report import ClipReport, Wanted
    from sg3cli.evaluation.video_figures import JudgeStore

MARK = '<meta name="generator" content="sg3 '  # near the beginning of a page: a newer report may replace it
BEGINS = 64 << 10  # bytes in which it stands
SIZE = 16  # megabytes: with what mail adds to it, most servers take it

Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="PROJECT", help="A project, or its video; several get an index.", show_default=False),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="PAGE.html", help="The page to write.")]
Edited = Annotated[
    Path | None,
    typer.Option("--edited", metavar="VIDEO", help="The video to show [default: what the project rendered last]."),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="LIST", help="More projects: a text file with a path a line, `-`: stdin."),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Leave out the figures: videos, frames and facts alone.", show_default=False)
]
MaxSize = Annotated[
    float,
    typer.Option(
        "--max-size", metavar="MB", min=0.5, help="Size of the page; its videos are made as small as that asks."
    ),
]


def report(
    session: Session,
    projects: Targets = None,
    output: Output = Path("report.html"),
    listed: From = None,
    edited: Edited = None,
    every: Every = None,
    quick: Quick = False,
    max_size: MaxSize = SIZE,
    embedder: Embedder = None,
    model: Model = None,
    device: Device = "auto",
) -> None:
    """Write a page to look at and to send: videos side by side, figures over time, edits, models, provenance."""
    check_output(output)
    check_embedder(embedder)
    found = gathered(session.console, [*(projects or []), *(read_list(listed) if listed is not None else [])])
    if edited is not None and len(found) > 1:
        raise UsageError("--edited names the video of one project", "report on them one by one")
    for each in found:
        each.source()  # raises where a source is gone, before any work
    from sg3cli.evaluation.report import Wanted
    from sg3cli.evaluation.video_figures import JudgeStore

    room = int(max_size * (1 << 20) / len(found))
    wanted = Wanted(room, every or 1, quick, None if edited is None else present(edited))
    judges = JudgeStore(embedder, session.console)
    reports = [one_report(session, each, judges, wanted, model, device) for each in found]
    size = write(output, reports)
    if size > max_size * (1 << 20):
        session.console.notice(f"report: the page is larger than --max-size {max_size:g}; take fewer projects at once")
    session.console.notice(f"report: {size / 2**20:.1f} MB, opens in any browser, reads nothing from the network")
    session.console.data(str(output))
    clips = [{"project": str(p.path), "figures": r.figures} for p, r in zip(found, reports, strict=True)]
    session.console.result("report", output=str(output), bytes=size, clips=clips)


def check_output(path: Path) -> None:
    """Raise before any work when the page could not be written, or would replace what is no report."""
    from sg3cli.pipeline.provenance import check_folder

    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise UsageError(f"{path} is not the name of a page", "give -o NAME.html")
    if path.exists():
        with open(path, "rb") as handle:
            if MARK.encode() not in handle.read(BEGINS):
                raise UsageError(f"{path} exists and is not a report of sg3", "choose another name")
    check_folder(path)


def gathered(console: Console, names: Sequence[str]) -> list[Project]:
    """The projects, each once; raises `UsageError` for one that is not there."""
    found: dict[Path, Project] = {}
    asked: Sequence[str | None] = names or [None]
    for name in asked:
        project = find_project.open_target(find_project.find_target(name, None, console), None)
        if not (project.path / "project.json").is_file():
            raise UsageError(f"{project.path} is not there yet", "run the clip first: sg3 run INPUT -o OUT")
        found.setdefault(project.path.resolve(), project)
    return list(found.values())


def one_report(
    session: Session, project: Project, judges: JudgeStore, wanted: Wanted, model: str | None, device: str
) -> ClipReport:
    """The report of one project, whose notices are its own."""
    from sg3cli.evaluation.report import clip_report
    from sg3cli.pipeline import Job

    console = Console(session.console.quiet, session.console.as_json, session.console.prefix)
    flags: setting_sources.Values = {} if model is None else {"invert": {"model": model}}
    with project.lock("report"):
        job = Job(project, setting_sources.of_project(project, flags), console, device=device, nets=session.nets)
        job.check_device()
        made = clip_report(job, replace(judges, console=console), wanted)
    for notice in console.notices:
        if notice not in session.console.notices:
            session.console.notices.append(notice)
    return made


def write(path: Path, reports: Sequence[ClipReport]) -> int:
    """The page, whole or not at all; returns its bytes."""
    from datetime import UTC, datetime

    from sg3cli.evaluation.report_page import page
    from sg3cli.files import atomic_path

    data = page(reports, datetime.now(UTC).date()).encode("utf8", "replace")
    with atomic_path(path) as temp:
        temp.write_bytes(data)
    return len(data)
