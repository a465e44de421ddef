"""A coarse init: the first layers learn 64 px faces from their labels before the whole generator is trained.

The layers up to 64 samples a side cost less than half of the generator, and what they have to learn (where the head is,
how it turns, the colours of skin and hair) is what takes longest from random weights. A linear head on their features
stands in for the rest of the network and is thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.nets.generator import Generator
from sg3cli.training.data.synthface import Batches, FaceSet
from sg3cli.training.people128.conditions import Conditions

COARSE_RATE = 64  # samples across the image


def coarse_features(G: Generator, ws: Tensor) -> Tensor:
    """Features [N,C,64,64] of the last layer that runs at 64 samples, margin cut off."""
    styles = G.synthesis.style_space(ws)
    x = G.synthesis.input(styles["input"], None)
    for name, layer in zip(G.synthesis.layer_names, G.synthesis.layers(), strict=True):
        if layer.spec.out_rate > COARSE_RATE:
            break
        x = layer(x, styles[name], update_emas=True)
    margin = (x.shape[-1] - COARSE_RATE) // 2
    return x[:, :, margin : margin + COARSE_RATE, margin : margin + COARSE_RATE]


def run_coarse_init(
    G: Generator, M: nn.Parameter, faces: FaceSet, conditions: Conditions, steps: int, batch: int = 8, lr: float = 1e-2
) -> Iterator[float]:
    """Train the coarse layers and M in place; yields the loss of each step. w = w_avg + M a."""
    vectors = torch.from_numpy(conditions.vectors)
    channels = [x.spec.out_channels for x in G.synthesis.layers() if x.spec.out_rate <= COARSE_RATE][-1]
    head = nn.Conv2d(channels, 3, 1)
    groups: list[dict[str, Any]] = [
        {"params": [*G.synthesis.parameters(), *head.parameters()]},
        {"params": [M], "lr": lr / 20},
    ]
    optimiser = torch.optim.Adam(groups, lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, 1.0, total_iters=50)
    batches = Batches(len(faces), batch, seed=7)
    for step in range(steps):
        rows = batches.rows(step)
        target = F.adaptive_avg_pool2d(faces.batch(rows), COARSE_RATE)
        w = G.mapping.w_avg + vectors[rows] @ M.T
        y = head(coarse_features(G, w[:, None].expand(-1, G.num_ws, -1)))
        pooled = [(F.avg_pool2d(y, k), F.avg_pool2d(target, k)) for k in (1, 2, 8)]
        loss = torch.stack([(a - b).abs().mean() for a, b in pooled]).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        yield float(loss.detach())
