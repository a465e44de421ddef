"""A flow on a model's codes, fitted by flow matching (Lipman et al. 2023, arXiv 2210.02747, eq. 14).

    x_t = (1 - t) z + t x        v(x_t, t, c) -> x - z        z of N(0, I), x a code, c its attributes

The same continuous normalising flow as StyleFlow's, without solving the differential equation while it is trained. Some
thousands of codes are few: a part of them is held out, and the step that told most of these is taken.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sg3cli.nets.code_flow import CodeFlow, CodeFlowConfig

RIDGE = 20.0  # codes, of which nothing is known, beside those whose attributes are known
SMALLEST = 1e-5  # share of the largest deviation below which a component is rounding


@dataclass(frozen=True)
class FitConfig:
    """One fit; `noise` is added to standardised attributes, `held_out` is a share of the codes."""

    components: int = 192
    width: int = 512
    blocks: int = 3
    steps: int = 800
    batch: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.05
    noise: float = 0.1
    held_out: float = 0.1
    check_every: int = 50
    average: float = 0.98  # of the weights over steps
    seed: int = 0


def fit_flow(
    ws: Tensor,
    read: Tensor,
    labels: tuple[str, ...],
    config: FitConfig,
    keeps_hue: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda line: None,
    whose: Tensor | None = None,
    held: int = 0,
) -> CodeFlow:
    """A flow on codes ws [N,num_ws,w_dim] under their attributes read [N,K]; those of one `whose [N]` are held out
    together. The last `held` attributes are only told."""
    whose = torch.arange(len(ws)) if whose is None else whose
    flow = placed(ws, read, labels, config, keeps_hue, held)
    x, c = flow.coordinates(ws), flow.standard(read)
    people = np.random.default_rng(config.seed).permutation(np.unique(whose.numpy()))
    few = torch.from_numpy(people[: max(1, round(config.held_out * len(people)))])
    unseen, kept = (torch.isin(whose, few, invert=other).nonzero()[:, 0] for other in (False, True))
    average = copy.deepcopy(flow.velocity).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(flow.velocity.parameters(), config.lr, weight_decay=config.weight_decay)
    best, found = float("inf"), copy.deepcopy(average.state_dict())
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        for step in range(config.steps):
            rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            chosen = kept[torch.randint(len(kept), (min(config.batch, len(kept)),), generator=rng)]
            told = c[chosen] + config.noise * torch.randn(len(chosen), c.shape[1], generator=rng)
            for group in optimiser.param_groups:
                group["lr"] = config.lr * min(1.0, (step + 1) / 50) * (1 - step / config.steps)
            optimiser.zero_grad(set_to_none=True)
            matching(flow.velocity, x[chosen], told, rng).backward()
            optimiser.step()
            share = min(config.average, (step + 1) / (step + 10))
            for mean, now in zip(average.parameters(), flow.velocity.parameters(), strict=True):
                mean.lerp_(now.detach(), 1 - share)
            if step % config.check_every == config.check_every - 1 or step == config.steps - 1:
                error = held_out_error(average, x[unseen], c[unseen])
                say(f"step {step + 1}: {error:.4f} on codes held out")
                if error < best:
                    best, found = error, copy.deepcopy(average.state_dict())
    flow.velocity.load_state_dict(found)
    return flow.eval().requires_grad_(False)


def placed(
    ws: Tensor, read: Tensor, labels: tuple[str, ...], config: FitConfig, keeps_hue: tuple[str, ...], held: int = 0
) -> CodeFlow:
    """A flow that knows the codes' principal components and how these tell the attributes, but no velocity yet."""
    flat = ws[:, 1:].flatten(1)
    mean = flat.mean(0)
    _, singular, vectors = torch.linalg.svd(flat - mean, full_matrices=False)
    components = min(config.components, int((singular > SMALLEST * singular[0]).sum()))
    sizes = {"num_ws": ws.shape[1], "w_dim": ws.shape[2], "components": components, "held": held}
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        flow = CodeFlow(CodeFlowConfig(labels, **sizes, width=config.width, blocks=config.blocks, keeps_hue=keeps_hue))
    flow.mean.copy_(mean)
    flow.vectors.copy_(vectors[:components])
    flow.deviations.copy_(singular[:components] / len(ws) ** 0.5)
    flow.label_mean.copy_(read.mean(0))
    flow.label_std.copy_(read.std(0).clamp(min=1e-6))
    x, c = flow.coordinates(ws), flow.standard(read)
    told = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    flow.reading.copy_(torch.linalg.solve(told.T @ told + RIDGE * torch.eye(told.shape[1]), told.T @ c))
    return flow


def matching(velocity: torch.nn.Module, x: Tensor, c: Tensor, rng: torch.Generator) -> Tensor:
    """[]: squared error of the velocity at a random time between a random z and each code x [N,D]."""
    z, t = torch.randn(x.shape, generator=rng), torch.rand(len(x), generator=rng)
    between = z + t[:, None] * (x - z)
    error: Tensor = (velocity(between, t, c) - (x - z)).square().mean()
    return error


@torch.no_grad()
def held_out_error(velocity: torch.nn.Module, x: Tensor, c: Tensor) -> float:
    """`matching` of codes that were not fitted, over eight draws that are always the same."""
    draws = (matching(velocity, x, c, torch.Generator().manual_seed(n)) for n in range(8))
    return float(torch.stack(list(draws)).mean())
