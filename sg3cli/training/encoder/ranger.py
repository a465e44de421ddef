"""The optimiser of pSp and its descendants: RAdam with LookAhead and centralised gradients ("Ranger").

RAdam (Liu et al. 2020, arXiv:1908.03265) is torch's own. Around it: the gradient of every tensor with more than one
dimension loses its mean over all but the first (Yong et al. 2020, arXiv:2004.01461), and every `k` steps the weights go
back to `alpha` of the way from where they last stood still (Zhang et al. 2019, arXiv:1907.08610).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


def centralise(gradient: Tensor) -> None:
    """Take the mean over all dimensions but the first out of `gradient` [O, ...], in place; vectors keep theirs."""
    if gradient.ndim > 1:
        gradient.sub_(gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True))


class Ranger(torch.optim.RAdam):
    """Defaults are those of the published encoders. All its state is in `state_dict()`, slow weights as `slow`."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        k: int = 6,
        alpha: float = 0.5,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, eps=eps)
        self.k, self.alpha = k, alpha

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step on the gradients at hand; parameters without one are left alone. No closure."""
        if closure is not None:
            raise ValueError("Ranger takes no closure")
        having = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        begun = {p: p.detach().clone() for p in having if not self.state[p]}
        for p in having:
            centralise(p.grad)
        super().step()
        for p in having:
            state = self.state[p]
            if p in begun:
                state["slow"] = begun[p]
            if int(state["step"]) % self.k == 0:
                state["slow"].lerp_(p, self.alpha)
                p.copy_(state["slow"])
