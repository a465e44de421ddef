"""`sg3 evaluate spaces`: which space of a generator disentangles best, and what edits in it cost."""

from __future__ import annotations

from typing import Annotated

import typer

from sg3cli.cli.flags import Session
from sg3cli.cli.report_options import (
    Backbone,
    Device,
    Judge,
    Model,
    Out,
    Quick,
    Reader,
    asked,
    report_path,
    subject,
    tell,
)
from sg3cli.cli.text_edits import TEXT_MODEL, TextModelName
from sg3cli.errors import UsageError

Samples = Annotated[
    int | None, typer.Option("--samples", min=40, help="Pictures that are read, and as many of W+ [4000; quick: 128].")
]
Pairs = Annotated[int | None, typer.Option("--pairs", min=2, help="Paths of PPL in each space [500; quick: 6].")]
Faces = Annotated[int | None, typer.Option("--faces", min=1, help="Faces that edits are measured on [32; quick: 4].")]
Attributes = Annotated[
    str | None,
    typer.Option("--attributes", metavar="NAME,...", help="Attributes that are edited [all that vary; quick: three]."),
]
Texts = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="NAME=TEXT", help="An edit of this attribute in words (StyleCLIP); repeatable."),
]
Change = Annotated[
    float, typer.Option("--change", min=0.05, help="Change at which edits are compared, in deviations over people.")
]
Truncation = Annotated[float, typer.Option("--truncation", metavar="PSI", help="1 is all variety, 0 the average.")]
Class = Annotated[int | None, typer.Option("--class", metavar="N", min=0, help="Class, of a conditional model.")]


def spaces(
    session: Session,
    model: Model = None,
    out: Out = None,
    quick: Quick = False,
    reader: Reader = None,
    judge: Judge = None,
    backbone: Backbone = None,
    samples: Samples = None,
    pairs: Pairs = None,
    faces: Faces = None,
    attributes: Attributes = None,
    text: Texts = None,
    text_model: TextModelName = TEXT_MODEL,
    change: Change = 1.0,
    truncation: Truncation = 1.0,
    label: Class = None,
    device: Device = "auto",
) -> None:
    """DCI, MIG, separability, PPL and path length of Z, W, W+ and S; edits in W, W+ and S at equal change.

    A killed run goes on where it was when the same command is given again.
    """
    from sg3cli.evaluation.spaces_picture import report_lines
    from sg3cli.evaluation.spaces_report import QUICK, SpacesReportConfig, spaces_report

    bundle, where = subject(session, model, device)
    named = tuple(part.strip() for part in attributes.split(",")) if attributes else ()
    values = asked(QUICK if quick else None, samples=samples, pairs=pairs, faces=faces, label=label)
    said = tuple(parse_text(each) for each in text or ())
    config = SpacesReportConfig(
        **values, attributes=named, texts=said, text_model=text_model, change=change, truncation=truncation
    )
    path = report_path(out, bundle, "spaces")
    figures = spaces_report(bundle, reader, judge, backbone, config, path, session.console, where)
    tell(session, "evaluate spaces", figures, report_lines(figures), path)


def parse_text(text: str) -> tuple[str, str]:
    """`age=an old face` -> the attribute and what is said of it. Raises `UsageError`."""
    name, _, said = (part.strip() for part in text.partition("="))
    if not name or not said:
        raise UsageError(f"cannot read the text {text!r}", "write it as --text 'age=an old face'")
    return name, said
