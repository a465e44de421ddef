"""`sg3 train ...`: make a model bundle from labelled renders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sg3cli.cli.flags import Session

Data = Annotated[Path, typer.Argument(metavar="DATA", help="A training set: images.bin, index.npy, labels.npz.")]
Work = Annotated[Path, typer.Option("--work", metavar="DIR", help="Where states are kept; the same run continues.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The bundle to write; its name is the model's.")]
Steps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Steps of generator and encoder [1600, or 1300 with --resume].")
]
Resume = Annotated[
    str | None,
    typer.Option("--resume", metavar="NAME|FOLDER", help="Go on from this model, with gentler rates."),
]
AttributeNetSteps = Annotated[int, typer.Option("--probe-steps", help="Steps of each attribute net.")]
CoarseSteps = Annotated[int, typer.Option("--coarse-steps", help="Steps of the coarse init.")]


def bundle(
    session: Session,
    data: Data,
    work: Work,
    out: Out,
    steps: Steps = None,
    resume: Resume = None,
    attribute_net_steps: AttributeNetSteps = 1600,
    coarse_steps: CoarseSteps = 450,
) -> None:
    """Generator, encoder, mapping and directions; `people-128` was made of the same parts."""
    from sg3cli.training.people128.bundle import calibrated, score, write_bundle
    from sg3cli.training.people128.label_directions import SPECS
    from sg3cli.training.people128.recipe import FINE, Recipe, RecipeRun

    recipe = Recipe(attribute_net_steps, coarse_steps, resume=resume)
    begun = recipe.autoencoder if resume is None else FINE
    recipe = replace(recipe, autoencoder=begun if steps is None else replace(begun, steps=steps))
    run = RecipeRun(data, work, recipe, session.console.notice)
    net = run.autoencoder()
    named = [n for n, spec in SPECS.items() if {spec.label, *spec.along} <= set(run.conditions.names)]
    if unknown := [n for n in SPECS if n not in named]:
        session.console.notice(f"the data has no labels for {', '.join(unknown)}")
    vectors, factors = calibrated(net, run.attribute_net(), run.train, run.conditions, named)
    if unresponsive := [n for n in named if n not in vectors]:
        session.console.notice(f"the model does not answer to {', '.join(unresponsive)}: left out")
    scores = score(net, run.scoring_net(), run.test, vectors)
    record = run.record() | {"scores": scores}
    write_bundle(out, net, run.train, run.train_conditions, run.scoring_net(), record, vectors, factors)
    session.console.data(str(out))
    session.console.result("train bundle", bundle=str(out), scores=scores)
