"""`sg3 train text`: what `--text "an old man with glasses"` needs, offline, for any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sg3cli.cli.flags import Session
from sg3cli.cli.setting_sources import model_name
from sg3cli.cli.train.directions import Model
from sg3cli.errors import InputError
from sg3cli.weights.bundle import TEXT, load_model

Labels = Annotated[
    list[Path],
    typer.Argument(
        metavar="LABELS...",
        help="CSV with a column `file` (an aligned picture) and columns of labels: age in years, male, smile, "
        "glasses, beard from 0 to 1, ...; or a set in the format of `sg3 train bundle`.",
    ),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help=f"Where it goes [the model's own {TEXT}].")]
Pictures = Annotated[int, typer.Option("--pictures", metavar="N", min=1, help="At most so many of each set.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Steps of the fit.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the choice, the captions and the fit.")]
Pull = Annotated[
    bool, typer.Option("--pull", envvar="SG3_PULL", help="Download a missing backbone.", show_default=False)
]


def text(
    session: Session,
    labels: Labels,
    model: Model = None,
    out: Out = None,
    pictures: Pictures = 6000,
    steps: Steps = 1600,
    seed: Seed = 0,
    pull: Pull = False,
) -> None:
    """Train a small text model of faces on captions made from labels, then look at what each style does in its eyes."""
    import torch

    from sg3cli.latents.embedded_text import EmbeddedModel
    from sg3cli.pipeline.text_edits import ensure_moves
    from sg3cli.training.text.fit import FitConfig
    from sg3cli.training.text.run import TextRunConfig, open_sources, train_text
    from sg3cli.weights.encoder_backbone import load_backbone

    bundle = load_model(model_name(model))
    path = out or bundle.companion(TEXT)
    if out is not None and not path.parent.is_dir():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}", "make the folder first")
    path.parent.mkdir(parents=True, exist_ok=True)
    config = TextRunConfig(pictures, FitConfig(steps=steps, seed=seed))
    sources = open_sources(labels, config)
    backbone = load_backbone(bundle, pull)
    made = train_text(bundle, path, sources, backbone, config, session.console)
    if out is None:
        cpu = torch.device("cpu")
        ensure_moves(bundle, EmbeddedModel(made, backbone, cpu), session.console, cpu)
    session.console.data(str(path))
    session.console.result("train text", path=str(path), model=bundle.name, labels=list(made.config.about))
