"""A small network that reads the labels off a face: the training's perceptual features and the evaluation's judge.

It knows where eyes and mouth are (68 landmarks), what the person looks like (labels) and who it is (identity
embedding). Its feature maps take the place that LPIPS has for photographs (no downloaded backbone, nothing but our own
renders). The probe that shapes the training is never the one that judges it: they differ in seed and width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.training.data import Batches, FaceSet


@dataclass(frozen=True)
class ProbeConfig:
    """Architecture of a `FaceProbe`."""

    labels: tuple[str, ...]
    people: int
    widths: tuple[int, ...] = (32, 64, 128, 192)
    embedding: int = 64

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def _stage(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
        nn.Conv2d(cout, cout, 3, padding=1, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    )


class FaceProbe(nn.Module):
    """[N,3,128,128] in [-1,1] -> labels (standardised), landmarks (-1..1 across the crop), identity embedding."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ProbeConfig) -> None:
        super().__init__()
        self.config = config
        chain = (3, *config.widths)
        self.stages = nn.ModuleList(_stage(a, b) for a, b in pairwise(chain))
        last = config.widths[-1]
        # Flattened, not pooled: where something is says as much about pose and expression as what it is.
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(last * 16, 256), nn.ReLU())
        self.labels = nn.Linear(256, len(config.labels))
        self.landmarks = nn.Linear(256, 136)
        self.embed = nn.Linear(256, config.embedding)
        self.people = nn.Parameter(torch.randn(config.people, config.embedding))
        self.register_buffer("mean", torch.zeros(len(config.labels)))
        self.register_buffer("std", torch.ones(len(config.labels)))

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps at 32, 16, 8 and 4 px."""
        maps = []
        x = F.adaptive_avg_pool2d(x, 64)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def hidden(self, x: Tensor) -> Tensor:
        """[N,256]: what all heads read; the feature space of `metrics.frechet`."""
        hidden: Tensor = self.trunk(F.adaptive_avg_pool2d(self.features(x)[-1], 4))
        return hidden

    def heads(self, top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the 4 px map: labels [N,K] standardised, landmarks [N,68,2], unit embedding [N,E]."""
        hidden = self.trunk(F.adaptive_avg_pool2d(top, 4))
        return (
            self.labels(hidden),
            self.landmarks(hidden).view(-1, 68, 2),
            F.normalize(self.embed(hidden.detach()), dim=1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.heads(self.features(x)[-1])

    def attributes(self, x: Tensor) -> Tensor:
        """Labels in their own units, [N,K]."""
        return self.forward(x)[0] * self.std + self.mean


def perceptual_distance(probe: FaceProbe, x: Tensor, y: Tensor) -> Tensor:
    """LPIPS-like: squared difference of channel-normalised features, mean over space, summed over scales; [N].

    `y` is the target and gets no gradient.
    """
    with torch.no_grad():
        targets = probe.features(y)
    total = x.new_zeros(len(x))
    for a, b in zip(probe.features(x), targets, strict=True):
        unit_a, unit_b = F.normalize(a, dim=1, eps=1e-4), F.normalize(b, dim=1, eps=1e-4)
        total = total + (unit_a - unit_b).square().sum(1).mean((1, 2))
    return total


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, colour cast and noise: what a camera adds to a render. Geometry stays, labels hold."""
    n = len(x)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x = x * (1 + 0.15 * draw(n, 1, 1, 1)) + 0.1 * draw(n, 1, 1, 1) + 0.05 * draw(n, 3, 1, 1)
    return (x + 0.05 * draw(n, 1, 1, 1).abs() * draw(*x.shape)).clamp(-1, 1)


def train_probe(
    faces: FaceSet, config: ProbeConfig, steps: int, batch: int = 64, lr: float = 2e-3, seed: int = 0
) -> Iterator[tuple[int, float, FaceProbe]]:
    """Yield (step, loss, probe) after every step; one-cycle AdamW on labels, landmarks and identity."""
    torch.manual_seed(seed)
    probe = FaceProbe(config)
    probe.mean.copy_(torch.from_numpy(faces.labels.mean(0)))
    probe.std.copy_(torch.from_numpy(faces.labels.std(0).clip(1e-2)))
    optimiser = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.1)
    batches, rng = Batches(len(faces), batch, seed), torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = batches.rows(step)
        loss = probe_loss(probe, augment(faces.batch(rows), rng), faces, rows)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        yield step, float(loss.detach()), probe


def probe_loss(probe: FaceProbe, x: Tensor, faces: FaceSet, rows: np.ndarray) -> Tensor:
    """Smooth L1 on standardised labels and on landmarks, cosine softmax over the people."""
    labels, points, embedding = probe(x)
    truth = (torch.from_numpy(faces.labels[rows]) - probe.mean) / probe.std
    places = torch.from_numpy(faces.landmarks[rows]) / (x.shape[-1] / 2) - 1
    logits = 16 * embedding @ F.normalize(probe.people, dim=1).T
    who = F.cross_entropy(logits, torch.from_numpy(faces.identity[rows]))
    return F.smooth_l1_loss(labels, truth) + 5 * F.smooth_l1_loss(points, places, beta=0.1) + 0.1 * who
