"""`sg3 train generator` on one page: images, trainer, run folder, grids and score on the way, model at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from sg3cli import __version__
from sg3cli.drawing.images import grid, write_png
from sg3cli.errors import ModelError, UsageError
from sg3cli.files import atomic_path, write_json
from sg3cli.levels import tensor_to_uint8
from sg3cli.metrics.frechet import FaceFeatures, frechet_distance
from sg3cli.nets.checkpoint import load_generator_file, save_generator
from sg3cli.nets.discriminator import DiscriminatorConfig
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.training.data.images import Images, open_images
from sg3cli.training.distributed import Group
from sg3cli.training.generator.trainer import AdversarialConfig, AdversarialTrainer
from sg3cli.training.run_folder import RunFolder

GRID = 8  # images across
BLUR = 10.0  # pixels at 256 and more (arXiv 2106.12423, appendix F.2); in proportion below, or nothing would be left
DISCRIMINATOR = "discriminator.safetensors"
Log = dict[str, float]
Progress = Callable[[Iterator[Log], int, int], Iterator[Log]]  # (logs, steps in all, steps done)


@dataclass(frozen=True)
class GanJob:
    """What the command was asked for. `every`: steps between two snapshots (state, grid, score)."""

    data: Path
    work: Path
    out: Path
    config: AdversarialConfig
    generator: GeneratorConfig | None  # None: that of `resume`
    resolution: int | None = None
    resume: Path | None = None  # a model folder, or a generator's .safetensors
    every: int = 1000
    score: int = 0  # images of each kind for the Frechet distance; 0: none

    def training(self, generator: GeneratorConfig) -> AdversarialConfig:
        """The trainer's settings, the early blur filled in: configuration R needs it, and only from nothing."""
        if self.config.blur is not None:
            return self.config
        from_nothing = self.resume is None and generator.conv_kernel == 1
        return replace(self.config, blur=BLUR * min(1.0, generator.img_resolution / 256) if from_nothing else 0.0)


def architecture(
    kind: str, resolution: int, channel_base: int | None, channel_max: int | None, layers: int | None
) -> GeneratorConfig:
    """Configuration T or R of the paper, with other widths and depth where they are given."""
    make = {"t": GeneratorConfig.stylegan3_t, "r": GeneratorConfig.stylegan3_r}
    if kind not in make:
        raise UsageError(f"there is no configuration {kind!r}", "--config t or r")
    changes = {"channel_base": channel_base, "channel_max": channel_max, "num_layers": layers}
    given = {name: value for name, value in changes.items() if value is not None}
    if channel_max is not None:
        given |= {"z_dim": min(512, channel_max), "w_dim": min(512, channel_max)}
    return GeneratorConfig.from_dict(make[kind](resolution).to_dict() | given)


def train_generator(job: GanJob, group: Group, say: Callable[[str], None], progress: Progress) -> dict[str, Any]:
    """Train or go on; returns what `--json` prints. Raises InputError for data that cannot be trained on."""
    say = say if group.is_first else _silent
    start = resumed_generator(job.resume) if job.resume else None
    resolution = job.resolution or (start.img_resolution if start else None)
    images = open_images(job.data, resolution, say)
    config = job.generator or (start.config if start else architecture("r", images.resolution, None, None, None))
    _check_sizes(config, images)
    widths = DiscriminatorConfig(
        img_resolution=config.img_resolution,
        channel_base=min(config.channel_base, 32768 if config.img_resolution > 256 else 16384),
        channel_max=min(config.channel_max, 512),
    )
    trainer = AdversarialTrainer(images, config, widths, job.training(config), group)
    folder = RunFolder(job.work, _settings(job, config, images), lasting=("steps", "every", "score"))
    if (state := folder.load(group.device)) is not None:
        trainer.restore(state)
        say(f"continued at step {trainer.now}")
    elif start is not None and job.resume is not None:
        transfer(trainer, start, job.resume)
    if group.is_first:
        folder.write_settings()
        folder.drop_after(trainer.now)
    _loop(job, trainer, folder, images, progress)
    if group.is_first:
        write_model(job.out, trainer, job, len(images))
    return {
        "model": str(job.out), "steps": trainer.now, "pictures": len(images),
        "dropped": [d._asdict() for d in images.dropped], "log": str(job.work / "log.csv"),
    }  # fmt: skip


def _loop(job: GanJob, trainer: AdversarialTrainer, folder: RunFolder, images: Images, progress: Progress) -> None:
    """All steps that are left; a snapshot every so often and at the end."""
    group, score = trainer.group, _Score(job.score, images, trainer)
    steps = _averaged(trainer, trainer.run(), max(1, min(50, job.every)))
    if group.is_first:
        steps = progress(steps, trainer.config.steps, trainer.now)
    if trainer.now == 0 and group.is_first:
        write_grid(job.work / "grids", trainer)
    for log in steps:
        due = trainer.now % job.every == 0 or trainer.now == trainer.config.steps
        if not group.is_first:
            continue
        if due:
            log |= score.log()
            write_grid(job.work / "grids", trainer)
        if log:
            folder.log(trainer.now, log)
        if due:
            folder.save(trainer.state())
    group.wait()


def _averaged(trainer: AdversarialTrainer, logs: Iterator[dict[str, float]], every: int) -> Iterator[dict[str, float]]:
    """One item per step; every so many hold the means since the last, with images per second, the others nothing."""
    logged: dict[str, list[float]] = {}
    began = time.monotonic()
    for log in logs:
        for name, value in log.items():
            logged.setdefault(name, []).append(value)
        if trainer.now % every and trainer.now != trainer.config.steps:
            yield {}
            continue
        steps = len(logged["loss_G"])
        means = {name: float(np.mean(values)) for name, values in logged.items()}
        seconds, logged = time.monotonic() - began, {}
        yield means | {"img_per_s": steps * trainer.config.batch / max(seconds, 1e-9)}
        began = time.monotonic()


class _Score:
    """The Frechet distance of `count` drawn images from `count` real ones."""

    def __init__(self, count: int, images: Images, trainer: AdversarialTrainer) -> None:
        self.count, self.trainer = min(count, len(images)) if count else 0, trainer
        if self.count and trainer.group.is_first:
            self.features = FaceFeatures(trainer.group.device)
            rows = np.linspace(0, len(images) - 1, self.count).round().astype(int)
            self.real = self.features(images.batch(part) for part in np.array_split(rows, -(-self.count // 32)))

    def log(self) -> dict[str, float]:
        if not self.count:
            return {}
        z = fixed_noise(self.count, self.trainer.G.config.z_dim, seed=1)
        drawn = self.features(self.trainer.draw(part) for part in z.split(32))
        return {"frechet": frechet_distance(self.real, drawn)}


def fixed_noise(count: int, z_dim: int, seed: int) -> torch.Tensor:
    """z [N,z_dim], the same at every snapshot."""
    return torch.randn(count, z_dim, generator=torch.Generator().manual_seed(seed))


def write_grid(folder: Path, trainer: AdversarialTrainer) -> None:
    """`FOLDER/STEP.png`: what the averaged generator draws of the same noise each time."""
    drawn = trainer.draw(fixed_noise(GRID * GRID // 2, trainer.G.config.z_dim, seed=0))
    tiles = tensor_to_uint8(drawn).permute(0, 2, 3, 1).numpy()
    write_png(folder / f"{trainer.now:06d}.png", grid(tiles, len(tiles), GRID, drawn.shape[-1]))


def resumed_generator(path: Path) -> Generator:
    """The generator of a model folder, or of a file of one."""
    from sg3cli.weights.bundle import load_model

    return load_generator_file(path)[0] if path.is_file() else load_model(path).generator()


def transfer(trainer: AdversarialTrainer, start: Generator, path: Path) -> None:
    """Begin at another generator's weights, with its discriminator where the folder has one that fits."""
    from safetensors.torch import load_file

    try:
        for net in (trainer.G, trainer.ema):
            net.load_state_dict(start.state_dict())
    except RuntimeError as error:
        raise ModelError(f"{path} is of another architecture", "leave --config and the widths away") from error
    discriminator = path / DISCRIMINATOR if path.is_dir() else path.with_name(DISCRIMINATOR)
    if discriminator.is_file():
        state = load_file(str(discriminator))
        if {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in trainer.D.state_dict().items()}:
            trainer.D.load_state_dict(state)
    trainer.begin()


def write_model(folder: Path, trainer: AdversarialTrainer, job: GanJob, count: int) -> None:
    """A model folder for `sg3 generate --model`; the discriminator lies beside it, for those who go on from here."""
    folder.mkdir(parents=True, exist_ok=True)
    save_generator(folder / "generator.safetensors", trainer.ema, {"name": folder.name})
    with atomic_path(folder / DISCRIMINATOR) as temporary:
        save_file({k: v.contiguous() for k, v in trainer.D.state_dict().items()}, temporary)
    description = {
        "schema": 1, "name": folder.name, "resolution": trainer.G.img_resolution,
        "licence": "that of the pictures and of the person who trained it", "source": "sg3 train generator",
        "tool": __version__,
        "training": {"steps": trainer.now, "pictures": count, "settings": json.loads(json.dumps(asdict(job.config)))},
    }  # fmt: skip
    write_json(folder / "model.json", description)


def _check_sizes(config: GeneratorConfig, images: Images) -> None:
    if config.img_resolution != images.resolution:
        size = f"{images.resolution} px, the generator {config.img_resolution} px"
        raise UsageError(f"the pictures have {size}", f"--resolution {config.img_resolution} reduces larger ones")
    if images.resolution < 8 or images.resolution & (images.resolution - 1):
        raise UsageError(f"{images.resolution} px is no power of two", "--resolution reduces pictures to one")


def _settings(job: GanJob, config: GeneratorConfig, images: Images) -> dict[str, Any]:
    data = {"data": str(job.data.absolute()), "pictures": len(images), "resume": str(job.resume or "")}
    return data | asdict(job.training(config)) | {"generator": config.to_dict(), "every": job.every, "score": job.score}


def _silent(message: str) -> None:
    """Processes after the first say nothing."""
