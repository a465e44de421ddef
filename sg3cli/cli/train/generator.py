"""`sg3 train generator`: a StyleGAN3 from pictures, from nothing or from another generator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sg3cli.cli.flags import Session
from sg3cli.errors import UsageError

if TYPE_CHECKING:
    from sg3cli.training.generator.run import Log


Data = Annotated[Path, typer.Argument(metavar="DATA", help="A folder of pictures, a zip, or a synthface data set.")]
Work = Annotated[Path, typer.Option("--work", metavar="DIR", help="State, log, grids; the same command continues.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The model folder to write at the end.")]
Kind = Annotated[str | None, typer.Option("--config", metavar="t|r", help="Configuration of the paper [default: r].")]
Resolution = Annotated[int | None, typer.Option("--resolution", metavar="PX", help="Reduce larger pictures to this.")]
Base = Annotated[int | None, typer.Option("--channel-base", metavar="N", help="Widths: fewer make a small network.")]
Most = Annotated[int | None, typer.Option("--channel-max", metavar="N", help="Most channels of a layer.")]
Layers = Annotated[int | None, typer.Option("--layers", metavar="N", min=3, help="Layers [default: 14].")]
Resume = Annotated[
    Path | None, typer.Option("--resume", metavar="MODEL", help="Start at this model folder or generator (transfer).")
]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Steps in all; more may be asked for later.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Pictures a step, over all processes.")]
Gamma = Annotated[float | None, typer.Option("--gamma", min=0, help="R1 weight [default: 0.0002 R^2 / batch].")]
RateG = Annotated[float, typer.Option("--lr-generator", min=0, help="Learning rate of the generator.")]
RateD = Annotated[float, typer.Option("--lr-discriminator", min=0, help="Learning rate of the discriminator.")]
Augment = Annotated[str, typer.Option("--augment", metavar="ada|none|P", help="Adaptive, none, or a fixed strength.")]
Target = Annotated[float, typer.Option("--augment-target", help="Share of certainty that ADA holds.")]
Blur = Annotated[
    float | None, typer.Option("--blur", min=0, help="Early blur in pixels [default: R 10, less below 256 px; T 0].")
]
Mirror = Annotated[bool, typer.Option("--mirror/--no-mirror", help="Pictures may be mirrored.")]
Precision = Annotated[str, typer.Option("--precision", metavar="fp32|bf16", help="Convolutions' precision.")]
Every = Annotated[int, typer.Option("--every", min=1, help="Steps between snapshots (state, grid, score).")]
Score = Annotated[int, typer.Option("--score", min=0, help="Pictures for the Frechet score of a snapshot; 0: none.")]
Seed = Annotated[int, typer.Option("--seed", help="Of everything random.")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to train.")]


def generator(
    session: Session,
    data: Data,
    work: Work,
    out: Out,
    config: Kind = None,
    resolution: Resolution = None,
    channel_base: Base = None,
    channel_max: Most = None,
    layers: Layers = None,
    resume: Resume = None,
    steps: Steps = 100_000,
    batch: Batch = 32,
    gamma: Gamma = None,
    lr_generator: RateG = 2.5e-3,
    lr_discriminator: RateD = 2e-3,
    augment: Augment = "ada",
    augment_target: Target = 0.6,
    blur: Blur = None,
    mirror: Mirror = True,
    precision: Precision = "fp32",
    every: Every = 1000,
    score: Score = 0,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """A generator of your own pictures; start it with `torchrun --nproc-per-node N -m sg3cli` to use N GPUs."""
    from sg3cli.training.distributed import training_group
    from sg3cli.training.generator.run import GanJob, architecture, train_generator
    from sg3cli.training.generator.trainer import AdversarialConfig

    mode, p = parse_augment(augment)
    if precision not in ("fp32", "bf16"):
        raise UsageError(f"there is no precision {precision!r}", "--precision fp32 or bf16")
    settings = AdversarialConfig(
        steps=steps, batch=batch, gamma=gamma, lr_generator=lr_generator, lr_discriminator=lr_discriminator,
        augment=mode, augment_p=p, augment_target=augment_target, blur=blur, mirror=mirror,
        precision=precision, seed=seed,
    )  # fmt: skip
    shape = None
    if any(value is not None for value in (config, channel_base, channel_max, layers)):
        if resolution is None:
            raise UsageError("an architecture needs --resolution", "or leave --config and the widths away")
        shape = architecture(config or "r", resolution, channel_base, channel_max, layers)

    def progress(logs: Iterator[Log], steps: int, done: int) -> Iterator[Log]:
        return session.console.progress(logs, steps, "train generator", start=done)

    with training_group(device) as group:
        job = GanJob(data, work, out, settings, shape, resolution, resume, every, score)
        result = train_generator(job, group, session.console.notice, progress)
        if group.is_first:
            session.console.data(str(out))
            session.console.result("train generator", **result)


def parse_augment(text: str) -> tuple[str, float]:
    """`ada`, `none` or a probability -> (mode, p)."""
    if text in ("ada", "none"):
        return text, 0.0
    try:
        p = float(text)
    except ValueError:
        p = -1.0
    if not 0 <= p <= 1:
        raise UsageError(f"--augment {text!r} is neither ada, none nor a probability", "e.g. --augment 0.3")
    return "fixed", p
