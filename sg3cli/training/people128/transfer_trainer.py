"""Training of the transfer network on examples with a known result.

    loss = 4 |R - T|_1 + lite0(R, T) + 2 |grad R - grad T|_1 + |R - T|^2 / |S - T|^2 - D(R, S)

S the source, T what it should become, R the result: what motion and light make of S, and what the network adds. All
terms count more where S and T differ; the fourth makes a slight change, as of make-up, count like a large one. D, a
projected discriminator that sees what became of S, is there if `adversarial` says so: where a wrinkle may lie here or
there, the other terms are least with a faint one in both places, and it tells that from a real one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sg3cli.nets.efficientnet_lite import PerceptualDistance, feature_channels, unit_length
from sg3cli.nets.transfer_net import TransferNet
from sg3cli.training.people128.pair_trainer import change_error, change_mask
from sg3cli.training.people128.projected_discriminator import ProjectedDiscriminator
from sg3cli.training.people128.transfer_data import Example

DIFFERS = 0.07  # mean difference over the colours, in [-1,1], that counts in full: a wrinkle is little more
BALANCE_EVERY = 8  # steps: how often the weight of the discriminator is measured


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
    adversarial: float = 0.0  # gradient of the discriminator over that of the perceptual distance; 0: none
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
        self.critic: ProjectedDiscriminator | None = None
        if config.adversarial:
            channels, device = [2 * c for c in feature_channels()], next(net.parameters()).device
            self.critic = ProjectedDiscriminator(channels, device, share=config.adversarial)
        self.now = 0

    def step(self, example: Example, progress: float) -> dict[str, float]:
        """Train on one batch at `progress` (0..1) of the run; the losses."""
        c = self.config
        decay = 1 - 0.95 * min(max((progress - c.decay_from) / (1 - c.decay_from), 0.0), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = c.lr * decay * min(1.0, (self.now + 1) / c.warmup)
        losses, learn = self.losses(example)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), c.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            self._average()
        told_apart = learn()
        self.now += 1
        return {name: float(value.detach()) for name, value in losses.items()} | told_apart | {"gradient": float(norm)}

    def losses(self, e: Example) -> tuple[dict[str, Tensor], Callable[[], dict[str, float]]]:
        """The terms and their weighted sum `total`, and the step of the discriminator that is due afterwards."""
        c, critic = self.config, self.critic
        with torch.autocast(e.source.device.type, torch.bfloat16, enabled=c.bf16):
            added = self.net(*(x.contiguous(memory_format=torch.channels_last) for x in inputs_of(e)))
        result = e.base + added.float()
        mask = change_mask(e.source, e.truth, DIFFERS)
        weight = 1 + c.changed * mask
        drawn, real = self._features(result, True), self._features(e.truth, False)
        distance = self.perceptual.between([unit_length(m) for m in drawn], [unit_length(m) for m in real], weight)
        losses = {
            "pixel": weighted((result - e.truth).abs(), weight).mean(),
            "perceptual": distance.mean(),
            "edges": edge_distance(result, e.truth, weight).mean(),
            "change": change_error(result - e.source, e.truth - e.source, mask).clamp(max=4).mean(),
        }
        parts = {name: getattr(c, name) for name in losses}
        losses["total"] = torch.stack([parts[name] * losses[name] for name in parts]).sum()
        if critic is None:
            return losses, dict
        before = self._features(e.source, False)
        drawn, real = ([torch.cat([m, m - b], 1) for m, b in zip(maps, before, strict=True)] for maps in (drawn, real))
        if critic.ready:
            losses["adversarial"] = -critic.realism(drawn, mask)
            if self.now % BALANCE_EVERY == 0 or not critic.weight:
                critic.balance(losses["adversarial"], c.perceptual * losses["perceptual"], result)
            losses["total"] = losses["total"] + critic.weight * losses["adversarial"]

        def learn() -> dict[str, float]:
            return {"told_apart": critic.learn(drawn, real, mask), "adversarial_weight": critic.weight}

        return losses, learn

    def _features(self, image: Tensor, learns: bool) -> list[Tensor]:
        """Maps of the perceptual network; with a gradient for the picture if it `learns`."""
        image = image.contiguous(memory_format=torch.channels_last)
        with (
            torch.set_grad_enabled(learns and torch.is_grad_enabled()),
            torch.autocast(image.device.type, torch.bfloat16, enabled=self.config.bf16),
        ):
            maps = self.perceptual.net.features(image)
        return [m.float() for m in maps]

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
            "critic": self.critic.state() if self.critic else {},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.now = int(state["now"])
        if self.critic and state.get("critic"):
            self.critic.restore(state["critic"])


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
