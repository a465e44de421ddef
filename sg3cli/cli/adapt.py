"""`sg3 adapt`: a model that draws as a text or a few pictures say (StyleGAN-NADA)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sg3cli.cli.flags import Session
from sg3cli.cli.setting_sources import model_name
from sg3cli.cli.text_edits import CLIP, Pull, checked_reader
from sg3cli.cli.train.flow import image_files
from sg3cli.cli.train.mapper import GivenCodes, Minutes, Seed, Truncation
from sg3cli.errors import InputError, UsageError
from sg3cli.settings import InvertConfig
from sg3cli.training.config import AdaptConfig
from sg3cli.weights.bundle import Bundle, load_model

if TYPE_CHECKING:
    import torch

    from sg3cli.nets.generator import Generator
    from sg3cli.training.adaptation.aims import Aim
    from sg3cli.training.adaptation.trainer import Codes

DEFAULT = AdaptConfig()
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME|FOLDER", help=f"The model to adapt [default: {InvertConfig.model}]."),
]
Source = Annotated[str, typer.Option("--from", metavar="TEXT", help="What the model draws now.")]
Target = Annotated[str | None, typer.Option("--to", metavar="TEXT", help="What it shall draw: 'a pencil sketch'.")]
ToPictures = Annotated[
    list[Path] | None,
    typer.Option("--to-pictures", metavar="FOLDER|FILE", help="Aligned faces of the look that is wanted; repeatable."),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The new model; its name is the folder's.")]
Work = Annotated[
    Path | None,
    typer.Option("--work", metavar="DIR", help="State, log and sheet; the same command continues [OUT.work]."),
]
TextModel = Annotated[
    str | None,
    typer.Option(
        "--text-model",
        metavar="NAME",
        help=f"Model that reads texts and pictures; embedded: the model's own, which knows faces; by default of texts "
        f"{CLIP}, of pictures the backbone.",
    ),
]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Training steps; a longer run may continue a shorter one.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Drawings of a step.")]
Lr = Annotated[float, typer.Option("--lr", min=0, help="Learning rate; 0.002 for the official generators.")]
Keep = Annotated[float, typer.Option("--keep", min=0, help="Pull to the parent's light and dark; 0.1 to 3.")]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to compute.")
]


def adapt(
    session: Session,
    out: Out,
    to: Target = None,
    source: Source = "photo",
    to_pictures: ToPictures = None,
    model: Model = None,
    codes: GivenCodes = None,
    text_model: TextModel = None,
    steps: Steps = DEFAULT.steps,
    minutes: Minutes = None,
    batch: Batch = DEFAULT.batch,
    lr: Lr = DEFAULT.lr,
    keep: Keep = DEFAULT.keep,
    truncation: Truncation = DEFAULT.truncation,
    seed: Seed = DEFAULT.seed,
    work: Work = None,
    pull: Pull = False,
    device: Device = "auto",
) -> None:
    """Adapt a model to a text or to a few pictures; it keeps its encoder and directions (StyleGAN-NADA)."""
    if (to is None) == (not to_pictures):
        raise UsageError("give either --to TEXT or --to-pictures FOLDER", "sg3 adapt --help")
    files = image_files(to_pictures or []) if to_pictures else []
    faces = image_files([codes]) if codes is not None and codes.is_dir() else []
    if codes is not None and not codes.exists():
        raise InputError(f"there is no {codes}", "--codes takes an .npy of codes, or a folder of aligned faces")
    bundle = load_model(model_name(model))
    from sg3cli.pipeline.device import choose_device
    from sg3cli.training.adaptation import run as runs
    from sg3cli.training.adaptation import trainer
    from sg3cli.training.adaptation.bundle import check_place

    check_place(bundle, out)
    where = choose_device(device, session.console)
    config = AdaptConfig(steps, batch, lr, keep, truncation, seed)
    G = bundle.generator().to(where)
    drawn = trainer.Codes(G, config, runs.given_codes(bundle, codes, faces))
    aim = aim_of(session, bundle, (source, to), files, (G, drawn), text_model, pull, where)
    adapter = trainer.Adapter(G, aim, drawn, config)
    run = runs.AdaptRun(adapter, bundle, work or out.with_name(f"{out.name}.work"), session.console)
    seconds = None if minutes is None else 60 * minutes
    for _ in session.console.progress(run.steps(seconds), steps, "adapt", run.adapter.step):
        pass
    last = run.publish(out, files)
    sheet = run.folder.work / runs.SHEET
    said = ", ".join(f"{name} {value:.2f}" for name, value in last.items() if name in ("cosine", "reached"))
    session.console.notice(f"adapt: {run.adapter.step} steps, {said}; before and after are in {sheet}")
    session.console.data(str(out))
    session.console.result("adapt", model=str(out), parent=bundle.name, sheet=str(sheet), last=last)


def aim_of(
    session: Session, bundle: Bundle, texts: tuple[str, str | None], files: list[Path],
    drawn: tuple[Generator, Codes], text_model: str | None, pull: bool, device: torch.device,
) -> Aim:  # fmt: skip
    """Where it goes; raises for a text model or backbone that is not here."""
    from sg3cli.latents.text_models import load_text_model
    from sg3cli.training.adaptation import aims
    from sg3cli.training.adaptation.run import own_drawings

    source, target = texts
    if target is not None:
        name = text_model or CLIP  # a model's own knows faces, not looks: it has to be asked for
        reader = checked_reader(session, bundle, name, target, device, pull)
        if unknown := reader.unknown(source):
            session.console.notice(f"{reader.name} does not know: {', '.join(unknown)}; say what faces are now: --from")
        return aims.towards_text(reader, source, target, device)
    if text_model is not None:
        reader = load_text_model(text_model, device, pull, bundle)
        return aims.towards_pictures(reader.embed, reader.name, files, own_drawings(*drawn))
    return aims.towards_pictures(aims.backbone(device, pull), "lite0", files, own_drawings(*drawn))
