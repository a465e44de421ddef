"""`sg3 evaluate generator`: how good a generator is, in figures that others can be compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sg3cli.cli.flags import Session
from sg3cli.cli.report_options import Device, Model, Out, Quick, asked, report_path, subject, tell

Against = Annotated[
    Path | None,
    typer.Option(
        "--against", metavar="PICTURES", help="Square pictures of the kind it shall draw: a folder, zip or data set."
    ),
]
Features = Annotated[
    str,
    typer.Option(
        "--features",
        metavar="auto|lite0|face|FILE.pt",
        help="Network in whose features sets are compared; the official inception-2015-12-05.pt is a program that is "
        "run [auto: lite0 where it has been pulled].",
    ),
]
Images = Annotated[int | None, typer.Option("--images", min=8, help="Pictures drawn [10000; quick: 336].")]
Pairs = Annotated[int | None, typer.Option("--pairs", min=2, help="Paths of PPL in each space [1000; quick: 8].")]
Motions = Annotated[int | None, typer.Option("--motions", min=1, help="Shifts, and turns [1000; quick: 8].")]
Truncation = Annotated[float, typer.Option("--truncation", metavar="PSI", help="1 is all variety, 0 the average.")]
Class = Annotated[int | None, typer.Option("--class", metavar="N", min=0, help="Class, of a conditional model.")]


def generator(
    session: Session,
    model: Model = None,
    against: Against = None,
    out: Out = None,
    quick: Quick = False,
    features: Features = "auto",
    images: Images = None,
    pairs: Pairs = None,
    motions: Motions = None,
    truncation: Truncation = 1.0,
    label: Class = None,
    device: Device = "auto",
) -> None:
    """FID, KID, precision and recall against pictures, PPL in Z, W, W+ and S, EQ-T and EQ-R of a generator.

    A killed run goes on where it was when the same command is given again.
    """
    from sg3cli.evaluation.generator_report import QUICK, GeneratorReportConfig, generator_report, report_lines

    bundle, where = subject(session, model, device)
    values = asked(QUICK if quick else None, images=images, pairs=pairs, motions=motions, label=label)
    config = GeneratorReportConfig(**values, features=features, truncation=truncation)
    path = report_path(out, bundle, "generator")
    figures = generator_report(bundle, against, config, path, session.console, where)
    tell(session, "evaluate generator", figures, report_lines(figures), path)
