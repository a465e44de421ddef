"""`sg3 directions precompute-clip|text`: directions from what a text says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from sg3cli.cli.directions import Device, Force, Model, Name, Out, app, written
from sg3cli.cli.flags import Session, command
from sg3cli.cli.setting_sources import model_name
from sg3cli.errors import UsageError
from sg3cli.latents.edits import Edit, make_edit
from sg3cli.weights.bundle import Bundle, load_model

if TYPE_CHECKING:
    import torch

    from sg3cli.latents.text_model import TextModel
    from sg3cli.pipeline import Job

ALPHA = "2"

TEXT_MODEL = "auto"
CLIP = "clip:ViT-B-32"

Texts = Annotated[
    list[str] | None,
    typer.Option("--text", metavar="TEXT", help="An edit in words, 'an old man with glasses, smiling'; repeatable."),
]
Alpha = Annotated[
    str | None, typer.Option("--alpha", metavar="S", help="Strength of the --text edits, keyframes too [default: 2].")
]
TextModelName = Annotated[
    str,
    typer.Option(
        "--text-model",
        metavar="NAME",
        help="What reads texts and pictures: embedded (the model's own), clip:ViT-B-32; auto: the first there is.",
    ),
]
Beta = Annotated[
    float | None,
    typer.Option(
        "--beta",
        min=0.0,
        max=1.0,
        help="Move the styles that agree with the text at least so well (StyleCLIP) [default: 0.13 with CLIP; the "
        "embedded model composes the edit of what the model can do].",
    ),
]
TargetChange = Annotated[
    float | None,
    typer.Option(
        "--target-change",
        metavar="SHARE",
        help="Instead of --alpha: as strong as makes the drawn faces fit the text better by this share, say 0.2.",
    ),
]
Neutral = Annotated[str, typer.Option("--neutral", metavar="TEXT", help="What the text is compared with.")]
Pull = Annotated[
    bool,
    typer.Option("--pull", envvar="SG3_PULL", help="Download a missing text model.", show_default=False),
]


@command(app, name="precompute-clip", example="sg3 directions precompute-clip --samples 50")
def precompute_clip(
    session: Session,
    model: Model = None,
    text_model: TextModelName = CLIP,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Faces that each style is moved on.")] = 100,
    step: Annotated[float, typer.Option("--step", min=0.1, help="Deviations that it is moved to each side.")] = 5.0,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures drawn at once.")] = 16,
    pull: Pull = False,
    device: Device = "auto",
) -> None:
    """Find out what each style of a model does in a text model's eyes, once; a killed run goes on where it was."""
    from sg3cli.latents.text_models import load_text_model
    from sg3cli.pipeline.device import choose_device
    from sg3cli.pipeline.text_edits import EffectsConfig, precompute

    bundle, where = load_model(model_name(model)), choose_device(device, session.console)
    reader = load_text_model(text_model, where, pull, bundle)
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
    beta: Beta = None,
    model: Model = None,
    text_model: TextModelName = TEXT_MODEL,
    out: Out = None,
    force: Force = False,
    pull: Pull = False,
    device: Device = "auto",
) -> None:
    """A direction of S from a text (StyleCLIP); its strength is alpha: 1.5 to 4 are good values."""
    from sg3cli.pipeline.device import choose_device
    from sg3cli.pipeline.text_edits import file_name, make_text_direction

    bundle, where = load_model(model_name(model)), choose_device(device, session.console)
    reader = opened_reader(session, bundle, text_model, said, where, pull)
    direction = make_text_direction(bundle, reader, said, name or file_name(said), neutral, beta)
    session.console.notice(str(direction.meta["made"]))
    written(session, "text", direction, out, force)


def opened_reader(
    session: Session, bundle: Bundle, name: str, said: str, device: torch.device, pull: bool
) -> TextModel:
    """The text model, its table of styles made if need be; says which words of the text it does not know."""
    from sg3cli.latents.embedded_text import EmbeddedModel
    from sg3cli.pipeline.text_edits import ensure_moves

    reader = checked_reader(session, bundle, name, said, device, pull)
    if isinstance(reader, EmbeddedModel):
        ensure_moves(bundle, reader, session.console, device)
    return reader


def checked_reader(
    session: Session, bundle: Bundle, name: str, said: str, device: torch.device, pull: bool
) -> TextModel:
    """The text model; says which words of the text it does not know, and raises where it knows nothing of it."""
    from sg3cli.latents.embedded_text import EmbeddedModel
    from sg3cli.latents.text_models import load_text_model

    reader = load_text_model(name, device, pull, bundle)
    if isinstance(reader, EmbeddedModel):
        reader.check(said)
        if unclear := reader.unclear(said):
            session.console.notice(f"{reader.name} is not sure which way {', '.join(unclear)} goes in {said!r}")
    if unknown := reader.unknown(said):
        session.console.notice(f"{reader.name} does not know: {', '.join(unknown)}; expect little of them")
    return reader


@dataclass(frozen=True)
class AskedTexts:
    """The text edits of a command line, before a model has read them."""

    texts: Sequence[str] | None
    alpha: str | None
    target_change: float | None
    neutral: str
    beta: float | None
    text_model: str

    def __post_init__(self) -> None:
        """Raises `UsageError` for what contradicts itself."""
        if self.alpha is not None and self.target_change is not None:
            raise UsageError("--alpha and --target-change both say how strong", "give one of them")
        if not self.texts and (self.alpha is not None or self.target_change is not None):
            which = "--alpha" if self.alpha is not None else "--target-change"
            raise UsageError(f"{which} is the strength of a --text, and there is none", "--text 'a smiling old man'")

    def edits(self, session: Session, job: Job) -> list[Edit]:
        """An edit for each text, whose direction is kept in the project; without a text nothing is loaded."""
        if not self.texts:
            return []
        from sg3cli.pipeline.device import choose_device
        from sg3cli.pipeline.text_edits import alpha_for, text_edit

        edits, bundle = [], job.bundle()
        where = choose_device(session.device, session.console)
        for said in self.texts:
            reader = opened_reader(session, bundle, self.text_model, said, where, session.pull)
            path = str(text_edit(job.project.path, bundle, reader, said, self.neutral, self.beta).resolve())
            strength = self.alpha or ALPHA
            if self.target_change is not None:
                found = alpha_for(job, reader, said, path, self.target_change)
                strength = f"{found.alpha:g}"
                fit = f"the fit goes from {found.before:.3f} to {found.after:.3f}"
                session.console.notice(f"edit: alpha {strength} for {said!r}: {fit}")
            edits.append(make_edit(path, strength))
        return edits

    def placeholders(self) -> list[Edit]:
        """Edits of the same names, for what an output is called."""
        from sg3cli.pipeline.text_edits import file_name

        return [make_edit(file_name(said), self.alpha or ALPHA) for said in self.texts or ()]
