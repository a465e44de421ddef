"""Losses that the adversarial trainers share."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

R1_EVERY = 16  # steps between two R1 penalties: lazy regularisation, arXiv 1912.04958, appendix B


def r1_penalty(D: nn.Module, x: Tensor) -> Tensor:
    """[] mean of ||dD/dx||^2 over real images x [N,3,R,R] (arXiv 1801.04406, equation 9, without gamma / 2)."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """x [N,C,H,W] convolved with a Gaussian of `sigma` pixels, cut at 3 sigma; the borders are mirrored."""
    reach = min(int(np.floor(3 * sigma)), x.shape[-1] - 1)
    if reach < 1:
        return x
    taps = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-((taps / sigma) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(x.shape[1], 1, 1, -1)
    x = F.conv2d(F.pad(x, [reach, reach, 0, 0], mode="reflect"), kernel, groups=x.shape[1])
    return F.conv2d(F.pad(x, [0, 0, reach, reach], mode="reflect"), kernel.transpose(2, 3), groups=x.shape[1])
