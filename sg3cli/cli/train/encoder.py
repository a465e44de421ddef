"""`sg3 train encoder`: a ReStyle encoder for any generator."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sg3cli.cli.flags import Session
from sg3cli.errors import UsageError
from sg3cli.training.config import TrainEncoderConfig

if TYPE_CHECKING:
    from sg3cli.nets.encoder import EncoderConfig
    from sg3cli.training.encoder.run import Base


DEFAULT = TrainEncoderConfig()
KINDS, LOSSES = ("psp", "e4e"), ("auto", "lpips", "lite0", "structural")

Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Aligned pictures: a folder, a zip, or a `synthface` data set.")
]
Gen = Annotated[
    str,
    typer.Option("--generator", metavar="NAME|FOLDER|FILE", help="Model, or a generator.safetensors; it is frozen."),
]
Work = Annotated[Path, typer.Option("--work", metavar="DIR", help="State, log and grids; the same command continues.")]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Model folder that the encoder is written into.")]
Kind = Annotated[str, typer.Option("--kind", metavar="|".join(KINDS), help="Heads and losses.")]
Preset = Annotated[
    str, typer.Option("--preset", metavar="official|small", help="IR-SE50 at 256 px, or one that a CPU can train.")
]
Size = Annotated[int | None, typer.Option("--size", metavar="PX", min=16, help="Size of the encoder's input.")]
Widths = Annotated[
    str | None, typer.Option("--widths", metavar="CxN,...", help="Its stages, channels x blocks: 32,64x2,128x2,192x2.")
]
Init = Annotated[
    str | None,
    typer.Option("--init", metavar="NAME|FOLDER|FILE", help="Go on from this model's encoder and its shape."),
]
Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        metavar="NET.pt",
        help="Face recognition network for the identity loss: TorchScript, [N,3,112,112] in [-1,1] to [N,K]. "
        "The file is a program and is run.",
    ),
]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Training steps; a longer run may continue a shorter one.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Pictures of a step, of all processes together.")]
Lr = Annotated[float, typer.Option("--lr", min=0, help="Learning rate.")]
Passes = Annotated[int, typer.Option("--passes", min=1, max=10, help="ReStyle steps of each picture.")]
L2 = Annotated[float, typer.Option("--l2", min=0, help="Weight of the pixel loss.")]
Perceptual = Annotated[float, typer.Option("--perceptual", min=0, help="Weight of the perceptual loss.")]
Loss = Annotated[str, typer.Option("--loss", metavar="|".join(LOSSES), help="Perceptual loss.")]
IdentityWeight = Annotated[float, typer.Option("--identity-weight", min=0, help="Weight of the identity loss.")]
WNorm = Annotated[float, typer.Option("--w-norm", min=0, help="Weight of the codes' distance from their mean.")]
Adversarial = Annotated[float, typer.Option("--adversarial", min=0, help="e4e: weight of the codes' discriminator.")]
Delta = Annotated[float, typer.Option("--delta", min=0, help="e4e: weight of the length of the codes' offsets.")]
StageStart = Annotated[
    int | None, typer.Option("--stage-start", min=0, help="e4e: step of the first offset [default: steps / 25].")
]
StageEvery = Annotated[
    int | None, typer.Option("--stage-every", min=1, help="e4e: steps from one offset to the next [steps / 250].")
]
Augment = Annotated[
    float, typer.Option("--augment", min=0, max=1, help="Share of pictures that are spoiled as footage is; 0: none.")
]
HeldOut = Annotated[int, typer.Option("--held-out", min=1, help="Pictures at the end of DATA to validate on.")]
Every = Annotated[int, typer.Option("--snapshot-every", min=1, help="Steps between validations, grids and states.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to compute.")
]


def encoder(
    session: Session,
    data: Data,
    generator: Gen,
    work: Work,
    out: Out,
    kind: Kind = DEFAULT.kind,
    preset: Preset = "official",
    size: Size = None,
    widths: Widths = None,
    init: Init = None,
    steps: Steps = DEFAULT.steps,
    batch: Batch = DEFAULT.batch,
    lr: Lr = DEFAULT.lr,
    passes: Passes = DEFAULT.passes,
    l2: L2 = DEFAULT.l2,
    perceptual: Perceptual = DEFAULT.perceptual,
    loss: Loss = DEFAULT.loss,
    identity: Identity = None,
    identity_weight: IdentityWeight = DEFAULT.identity,
    w_norm: WNorm = DEFAULT.w_norm,
    adversarial: Adversarial = DEFAULT.adversarial,
    delta: Delta = DEFAULT.delta,
    stage_start: StageStart = None,
    stage_every: StageEvery = None,
    augment: Augment = DEFAULT.augment,
    held_out: HeldOut = DEFAULT.held_out,
    snapshot_every: Every = DEFAULT.snapshot_every,
    seed: Seed = DEFAULT.seed,
    device: Device = "auto",
) -> None:
    """Train a ReStyle encoder (pSp or e4e) for a generator, on aligned pictures; torchrun shares it out."""
    _choose("--kind", kind, KINDS)
    _choose("--loss", loss, LOSSES)
    config = TrainEncoderConfig(
        kind=kind, steps=steps, batch=batch, lr=lr, passes=passes, l2=l2, perceptual=perceptual, loss=loss,
        identity=identity_weight, w_norm=w_norm, adversarial=adversarial, delta=delta, stage_start=stage_start,
        stage_every=stage_every, augment=augment, held_out=held_out, snapshot_every=snapshot_every, seed=seed,
    )  # fmt: skip
    train(session, data, generator, work, out, config, (preset, size, widths, init), identity, device)


def train(
    session: Session, data: Path, generator: str, work: Path, out: Path, config: TrainEncoderConfig,
    shape: tuple[str, int | None, str | None, str | None], identity: Path | None, device: str,
) -> None:  # fmt: skip
    """Open everything, train, publish. `shape`: preset, size, widths and where to start from."""
    from sg3cli.training.data.images import open_images
    from sg3cli.training.distributed import training_group
    from sg3cli.training.encoder import run as runs
    from sg3cli.training.encoder.trainer import image_size

    base = runs.open_generator(generator)
    runs.check_model(out, base)
    with training_group(device) as group:
        console = session.console
        console.quiet = console.quiet or not group.is_first
        begun = runs.start_encoder(shape[3], base, _architecture(base, config.kind, *shape[:3]), config.seed)
        config = replace(config, kind=begun.config.kind)
        images = open_images(data, image_size(base.G, begun.config), console.notice)
        losses = runs.choose_losses(config, min(base.G.img_resolution, 256), identity, console.notice)
        names = hashlib.sha256("\n".join(images.names).encode()).hexdigest()
        facts = {"pictures": len(images), "names": f"sha256:{names}"}
        run = runs.EncoderRun(base, begun, images, config, losses, group, work, facts, console.notice)
        for _ in console.progress(run.steps(), config.steps, "train encoder", run.trainer.now):
            pass
        best = run.publish(out)
        if group.is_first:
            console.notice(f"the best is that of step {best['step']}, PSNR {best['val_psnr']:.2f} dB after all passes")
            console.data(str(out))
            console.result("train encoder", model=str(out), validation=best, work=str(work))


def _architecture(base: Base, kind: str, preset: str, size: int | None, widths: str | None) -> EncoderConfig:
    from sg3cli.training.encoder import run as runs

    config = runs.preset(preset, base.G, kind)
    if widths is not None:
        config = runs.shaped(config, runs.parse_widths(widths))
    return config if size is None else replace(config, input_size=size)


def _choose(name: str, value: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}", f"choose {' or '.join(choices)}")
