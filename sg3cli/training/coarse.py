"""A coarse start: the first layers learn 32 px faces from their labels before the whole generator is trained.

The layers up to 32 samples a side cost a sixth of the generator, and what they have to learn (where the head is, how
it turns, the colours of skin and hair) is what takes longest from random weights. A linear head on their features
stands in for the rest of the network and is thrown away afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.nets.generator import Generator
from sg3cli.training.conditions import Conditions
from sg3cli.training.data import Batches, FaceSet

COARSE_RATE = 32  # samples across the picture


def coarse_features(G: Generator, ws: Tensor) -> Tensor:
    """Features [N,C,32,32] of the last layer that runs at 32 samples, margin cut off."""
    styles = G.synthesis.style_space(ws)
    x = G.synthesis.input(styles["input"], None)
    for name, layer in zip(G.synthesis.layer_names, G.synthesis.layers(), strict=True):
        if layer.spec.out_rate > COARSE_RATE:
            break
        x = layer(x, styles[name], update_emas=True)
    margin = (x.shape[-1] - COARSE_RATE) // 2
    return x[:, :, margin : margin + COARSE_RATE, margin : margin + COARSE_RATE]


def coarse_start(
    G: Generator, M: nn.Parameter, faces: FaceSet, conditions: Conditions, steps: int, batch: int = 16, lr: float = 1e-2
) -> Iterator[float]:
    """Train the coarse layers and M in place; yields the loss of each step. w = w_avg + M a."""
    vectors = torch.from_numpy(conditions.vectors)
    channels = max(x.spec.out_channels for x in G.synthesis.layers() if x.spec.out_rate <= COARSE_RATE)
    head = nn.Conv2d(channels, 3, 1)
    optimiser = torch.optim.Adam([*G.synthesis.parameters(), M, *head.parameters()], lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.3, total_iters=steps)
    batches = Batches(len(faces), batch, seed=7)
    for step in range(steps):
        rows = batches.rows(step)
        target = F.adaptive_avg_pool2d(faces.batch(rows), COARSE_RATE)
        w = G.mapping.w_avg + vectors[rows] @ M.T
        y = head(coarse_features(G, w[:, None].expand(-1, G.num_ws, -1)))
        loss = (y - target).abs().mean() + (F.avg_pool2d(y, 4) - F.avg_pool2d(target, 4)).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        yield float(loss.detach())
