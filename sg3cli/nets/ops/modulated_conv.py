"""Convolution whose weights are modulated by a style vector per sample and demodulated to unit output scale.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN (2020), Section 2.2; the input gain and the
pre-normalisation are those of StyleGAN3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def modulated_conv2d(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    demodulate: bool = True,
    padding: int = 0,
    input_gain: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Convolve `x` [N, I, H, W] with `w` [O, I, k, k] scaled along I by `s` [N, I] -> [N, O, H', W'].

    `input_gain` (scalar, [I] or [N, I]) scales the input without being undone by the demodulation. `dtype` lets a 1x1
    convolution multiply in half precision (bfloat16 is twice as fast on a CPU that has it); the result is float32.
    """
    scale_out: Tensor | None = None
    if demodulate:
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()
        energy = s.square() @ w.square().sum([2, 3]).t()
        scale_out = (energy + 1e-8).rsqrt()
    scale_in = s if input_gain is None else s * input_gain.expand_as(s)
    if dtype is not None and w.shape[2:] == (1, 1) and not padding:
        return _modulated_1x1(x, w[:, :, 0, 0], scale_in, scale_out, dtype)
    if x.shape[0] == 1 and not _only_style_needs_grad(x, w, s):
        w = w * scale_in[0, :, None, None]
        if scale_out is not None:
            w = w * scale_out[0, :, None, None, None]
        return F.conv2d(x, w, padding=padding)
    y = F.conv2d(x * scale_in[:, :, None, None], w, padding=padding)
    return y if scale_out is None else y * scale_out[:, :, None, None]


def _modulated_1x1(x: Tensor, w: Tensor, scale_in: Tensor, scale_out: Tensor | None, dtype: torch.dtype) -> Tensor:
    """One small matrix [O, I] for each sample: scaling those costs nothing next to a pass over the activations."""
    per_sample = w * scale_in[:, None, :]
    if scale_out is not None:
        per_sample = per_sample * scale_out[:, :, None]
    y = torch.matmul(per_sample.to(dtype), x.flatten(2).to(dtype))
    return y.float().view(x.shape[0], w.shape[0], *x.shape[2:])


def _only_style_needs_grad(x: Tensor, w: Tensor, s: Tensor) -> bool:
    """True if scaling the activations saves the whole weight gradient in the backward pass."""
    return torch.is_grad_enabled() and (s.requires_grad or x.requires_grad) and not w.requires_grad
