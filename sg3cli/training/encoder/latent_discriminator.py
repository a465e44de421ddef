"""e4e's discriminator of codes (Tov et al. 2021, arXiv:2102.02766): is this w one of the mapping's, or the encoder's?

A multilayer perceptron under the non-saturating logistic loss with lazy R1. It sees whole codes, with the mean and all
earlier ReStyle steps, not what the encoder adds in one of them, and real ones at the truncation at which faces are
typical. (The published ReStyle code does neither: it compares residuals with codes.)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.training.losses import R1_EVERY


def code_discriminator(w_dim: int, layers: int = 4) -> nn.Sequential:
    """[N, w_dim] -> [N, 1]."""
    hidden = [part for _ in range(layers - 1) for part in (nn.Linear(w_dim, w_dim), nn.LeakyReLU(0.2))]
    return nn.Sequential(*hidden, nn.Linear(w_dim, 1))


class CodePool:
    """Up to `size` codes of the past (Shrivastava et al. 2017): once it is full, half of those asked for are old."""

    def __init__(self, size: int, w_dim: int) -> None:
        self.size, self.codes = size, torch.zeros(0, w_dim)

    def exchange(self, codes: Tensor, rng: torch.Generator) -> Tensor:
        """codes [N, w_dim] -> as many: each is the one given, or an old one, whose place it takes."""
        out = []
        for code in codes:
            if len(self.codes) < self.size:
                self.codes = torch.cat([self.codes.to(code), code[None]])
                out.append(code)
            elif torch.rand(1, generator=rng).item() < 0.5:
                out.append(code)
            else:
                place = int(torch.randint(self.size, (1,), generator=rng))
                out.append(self.codes[place].clone())
                self.codes[place] = code
        return torch.stack(out)


class LatentDiscriminator:
    """Discriminator, optimiser and pools. Every process of a group has the same one and gives it the whole batch."""

    def __init__(self, w_dim: int, device: torch.device, lr: float = 2e-5, gamma: float = 10.0, pool: int = 50) -> None:
        self.D = code_discriminator(w_dim).to(device)
        self.optimiser = torch.optim.Adam(self.D.parameters(), lr)
        self.gamma, self.steps = gamma, 0
        self.pools = {"real": CodePool(pool, w_dim), "fake": CodePool(pool, w_dim)}

    def adversarial(self, ws: Tensor) -> Tensor:
        """ws [N, num_ws, w_dim] -> [] mean over all codes, what the encoder lowers; no gradient reaches D."""
        self.D.requires_grad_(False)
        return F.softplus(-self.D(ws.flatten(0, 1))).mean()

    def step(self, real: Tensor, fake: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """One update on real [N, w_dim] and fake [M, num_ws, w_dim], of which each gives one code of its own."""
        places = torch.randint(fake.shape[1], (len(fake),), generator=rng)
        one_each = fake.detach()[torch.arange(len(fake)), places.to(fake.device)]
        real = self.pools["real"].exchange(real.detach(), rng)
        old = self.pools["fake"].exchange(one_each, rng)
        self.D.requires_grad_(True)
        at_real, at_fake = self.D(real), self.D(old)
        loss = F.softplus(at_fake).mean() + F.softplus(-at_real).mean()
        total = loss
        if self.steps % R1_EVERY == 0:
            total = loss + self.gamma / 2 * R1_EVERY * self.r1(real)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.optimiser.step()
        self.steps += 1
        return {"critic": loss.detach(), "critic_real": at_real.detach().mean(), "critic_fake": at_fake.detach().mean()}

    def r1(self, real: Tensor) -> Tensor:
        """[] mean of ||dD/dw||^2 over real [N, w_dim] (arXiv:1801.04406)."""
        real = real.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.D(real).sum(), real, create_graph=True)
        return gradient.square().sum(1).mean()

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs."""
        pools = {name: pool.codes for name, pool in self.pools.items()}
        return {"D": self.D.state_dict(), "optimiser": self.optimiser.state_dict(), "steps": self.steps, "pools": pools}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self.D.load_state_dict(state["D"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.steps = int(state["steps"])
        for name, codes in state["pools"].items():
            self.pools[name].codes = codes
