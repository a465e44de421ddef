"""One run of the encoder's training in its folder, and the model folder it becomes.

WORK/best.safetensors   the encoder of the lowest validation loss so far
WORK/grids/000500.png   held-out images and what each ReStyle step makes of them, at every snapshot
                        (and what `run folder` keeps: settings, state, log)
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sg3cli import places
from sg3cli.drawing.images import grid, write_png
from sg3cli.errors import ModelError, UsageError
from sg3cli.files import atomic_path, digest_of, write_json
from sg3cli.levels import tensor_to_uint8
from sg3cli.metrics.perceptual import PerceptualLoss, StructuralLoss, lpips_missing, make_perceptual
from sg3cli.nets.checkpoint import load_encoder_file, load_generator_file, save_encoder
from sg3cli.nets.encoder import Encoder, EncoderConfig
from sg3cli.nets.generator import Generator
from sg3cli.training.config import TrainEncoderConfig
from sg3cli.training.distributed import Group
from sg3cli.training.encoder.identity_loss import IdentityLoss
from sg3cli.training.encoder.trainer import EncoderTrainer, Images, new_encoder
from sg3cli.training.run_folder import RunFolder
from sg3cli.weights.bundle import load_model

Say = Callable[[str], None]
LOG_EVERY = 20
SAVE_EVERY = 300.0  # seconds after which the state is saved between two snapshots
SHOWN = 6  # images of a grid
LPIPS_FROM = 64  # pixels below which AlexNet's layers have nothing left to look at
SMALL = ((32, 1), (64, 2), (128, 2), (192, 2))
LASTING = ("steps", "snapshot_every")  # settings that may change when a run goes on


@dataclass(frozen=True)
class Base:
    """The generator that an encoder is trained for: its file and its digest; `folder` if it is a model's."""

    G: Generator
    file: Path
    digest: str
    name: str
    folder: Path | None


def open_generator(text: str) -> Base:
    """A model by name or folder, or a generator's `.safetensors`. Raises ModelError for anything else."""
    path = places.expand(text)
    if path.is_file() and path.suffix == ".safetensors":
        G, _ = load_generator_file(path)
        return Base(G, path, digest_of(path), path.stem, None)
    bundle = load_model(text)
    if bundle.is_adapted:
        what = f"{bundle.name} was adapted from {bundle.origin.name} and has that model's encoder"
        raise ModelError(what, f"for an encoder of its own drawings: --generator {bundle.path}/generator.safetensors")
    return Base(bundle.generator(), bundle.path / "generator.safetensors", bundle.digest, bundle.name, bundle.path)


def preset(name: str, G: Generator, kind: str) -> EncoderConfig:
    """`official`: the published IR-SE50 at 256 px, 197 M parameters for 16 codes; `small`: for a CPU, 64 px."""
    if name == "official":
        return EncoderConfig(kind=kind, num_ws=G.num_ws, w_dim=G.w_dim)
    if name == "small":
        size = min(64, G.img_resolution)
        return shaped(EncoderConfig(input_size=size, kind=kind, num_ws=G.num_ws, w_dim=G.w_dim), SMALL)
    raise UsageError(f"there is no preset '{name}'", "choose official or small, or give --widths")


def shaped(config: EncoderConfig, stages: tuple[tuple[int, int], ...]) -> EncoderConfig:
    """`config` with other `stages` (channels, blocks), and stem, heads and gates that suit them."""
    reduction = min(16, max(4, stages[0][0] // 4), stages[0][0])
    values = config.to_dict() | {"stages": stages, "stem": stages[0][0], "head_dim": stages[-1][0]}
    return EncoderConfig.from_dict(values | {"se_reduction": reduction})


def parse_widths(text: str) -> tuple[tuple[int, int], ...]:
    """`32,64x2,128x2` -> ((32, 1), (64, 2), (128, 2)): channels x blocks, one entry for each halving."""
    stages = []
    for part in text.split(","):
        channels, _, blocks = part.strip().partition("x")
        if not channels.isdigit() or not (blocks or "1").isdigit() or int(channels) < 4 or int(blocks or 1) < 1:
            raise UsageError(f"--widths {text}: '{part}' is no stage", "CHANNELSxBLOCKS of each halving: 32,64x2,128x2")
        stages.append((int(channels), int(blocks or 1)))
    return tuple(stages)


def choose_losses(
    config: TrainEncoderConfig, size: int, identity: Path | None, say: Say
) -> tuple[PerceptualLoss, IdentityLoss | None]:
    """The perceptual and the identity loss that can be had here; says which, and what is left out."""
    if config.loss == "auto" and size < LPIPS_FROM:
        perceptual: PerceptualLoss = StructuralLoss()
        say(f"perceptual loss: structural (LPIPS needs pictures of {LPIPS_FROM} px)")
    else:
        perceptual = make_perceptual(config.loss)
        reason = lpips_missing() if config.loss == "auto" and perceptual.name != "lpips" else None
        say(f"perceptual loss: {perceptual.name}" + (f" ({reason})" if reason else ""))
    if identity is None:
        say("no identity loss: --identity NET.pt gives a face recognition network for it")
    return perceptual, IdentityLoss(identity) if identity else None


class EncoderRun:
    """A trainer with its folder: `steps()` trains to the end, `publish()` writes the model."""

    def __init__(
        self, base: Base, encoder: Encoder, images: Images, config: TrainEncoderConfig,
        losses: tuple[PerceptualLoss, IdentityLoss | None], group: Group, work: Path, facts: dict[str, Any], say: Say,
    ) -> None:  # fmt: skip
        """`facts` go into the settings: what the data are. Raises UsageError when `work` holds another run."""
        self.trainer = EncoderTrainer(base.G, encoder, images, config, *losses, group)
        self.base, self.group, self.say = base, group, say
        self.settings = {
            **asdict(self.trainer.config), "encoder": encoder.config.to_dict(), "generator": base.digest,
            "perceptual_loss": losses[0].name, "identity_loss": losses[1] is not None, **facts,
        }  # fmt: skip
        self.folder = RunFolder(work, self.settings, LASTING)
        self.best: dict[str, float] = {}
        if (state := self.folder.load(group.device)) is not None:
            self.trainer.restore(state["trainer"])
            self.best = state["best"]
            say(f"continued at step {self.trainer.now}")
        if group.is_first:
            self.folder.write_settings()
            self.folder.drop_after(self.trainer.now)
        group.copy_from_first(self.trainer.encoder)

    def steps(self) -> Iterator[dict[str, Tensor]]:
        """The losses of every step that is left; logs and saves on the way."""
        began, first = time.monotonic(), self.trainer.now
        saved = began
        c = self.trainer.config
        for log in self.trainer.run():
            now = self.trainer.now
            row, whole = {}, now % c.snapshot_every == 0 or now == c.steps
            if whole or now % LOG_EVERY == 0:
                row = self._means(log) | {"img_per_s": (now - first) * c.batch / (time.monotonic() - began)}
            if whole and self.group.is_first:
                row |= self._validate()
            if row and self.group.is_first:
                self.folder.log(now, row)
            if self.group.is_first and (whole or time.monotonic() - saved > SAVE_EVERY):
                self.folder.save({"trainer": self.trainer.state(), "best": self.best})
                saved = time.monotonic()
            yield log

    def _means(self, log: dict[str, Tensor]) -> dict[str, float]:
        """Over all processes. Raises UsageError when the training has come apart."""
        values = self.group.mean(torch.stack([log[name] for name in sorted(log)]))
        if not values.isfinite().all():
            raise UsageError(f"the loss is not finite at step {self.trainer.now}", "try a smaller --lr")
        return dict(zip(sorted(log), values.tolist(), strict=True))

    def _validate(self) -> dict[str, float]:
        """Scores on what is held out; keeps the best encoder and draws the grid."""
        scores, now = self.trainer.validate(), self.trainer.now
        self.say(f"step {now}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
        if not self.best or scores["val_loss"] < self.best["val_loss"]:
            self.best = {"step": now, **scores}
            save_encoder(self.folder.work / "best.safetensors", self.trainer.encoder, self._meta())
        self._draw(self.folder.work / "grids" / f"{now:06d}.png")
        return scores

    def _draw(self, path: Path) -> None:
        """Rows of: source, step 1, step 2, ..."""
        x, drawn = self.trainer.reconstruct(self.trainer.held_out[:SHOWN])
        tiles = [_pixels(image) for row in zip(x, *drawn, strict=True) for image in row]
        write_png(path, grid(tiles, len(tiles), 1 + len(drawn), x.shape[-1]), "source, then each ReStyle step")

    def _meta(self) -> dict[str, Any]:
        return {"generator": self.base.digest, "training": self.settings, "validation": self.best}

    def publish(self, out: Path) -> dict[str, float]:
        """Write the best encoder into the model folder `out`; returns its validation. The first process does it."""
        if self.group.is_first:
            encoder, meta = load_encoder_file(self.folder.work / "best.safetensors")
            begin_model(out, self.base)
            save_encoder(out / "encoder.safetensors", encoder, meta)
        return self.best


def check_model(out: Path, base: Base) -> None:
    """Raises UsageError when `out` is a file, or a model folder of another generator."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file", "--out is the model folder that the encoder goes into")
    there = out / "generator.safetensors"
    if there.is_file() and digest_of(there) != base.digest:
        raise UsageError(f"{out} is the model of another generator", "give a new folder, or that generator's own")


def begin_model(out: Path, base: Base) -> None:
    """Make `out` a model folder of the generator, with the directions it has, unless it is one already."""
    check_model(out, base)
    wanted = {"generator.safetensors": base.file}
    if base.folder is not None:
        files = [base.folder / "model.json", *(base.folder / "directions").glob("*.safetensors")]
        wanted |= {str(file.relative_to(base.folder)): file for file in files}
    for name, source in wanted.items():
        if not (out / name).exists():
            with atomic_path(out / name) as temporary:
                shutil.copyfile(source, temporary)
    if not (out / "model.json").exists():
        facts = {"name": out.name, "resolution": base.G.img_resolution, "licence": "unknown", "source": base.file.name}
        write_json(out / "model.json", {"schema": 1, **facts})


def start_encoder(init: str | None, base: Base, wanted: EncoderConfig, seed: int) -> Encoder:
    """`wanted` with random weights, or the encoder of a model (name, folder or file) to go on from."""
    if init is None:
        return new_encoder(wanted, seed)
    path = places.expand(init)
    encoder = load_encoder_file(path)[0] if path.is_file() else load_model(init).encoder()
    shape = (encoder.config.num_ws, encoder.config.w_dim)
    if shape != (base.G.num_ws, base.G.w_dim):
        codes = f"{shape[0]}x{shape[1]}"
        raise ModelError(
            f"the encoder of --init gives {codes} codes, the generator takes {base.G.num_ws}x{base.G.w_dim}",
            "start from an encoder of a generator of this shape, or without --init",
        )
    return encoder


def _pixels(x: Tensor) -> np.ndarray:
    """[3,H,W] in [-1,1] -> [H,W,3] uint8."""
    return tensor_to_uint8(x).permute(1, 2, 0).cpu().numpy()
