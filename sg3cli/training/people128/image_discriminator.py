"""A discriminator that joins a reconstruction: what is missing in a mean of faces, it sees.

Non-saturating logistic loss with lazy R1 (arXiv 1912.04958, section 3.1): the same as in `adversarial.py`, on a
network small enough to cost a CPU less than the generator does.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.discriminator import Discriminator, DiscriminatorConfig
from sg3cli.training.losses import R1_EVERY, r1_penalty


class ImageDiscriminator:
    """Discriminator and optimiser; `step` trains it and returns what the generator has to lower."""

    def __init__(self, resolution: int, lr: float = 2e-3, gamma: float = 1.0) -> None:
        self.D = Discriminator(DiscriminatorConfig(img_resolution=resolution, channel_base=1536, channel_max=96))
        self.gamma, self.steps = gamma, 0
        c = R1_EVERY / (R1_EVERY + 1)  # lazy regularisation: appendix B of arXiv 1912.04958
        self.optimiser = torch.optim.Adam(self.D.parameters(), lr * c, betas=(0.0, 0.99**c), eps=1e-8)

    def step(self, x: Tensor, y: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Real x and drawn y [N,3,R,R] -> {"adversarial": loss with gradient to y, "critic": its own loss}.

        Both are mirrored alike at random.
        """
        flip = torch.rand(len(x), 1, 1, 1, generator=rng) < 0.5
        x, y = (torch.where(flip, p.flip(3), p) for p in (x, y))
        self.D.requires_grad_(True)
        loss = F.softplus(self.D(y.detach())).mean() + F.softplus(-self.D(x)).mean()
        if self.steps % R1_EVERY == 0:
            loss = loss + r1_penalty(self.D, x) * self.gamma / 2 * R1_EVERY
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        self.steps += 1
        self.D.requires_grad_(False)
        return {"adversarial": F.softplus(-self.D(y)).mean(), "critic": loss.detach()}

    def state(self) -> dict[str, object]:
        return {"D": self.D.state_dict(), "optimiser": self.optimiser.state_dict(), "steps": self.steps}

    def restore(self, state: dict[str, object]) -> None:
        self.D.load_state_dict(state["D"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.steps = int(state["steps"])  # type: ignore[call-overload]
