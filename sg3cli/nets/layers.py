"""Equalised layers shared by the networks."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LRELU_SLOPE = 0.2


def normalize_second_moment(x: Tensor, eps: float = 1e-8) -> Tensor:
    """Scale each row of `x` [N, C] to unit mean square."""
    return x * (x.square().mean(dim=1, keepdim=True) + eps).rsqrt()


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate (Karras et al. 2018): 1/sqrt(fan-in) at run time.

    `lr_multiplier` scales weight and bias; stored weights are N(0, 1/lr_multiplier). With `activate` the
    output goes through leaky ReLU (0.2) times sqrt(2), which keeps its variance.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activate: bool = False,
        lr_multiplier: float = 1.0,
        weight_init: float = 1.0,
        bias_init: float | tuple[float, ...] = 0.0,
    ) -> None:
        super().__init__()
        self.activate = activate
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) * (weight_init / lr_multiplier))
        bias = torch.as_tensor(bias_init, dtype=torch.float32).expand(out_features)
        self.bias = nn.Parameter(bias / lr_multiplier)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_features] -> [N, out_features]."""
        bias = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        x = torch.addmm(bias, x, self.weight.t(), alpha=self.weight_gain)
        return F.leaky_relu(x, LRELU_SLOPE) * math.sqrt(2) if self.activate else x
