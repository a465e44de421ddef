"""`sg3 evaluate inversion`: how well each way to invert does, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sg3cli.cli.flags import Session
from sg3cli.cli.report_options import Backbone, Device, Model, Out, Quick, Reader, asked, report_path, subject, tell
from sg3cli.errors import InputError

Target = Annotated[
    Path,
    typer.Argument(metavar="PICTURES|PROJECT", help="Aligned square pictures (a folder, zip, data set), or a project."),
]
Pictures = Annotated[int | None, typer.Option("--pictures", min=1, help="Pictures at most, spread [32; quick: 2].")]
Restyle = Annotated[int | None, typer.Option("--restyle", min=1, help="Passes of the encoder [5; quick: 3].")]
Likeness = Annotated[int | None, typer.Option("--likeness", min=1, help="Steps of likeness [40; quick: 10].")]
Optimise = Annotated[
    int | None, typer.Option("--optimise", min=1, help="Steps from the mean code in W+ [500; quick: 24].")
]
Refine = Annotated[int | None, typer.Option("--refine", min=1, help="Steps from the encoder's code [100; quick: 10].")]
Tune = Annotated[int | None, typer.Option("--tune", min=1, help="Steps of pivotal tuning (PTI) [350; quick: 10].")]


def inversion(
    session: Session,
    target: Target,
    model: Model = None,
    out: Out = None,
    quick: Quick = False,
    reader: Reader = None,
    backbone: Backbone = None,
    pictures: Pictures = None,
    restyle: Restyle = None,
    likeness: Likeness = None,
    optimise: Optimise = None,
    refine: Refine = None,
    tune: Tune = None,
    device: Device = "auto",
) -> None:
    """Invert pictures in every way: L2, feature distance, MS-SSIM, identity, seconds and memory of each.

    A killed run goes on where it was when the same command is given again.
    """
    from sg3cli.evaluation.inversion_picture import report_lines
    from sg3cli.evaluation.inversion_report import QUICK, InversionReportConfig, inversion_report

    if not target.exists():
        raise InputError(f"{target} is not there", "give a folder of aligned pictures, or a project")
    bundle, where = subject(session, model, device)
    steps = {"restyle": restyle, "likeness": likeness, "optimise": optimise, "refine": refine, "tune": tune}
    config = InversionReportConfig(**asked(QUICK if quick else None, pictures=pictures, **steps))
    path = report_path(out, bundle, "inversion")
    figures = inversion_report(bundle, target, reader, backbone, config, path, session.console, where)
    tell(session, "evaluate inversion", figures, report_lines(figures), path)
