"""A discriminator on the features of a frozen network (Sauer et al. 2021, arXiv 2111.01007), for an autoencoder.

Without it a drawing is the mean of all faces that fit, which is blurred. Its inputs are the feature maps that the
perceptual distance computes anyway, of the drawings and of the pictures they are drawn after, so it costs the small
heads only: a fixed random mix of the channels of each map, then three convolutions to a map of logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

WIDTH = 48  # channels of the heads
SMOOTHING = 0.9  # of the weight of the adversarial term, from one measurement to the next
MOST = 50.0  # no larger weight


class Head(nn.Module):
    """One feature map [N,C,S,S] to logits [N,1,S/2,S/2]."""

    spread: Tensor
    mix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("spread", torch.zeros(1, channels, 1, 1))  # of the real features; zero: not measured yet
        self.register_buffer("mix", torch.randn(WIDTH, channels, 1, 1) / channels**0.5)
        self.layers = nn.Sequential(
            spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, 2, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, 1, 1)),
            nn.LeakyReLU(0.2),
            spectral_norm(nn.Conv2d(WIDTH, 1, 3, 1, 1)),
        )

    @torch.no_grad()
    def measure(self, real: Tensor) -> None:
        """Take the scale of the channels from the first real features."""
        if not self.spread.any():
            self.spread.copy_(real.square().mean((0, 2, 3), keepdim=True).sqrt().clamp(min=1e-3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(F.conv2d(x / self.spread, self.mix))
        return logits


class ProjectedDiscriminator:
    """Heads for several maps with their optimiser; `learn` after each step of the generator."""

    def __init__(
        self, channels: Sequence[int], device: torch.device, lr: float = 5e-4, share: float = 0.25, warmup: int = 60
    ) -> None:
        """`share`: length of the adversarial gradient at the drawing, over that of the perceptual one. For the first
        `warmup` steps only the discriminator learns."""
        self.heads = nn.ModuleList(Head(c) for c in channels).to(device)
        self.optimiser = torch.optim.Adam(self.heads.parameters(), lr=lr, betas=(0.0, 0.99))
        self.share, self.warmup, self.steps, self.weight = share, warmup, 0, 0.0

    @property
    def ready(self) -> bool:
        """Whether it says anything of use yet."""
        return self.steps >= self.warmup

    def realism(self, drawn: Sequence[Tensor], where: Tensor) -> Tensor:
        """[] what the generator shall raise: mean logit of the features of drawings, weighted by where [N,1,R,R]."""
        self.heads.requires_grad_(False)
        logits = [_mean(head(x), where) for head, x in zip(self.heads, drawn, strict=True)]
        self.heads.requires_grad_(True)
        return torch.stack(logits).mean()

    def balance(self, adversarial: Tensor, perceptual: Tensor, y: Tensor) -> None:
        """Set the weight of the adversarial term so that its gradient at the drawing y is `share` of the other's."""
        lengths = [
            float(torch.autograd.grad(term, y, retain_graph=True)[0].norm()) for term in (adversarial, perceptual)
        ]
        wanted = min(self.share * lengths[1] / max(lengths[0], 1e-9), MOST)
        self.weight = SMOOTHING * self.weight + (1 - SMOOTHING) * wanted if self.weight else wanted

    def learn(self, drawn: Sequence[Tensor], real: Sequence[Tensor], where: Tensor) -> float:
        """One step of the hinge loss on features without gradient; the loss, 2 when it cannot tell, 0 when it can."""
        total = where.new_zeros(())
        for head, y, x in zip(self.heads, drawn, real, strict=True):
            head.measure(x)  # type: ignore[operator]
            total = total + _mean(F.relu(1 - head(x)), where) + _mean(F.relu(1 + head(y.detach())), where)
        total = total / len(self.heads)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        self.steps += 1
        return float(total.detach())

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs."""
        heads, optimiser = self.heads.state_dict(), self.optimiser.state_dict()
        return {"heads": heads, "optimiser": optimiser, "steps": self.steps, "weight": self.weight}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.heads.load_state_dict(state["heads"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps, self.weight = int(state["steps"]), float(state["weight"])


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """[] mean of values [N,1,S,S] with the weight where [N,1,R,R]."""
    weight = F.adaptive_avg_pool2d(where, (values.shape[-2], values.shape[-1]))
    return (values * weight).sum() / weight.expand_as(values).sum()
