"""Convolution whose weights are modulated by a style vector per sample and demodulated to unit output scale.

Karras et al., Analyzing and Improving the Image Quality of StyleGAN (2020), Section 2.2; the input gain and the
pre-normalisation are those of StyleGAN3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.ops import cpu_convolution

# A CPU's convolution copies its input and output to a layout of its own. Beyond so many bytes of both that is worth
# avoiding: fresh pages cost more than the arithmetic. (Not for a 3 x 3 convolution whose gradient is wanted.)
LARGE = 3 << 27
STRIP = 1 << 25


def modulated_conv2d(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    demodulate: bool = True,
    padding: int = 0,
    input_gain: Tensor | None = None,
    dtype: torch.dtype | None = None,
    impl: str = "auto",
) -> Tensor:
    """Convolve `x` [N, I, H, W] with `w` [O, I, k, k] scaled along I by `s` [N, I] -> [N, O, H', W'].

    `input_gain` (scalar, [I] or [N, I]) scales the input without being undone by the demodulation. `dtype` lets it
    multiply in half precision (bfloat16 is twice as fast on a CPU that has it); the result is float32.
    `impl` "torch" leaves the compiled kernel aside.
    """
    w, scale_in, scale_out = _scales(w, s, demodulate, input_gain)
    matrix = w.shape[2:] == (1, 1) and not padding
    scaled_weights = not _only_style_needs_grad(x, w, s)
    if matrix and dtype is not None:
        # One small matrix for each sample: scaling those costs nothing next to a pass over the activations.
        per_sample = _per_sample(w, scale_in, scale_out)[..., 0, 0].to(dtype)
        return torch.unflatten((per_sample @ x.flatten(2).to(dtype)).float(), 2, x.shape[2:])
    if matrix and scaled_weights and impl != "torch" and cpu_convolution.covers(x, w):
        y = cpu_convolution.pointwise(_per_sample(w, scale_in, scale_out)[..., 0, 0], x.flatten(2))
        return torch.unflatten(y, 2, x.shape[2:])
    if dtype is None and scaled_weights and x.shape[0] == 1:
        return convolve(x, _per_sample(w, scale_in, scale_out)[0], padding)
    # In half precision what goes in keeps its scale, or sixteen bits would lose the small channels of a strong style.
    x = x * scale_in[:, :, None, None]
    y = convolve(x, w, padding) if dtype is None else F.conv2d(x.to(dtype), w.to(dtype), padding=padding).float()
    return y if scale_out is None else y * scale_out[:, :, None, None]


def _per_sample(w: Tensor, scale_in: Tensor, scale_out: Tensor | None) -> Tensor:
    """The weights of each sample, [N, O, I, k, k]."""
    weights = w * scale_in[:, None, :, None, None]
    return weights if scale_out is None else weights * scale_out[:, :, None, None, None]


def _scales(w: Tensor, s: Tensor, demodulate: bool, input_gain: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weights [O, I, k, k] for all samples, and what scales their inputs [N, I] and outputs [N, O] (None: nothing)."""
    scale_out: Tensor | None = None
    if demodulate:
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()
        energy = s.square() @ w.square().sum([2, 3]).t()
        scale_out = (energy + 1e-8).rsqrt()
    return w, s if input_gain is None else s * input_gain.expand_as(s), scale_out


def modulated_conv2d_into(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    y: Tensor,
    padding: int = 0,
    input_gain: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """`modulated_conv2d`, demodulated and without a derivative, into `y` [N, O, H', W'], which may not overlap `x`."""
    for image, weights, out in zip(x, _per_sample(*_scales(w, s, True, input_gain)), y, strict=True):
        _convolve_into(image[None], weights, padding, out[None], dtype)


def convolve(x: Tensor, w: Tensor, padding: int = 0) -> Tensor:
    """`F.conv2d` of `x` [N, I, H, W] with `w` [O, I, k, k], square padding; large ones on a CPU in little memory."""
    n, channels, height, width = x.shape
    outputs, _, k, _ = w.shape
    size, across = height + 2 * padding - k + 1, width + 2 * padding - k + 1
    if x.device.type != "cpu" or 4 * n * (channels * height * width + outputs * size * across) < LARGE:
        return F.conv2d(x, w, padding=padding)
    if torch.is_grad_enabled():
        if k == 1 and not padding:  # a plain product of matrices, also in the backward pass
            return torch.bmm(w[:, :, 0, 0].expand(n, -1, -1), x.flatten(2)).view(n, outputs, height, width)
        return F.conv2d(x, w, padding=padding)
    y = x.new_empty(n, outputs, size, across)
    _strips(x, w, padding, y)
    return y


def _convolve_into(x: Tensor, w: Tensor, padding: int, y: Tensor, dtype: torch.dtype | None) -> None:
    """A large convolution into `y`: through the compiled kernel where that does it."""
    kernel = dtype is None and cpu_convolution.covers(x, w)
    if kernel and w.shape[2:] == (1, 1) and not padding:
        cpu_convolution.pointwise_into(w[None, :, :, 0, 0].expand(len(x), -1, -1), x.flatten(2), y.flatten(2))
    elif kernel and w.shape[2:] == (3, 3):
        cpu_convolution.conv3_into(w, x, y, padding)
    else:
        _strips(x, w, padding, y, dtype)


def _strips(x: Tensor, w: Tensor, padding: int, y: Tensor, dtype: torch.dtype | None = None) -> None:
    """The convolution in strips of rows, which are small enough to be copied to another layout and back."""
    n, channels, height, width = x.shape
    k, size = w.shape[2], y.shape[2]
    if k == 1 and not padding and dtype is None:  # a product needs no other layout
        for image, result in zip(x.flatten(2), y.flatten(2), strict=True):
            torch.mm(w[:, :, 0, 0], image, out=result)
        return
    w = w if dtype is None else w.to(dtype)
    rows = max(1, STRIP // (4 * n * max(channels, w.shape[0]) * width))
    for top in range(0, size, rows):
        bottom = min(top + rows, size)
        first, last = top - padding, bottom - padding + k - 1  # the rows of x it takes; those outside are zero
        strip = x[:, :, max(first, 0) : min(last, height)].to(w.dtype)
        strip = F.pad(strip, (padding, padding, max(-first, 0), max(last - height, 0)))
        if k == 1:  # in half precision a product is twice as fast as a convolution
            y[:, :, top:bottom] = torch.unflatten(w[:, :, 0, 0] @ strip.flatten(2), 2, strip.shape[2:])
        else:
            y[:, :, top:bottom] = F.conv2d(strip, w)


def _only_style_needs_grad(x: Tensor, w: Tensor, s: Tensor) -> bool:
    """True if scaling the activations saves the whole weight gradient in the backward pass."""
    return torch.is_grad_enabled() and (s.requires_grad or x.requires_grad) and not w.requires_grad
