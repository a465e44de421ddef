"""Fit the mapping network z -> w to the codes that the encoder gives, so that `generate` draws people from noise.

The generator never saw z while it was trained as a decoder. Its mapping network is fitted afterwards: sorted
projections of mapped noise onto random lines must match those of the codes (sliced Wasserstein distance, arXiv
1804.01947), which needs no pictures and takes a minute.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sg3cli.nets.generator import Generator


def sliced_wasserstein(x: Tensor, y: Tensor, lines: int, rng: torch.Generator) -> Tensor:
    """Mean squared distance of the sorted projections of two samples [N,D] on `lines` random directions."""
    directions = torch.nn.functional.normalize(torch.randn(x.shape[1], lines, generator=rng), dim=0)
    return ((x @ directions).sort(0).values - (y @ directions).sort(0).values).square().mean()


def fit_mapping(G: Generator, codes: Tensor, steps: int = 400, batch: int = 512, seed: int = 0) -> Iterator[float]:
    """Train `G.mapping` in place on codes [N,w_dim]; yields the distance of each step. w_avg becomes their mean."""
    rng = torch.Generator().manual_seed(seed)
    mean, spread = codes.mean(0), codes.std(0).mean()
    G.mapping.w_avg.copy_(mean)
    parameters = [p.requires_grad_(True) for p in G.mapping.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=0.02, betas=(0.9, 0.99))  # weights act with a 0.01 multiplier
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        z = torch.randn(batch, G.config.z_dim, generator=rng)
        real = codes[torch.randint(len(codes), (batch,), generator=rng)]
        distance = sliced_wasserstein((G.mapping(z)[:, 0] - mean) / spread, (real - mean) / spread, 64, rng)
        optimiser.zero_grad(set_to_none=True)
        distance.backward()
        optimiser.step()
        schedule.step()
        yield float(distance.detach())
    G.mapping.requires_grad_(False)
