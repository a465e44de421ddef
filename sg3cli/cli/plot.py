"""`sg3 inspect --plot`: the timeline of a project over time as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sg3cli.cli import setting_sources
from sg3cli.cli.flags import Session
from sg3cli.errors import UsageError
from sg3cli.project import Project

SAMPLES = 60
MARK = "sg3 inspect --plot"  # inside the file: a plot may be replaced by a newer one, nothing else

Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE.png",
        help="Draw landmark jitter, reconstruction, identity and edits over time into a picture.",
    ),
]
Samples = Annotated[int, typer.Option("--samples", metavar="N", min=2, help="Faces that a plot renders and judges.")]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where a plot computes.")
]


def check_plot(path: Path) -> None:
    """Raise before any work when the picture could not be written, or would replace what is not a plot."""
    from sg3cli.pipeline.provenance import check_folder

    if path.suffix.lower() != ".png" or path.is_dir():
        raise UsageError(f"{path} is not the name of a PNG file", "give --plot NAME.png")
    if path.exists():
        with open(path, "rb") as handle:
            if MARK.encode() not in handle.read(4096):
                raise UsageError(f"{path} exists and is not a plot of sg3", "choose another name")
    check_folder(path)


def draw_plot(session: Session, project: Project, path: Path, samples: int, device: str) -> dict[str, Any]:
    """Write the plot of a project; returns its figures."""
    check_plot(path)
    if not (project.path / "project.json").is_file():
        raise UsageError(f"{project.path} is not there yet", "run the clip first: sg3 align INPUT")
    wanted = setting_sources.of_project(project)
    from sg3cli.drawing.images import write_png
    from sg3cli.evaluation.timeline import image
    from sg3cli.pipeline import Job

    with project.lock("inspect"):
        drawn, figures = image(Job(project, wanted, session.console, device=device), samples)
    write_png(path, drawn, MARK)
    return {"path": str(path), **figures}
