"""Training images that the tiny generator drew itself, so that there are codes for them. As a script: a training."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tiny import tiny_encoder, tiny_generator
from torch import Tensor

from sg3cli.metrics.perceptual import StructuralLoss
from sg3cli.training.config import TrainEncoderConfig
from sg3cli.training.distributed import Group, training_group
from sg3cli.training.encoder.trainer import EncoderTrainer, new_encoder


class DrawnImages:
    """Faces of psi 4: the tiny generator's own spread is too small to learn anything from."""

    resolution = 32

    def __init__(self, count: int = 40) -> None:
        G = tiny_generator()
        z = torch.randn(count, G.config.z_dim, generator=torch.Generator().manual_seed(3))
        self.images = G.synthesis(G.mapping(z, psi=4.0)).clamp(-1, 1)
        self.names = [f"{row}.png" for row in range(count)]

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: np.ndarray, mirror: np.ndarray | None) -> Tensor:
        x = self.images[rows]
        return x if mirror is None else torch.where(torch.from_numpy(mirror)[:, None, None, None], x.flip(3), x)


def make_trainer(count: int = 40, group: Group | None = None, **changes: object) -> EncoderTrainer:
    """A trainer of a tiny encoder: two passes, four images a step."""
    config = replace(TrainEncoderConfig(steps=10, batch=4, passes=2, lr=1e-3), **changes)  # type: ignore[arg-type]
    encoder = new_encoder(replace(tiny_encoder().config, kind=config.kind), seed=0)
    return EncoderTrainer(tiny_generator(), encoder, DrawnImages(count), config, StructuralLoss(), None, group)


if __name__ == "__main__":
    kind, out = sys.argv[1], Path(sys.argv[2])
    with training_group("cpu") as processes:
        trainer = make_trainer(group=processes, kind=kind, stage_start=2, stage_every=1)
        for _ in trainer.run():
            pass
        if processes.is_first:
            torch.save(trainer.state(), out)
