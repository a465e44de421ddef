"""`sg3 directions precompute-clip|text`: directions from what a text says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sg3cli.cli.directions import Device, Force, Model, Name, Out, app, written
from sg3cli.cli.flags import Session, command
from sg3cli.cli.setting_sources import model_name
from sg3cli.latents.edits import Edit, make_edit
from sg3cli.weights.bundle import load_model

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

TEXT_MODEL = "clip:ViT-B-32"

Texts = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="TEXT", help="An edit in words, 'a smiling old man' (StyleCLIP); repeatable."),
]
Alpha = Annotated[str, typer.Option("--alpha", metavar="S", help="Strength of the --text edits, keyframes too.")]
TextModelName = Annotated[
    str, typer.Option("--text-model", metavar="NAME", help="Model that reads texts and pictures: clip:ViT-B-32.")
]
Beta = Annotated[float, typer.Option("--beta", min=0.0, max=1.0, help="Least agreement of a style that moves.")]
Neutral = Annotated[str, typer.Option("--neutral", metavar="TEXT", help="What the text is compared with.")]
Pull = Annotated[
    bool,
    typer.Option("--pull", envvar="SG3_PULL", help="Download a missing text model.", show_default=False),
]


@command(app, name="precompute-clip", example="sg3 directions precompute-clip --samples 50")
def precompute_clip(
    session: Session,
    model: Model = None,
    text_model: TextModelName = TEXT_MODEL,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Faces that each style is moved on.")] = 100,
    step: Annotated[float, typer.Option("--step", min=0.1, help="Deviations that it is moved to each side.")] = 5.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures drawn at once.")] = 16,
    pull: Pull = False,
    device: Device = "auto",
) -> None:
    """Find out what each style of a model does in a text model's eyes, once; a killed run goes on where it was."""
    from sg3cli.latents.text_model import load_text_model
    from sg3cli.pipeline.device import choose_device
    from sg3cli.pipeline.text_edits import EffectsConfig, precompute

    bundle, where = load_model(model_name(model)), choose_device(device, session.console)
    reader = load_text_model(text_model, where, pull)
    path, made = precompute(bundle, reader, EffectsConfig(samples, step, batch), session.console, where)
    session.console.notice(f"{path.name}: {'computed' if made else 'up to date, nothing was computed'}")
    session.console.data(str(path))
    session.console.result("directions precompute-clip", path=str(path), model=bundle.name, computed=made)


@command(app, example='sg3 directions text "a smiling old man" --name old-smile')
def text(
    session: Session,
    said: Annotated[str, typer.Argument(metavar="TEXT", help="What the face shall look like.")],
    name: Name = None,
    neutral: Neutral = "a face",
    beta: Beta = 0.13,
    model: Model = None,
    text_model: TextModelName = TEXT_MODEL,
    out: Out = None,
    force: Force = False,
    pull: Pull = False,
    device: Device = "auto",
) -> None:
    """A direction of S from a text (StyleCLIP); its strength is alpha: 1.5 to 4 are good values."""
    from sg3cli.latents.text_model import load_text_model
    from sg3cli.pipeline.device import choose_device
    from sg3cli.pipeline.text_edits import file_name, make_text_direction

    bundle = load_model(model_name(model))
    reader = load_text_model(text_model, choose_device(device, session.console), pull)
    if unknown := reader.unknown(said):
        session.console.notice(f"{text_model} does not know: {', '.join(unknown)}; expect little of them")
    direction = make_text_direction(bundle, reader, said, name or file_name(said), neutral, beta)
    session.console.notice(str(direction.meta["made"]))
    written(session, "text", direction, out, force)


def edits_of_texts(
    session: Session, job: Job, texts: Sequence[str], alpha: str, neutral: str, beta: float, text_model: str
) -> list[Edit]:
    """An edit for each text, whose direction is kept in the project."""
    from sg3cli.latents.text_model import load_text_model
    from sg3cli.pipeline.device import choose_device
    from sg3cli.pipeline.text_edits import text_edit

    reader = load_text_model(text_model, choose_device(session.device, session.console), session.pull)
    edits = []
    for said in texts:
        if unknown := reader.unknown(said):
            session.console.notice(f"{text_model} does not know: {', '.join(unknown)}; expect little of them")
        path = text_edit(job.project.path, job.bundle(), reader, said, neutral, beta)
        edits.append(make_edit(str(path.resolve()), alpha))
    return edits
