"""Training of the transfer network on examples with a known result.

    loss = 4 |R - T|_1 + lite0(R, T) + 2 |grad R - grad T|_1 + |R - T|^2 / |S - T|^2

S the source, T what it should become, R the result: what motion and light make of S, and what the network adds. All
terms count more where S and T differ; the last one makes a slight change, as of make-up, count like a large one.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sg3cli.nets.efficientnet_lite import PerceptualDistance
from sg3cli.nets.transfer_net import TransferNet
from sg3cli.training.people128.pair_trainer import change_error, change_mask
from sg3cli.training.people128.transfer_data import Example

DIFFERS = 0.07  # mean difference over the colours, in [-1,1], that counts in full: a wrinkle is little more


@dataclass(frozen=True)
class TransferTraining:
    """One run. The learning rate falls to a twentieth from `decay_from` of the run on."""

    lr: float = 6e-4  # with twice as much it fell silent within a thousand steps
    warmup: int = 200  # steps
    decay_from: float = 0.4
    pixel: float = 4.0
    perceptual: float = 1.0
    edges: float = 2.0
    change: float = 1.0
    changed: float = 8.0  # where S and T differ counts 1 + this
    ema: float = 0.998
    clip: float = 1.0
    bf16: bool = False


class TransferTrainer:
    """`step(example, progress)` trains once; `state()` and `restore()` continue exactly."""

    def __init__(self, net: TransferNet, perceptual: PerceptualDistance, config: TransferTraining) -> None:
        self.config = config
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.perceptual = perceptual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=1e-4)
        self.now = 0

    def step(self, example: Example, progress: float) -> dict[str, float]:
        """Train on one batch at `progress` (0..1) of the run; the losses."""
        c = self.config
        decay = 1 - 0.95 * min(max((progress - c.decay_from) / (1 - c.decay_from), 0.0), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = c.lr * decay * min(1.0, (self.now + 1) / c.warmup)
        losses = self.losses(example)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), c.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            self._average()
        self.now += 1
        return {name: float(value.detach()) for name, value in losses.items()} | {"gradient": float(norm)}

    def losses(self, e: Example) -> dict[str, Tensor]:
        """The terms and their weighted sum `total`."""
        c = self.config
        with torch.autocast(e.source.device.type, torch.bfloat16, enabled=c.bf16):
            added = self.net(*(x.contiguous(memory_format=torch.channels_last) for x in inputs_of(e)))
        result = e.base + added.float()
        mask = change_mask(e.source, e.truth, DIFFERS)
        weight = 1 + c.changed * mask
        losses = {
            "pixel": weighted((result - e.truth).abs(), weight).mean(),
            "perceptual": self._distance(result, e.truth, weight).mean(),
            "edges": edge_distance(result, e.truth, weight).mean(),
            "change": change_error(result - e.source, e.truth - e.source, mask).clamp(max=4).mean(),
        }
        parts = {name: getattr(c, name) for name in losses}
        losses["total"] = torch.stack([parts[name] * losses[name] for name in parts]).sum()
        return losses

    def _distance(self, result: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
        result, truth = (t.contiguous(memory_format=torch.channels_last) for t in (result, truth))
        with torch.autocast(result.device.type, torch.bfloat16, enabled=self.config.bf16):
            distance: Tensor = self.perceptual(result, truth, weight)
        return distance

    @torch.no_grad()
    def _average(self) -> None:
        share = min(self.config.ema, (1 + self.now) / (10 + self.now))
        torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), 1 - share)

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on."""
        return {
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "now": self.now,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.now = int(state["now"])


def inputs_of(e: Example) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the network sees of an example."""
    return e.source, e.base, e.plain, e.edited


def weighted(error: Tensor, weight: Tensor) -> Tensor:
    """[N]: weighted mean of error [N,C,R,R]; weight [N,1,R,R]."""
    return (error.mean(1, keepdim=True) * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3))


def edge_distance(result: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """[N]: weighted mean difference of the first differences across and down."""
    d = result - truth
    across = weighted((d[..., :, 1:] - d[..., :, :-1]).abs(), weight[..., :, 1:])
    down = weighted((d[..., 1:, :] - d[..., :-1, :]).abs(), weight[..., 1:, :])
    return (across + down) / 2
