"""Training of the attribute net on labelled renders."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.attribute_net import AttributeNet, AttributeNetConfig
from sg3cli.training.data.synthface import Batches, FaceSet


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness, contrast, colour cast and noise: what a camera adds to a render. Geometry stays, labels hold."""
    n = len(x)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x = x * (1 + 0.15 * draw(n, 1, 1, 1)) + 0.1 * draw(n, 1, 1, 1) + 0.05 * draw(n, 3, 1, 1)
    return (x + 0.05 * draw(n, 1, 1, 1).abs() * draw(*x.shape)).clamp(-1, 1)


def train_attribute_net(
    faces: FaceSet, config: AttributeNetConfig, steps: int, batch: int = 64, lr: float = 2e-3, seed: int = 0
) -> Iterator[tuple[int, float, AttributeNet]]:
    """Yield (step, loss, attribute net) after every step; one-cycle AdamW on labels, landmarks and identity."""
    torch.manual_seed(seed)
    net = AttributeNet(config)
    net.mean.copy_(torch.from_numpy(faces.labels.mean(0)))
    net.std.copy_(torch.from_numpy(faces.labels.std(0).clip(1e-2)))
    optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.1)
    batches, rng = Batches(len(faces), batch, seed), torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = batches.rows(step)
        loss = attribute_loss(net, augment(faces.batch(rows), rng), faces, rows)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        yield step, float(loss.detach()), net


def attribute_loss(net: AttributeNet, x: Tensor, faces: FaceSet, rows: np.ndarray) -> Tensor:
    """Smooth L1 on standardised labels and on landmarks, cosine softmax over the people."""
    labels, points, embedding = net(x)
    truth = (torch.from_numpy(faces.labels[rows]) - net.mean) / net.std
    places = torch.from_numpy(faces.landmarks[rows]) / (x.shape[-1] / 2) - 1
    logits = 16 * embedding @ F.normalize(net.people, dim=1).T
    who = F.cross_entropy(logits, torch.from_numpy(faces.identity[rows]))
    return F.smooth_l1_loss(labels, truth) + 5 * F.smooth_l1_loss(points, places, beta=0.1) + 0.1 * who
