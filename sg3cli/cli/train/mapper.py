"""`sg3 train mapper`: an edit in words whose step every code has of its own (StyleCLIP's latent mapper)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sg3cli.cli.directions import Device, check_place
from sg3cli.cli.flags import Session
from sg3cli.cli.setting_sources import model_name
from sg3cli.cli.text_edits import TEXT_MODEL, Pull, TextModelName, checked_reader
from sg3cli.cli.train.directions import Model
from sg3cli.cli.train.flow import image_files
from sg3cli.errors import InputError, UsageError
from sg3cli.training.config import TrainMapperConfig
from sg3cli.weights.bundle import Bundle, load_model

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sg3cli.latents.text_model import TextModel

DEFAULT = TrainMapperConfig()
LEVELS = DEFAULT.levels
ALL_LEVELS = ",".join(LEVELS)

Text = Annotated[str, typer.Option("--text", metavar="TEXT", help="What faces shall look like.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The .safetensors to write: --edit FILE=1.")]
Work = Annotated[
    Path | None,
    typer.Option("--work", metavar="DIR", help="State, log and sheet; the same command continues [OUT's stem.work]."),
]
GivenCodes = Annotated[
    Path | None,
    typer.Option(
        "--codes",
        metavar="NPY|FOLDER",
        help="Codes to draw, as a project's invert/ws.npy, or aligned faces [seeds, truncated].",
    ),
]
Levels = Annotated[
    str, typer.Option("--levels", metavar="LIST", help="Rows of a code that may move: coarse, medium, fine.")
]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Training steps; a longer run may continue a shorter one.")]
Minutes = Annotated[
    float | None, typer.Option("--minutes", min=0, help="Stop after so long; the same command goes on from there.")
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Codes of a step.")]
Lr = Annotated[float, typer.Option("--lr", min=0, help="Learning rate.")]
L2 = Annotated[float, typer.Option("--l2", min=0, help="Weight of the step's mean square; more: smaller edits.")]
Identity = Annotated[float, typer.Option("--identity", min=0, help="Weight of who it is; more: more alike.")]
Truncation = Annotated[float, typer.Option("--truncation", metavar="PSI", min=0, max=1, help="Of seeds' codes.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file of another run.", show_default=False)]


def mapper(
    session: Session,
    text: Text,
    out: Out,
    model: Model = None,
    codes: GivenCodes = None,
    text_model: TextModelName = TEXT_MODEL,
    levels: Levels = ALL_LEVELS,
    steps: Steps = DEFAULT.steps,
    minutes: Minutes = None,
    batch: Batch = DEFAULT.batch,
    lr: Lr = DEFAULT.lr,
    l2: L2 = DEFAULT.l2,
    identity: Identity = DEFAULT.identity,
    truncation: Truncation = DEFAULT.truncation,
    seed: Seed = DEFAULT.seed,
    work: Work = None,
    force: Force = False,
    pull: Pull = False,
    device: Device = "auto",
) -> None:
    """Train a latent mapper towards a text: a step in W+ for each code of its own (StyleCLIP)."""
    folder = work or out.with_name(f"{out.stem}.work")
    config = TrainMapperConfig(steps, batch, lr, l2, identity, parse_levels(levels), truncation, seed)
    check_out(out, folder, force)
    if codes is not None and not codes.exists():
        raise InputError(f"there is no {codes}", "--codes takes an .npy of codes, or a folder of aligned faces")
    faces = image_files([codes]) if codes is not None and codes.is_dir() else []
    bundle = load_model(model_name(model))
    from sg3cli.pipeline.device import choose_device
    from sg3cli.training.adaptation.run import SHEET, given_codes
    from sg3cli.training.adaptation.trainer import Codes
    from sg3cli.training.mapper.run import MapperRun
    from sg3cli.training.mapper.trainer import MapperTrainer

    where = choose_device(device, session.console)
    reader = checked_reader(session, bundle, text_model, text, where, pull)
    who, whose = likeness_of(session, bundle) if identity > 0 else (None, "none")
    G = bundle.generator().to(where)
    drawn = Codes(G, config, given_codes(bundle, codes, faces))
    trainer = MapperTrainer(G, drawn, reader.embed, aim_of(reader, text, where), who, config)
    facts: dict[str, Any] = {"text": text, "text_model": reader.name, "reader": whose}
    run = MapperRun(trainer, bundle, facts, folder, session.console)
    seconds = None if minutes is None else 60 * minutes
    for _ in session.console.progress(run.steps(seconds), steps, "train mapper", trainer.step):
        pass
    fits = run.publish(out, kept_by_text(reader, text))
    said = f"the similarity goes from {fits['before']:.3f} to {fits['after']:.3f}"
    session.console.notice(f"train mapper: {trainer.step} steps, {said}; see {folder / SHEET}; --edit {out}=1")
    session.console.data(str(out))
    session.console.result("train mapper", path=str(out), model=bundle.name, steps=trainer.step, **fits)


def parse_levels(text: str) -> tuple[str, ...]:
    """`coarse,medium` -> names. Raises `UsageError`."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in LEVELS]:
        raise UsageError(f"there is no level {unknown[0]!r}", f"--levels {ALL_LEVELS}, or some of them")
    return tuple(name for name in LEVELS if name in names)


def check_out(out: Path, work: Path, force: bool) -> None:
    """Raise for a place that cannot be written, and for a file that this run has not made."""
    if out.suffix != ".safetensors":
        raise UsageError(f"{out} is not the name of a mapper's file", "--out NAME.safetensors")
    if not out.parent.is_dir():
        raise InputError(f"cannot write {out}: there is no folder {out.parent}", "make the folder first")
    check_place(out, force or work.is_dir())


def likeness_of(session: Session, bundle: Bundle) -> tuple[Callable[[Tensor], Tensor] | None, str]:
    """(What tells people apart, who that is); says so where the model has nothing for it."""
    from sg3cli.evaluation.face_reading import open_reading

    reading = open_reading(bundle, session.console)
    if reading is None:
        session.console.notice(f"nothing tells faces of {bundle.name} apart: who it is is left out of the loss")
        return None, "none"
    network = reading.network
    return (lambda images: network(images.cpu())[1].to(images.device)), reading.name


def aim_of(reader: TextModel, text: str, device: torch.device) -> Tensor:
    """The text's row `[D]` of length 1, the mean over many sentences."""
    import torch
    import torch.nn.functional as F

    from sg3cli.latents.text_directions import templates

    rows = reader.texts([template.format(text) for template in templates()])
    return F.normalize(torch.from_numpy(rows).float().mean(0), dim=0).to(device)


def kept_by_text(reader: TextModel, text: str) -> frozenset[str]:
    """What the text says nothing of, as far as that is known."""
    from sg3cli.latents.embedded_text import EmbeddedModel
    from sg3cli.weights.kept import kept_by_labels

    return kept_by_labels(reader.check(text)) if isinstance(reader, EmbeddedModel) else frozenset()
