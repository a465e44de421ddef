"""Up-sample, FIR filter and down-sample a batch of images: the differentiable reference in plain torch.

The definition is: insert up - 1 zeros after every sample, pad (or crop, if negative), convolve with the filter,
keep every down-th sample. It is computed without storing the zeros: up-sampling as a depthwise transposed
convolution, down-sampling as a strided depthwise one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Factor = int | Sequence[int]


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Factor = 1,
    down: Factor = 1,
    padding: Factor = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Resample `x` [N, C, H, W] with the filter `f` ([taps] separable, [h, w] full, None = identity).

    `up` and `down` are one factor or (x, y); `padding` is one number, (x, y) or (x0, x1, y0, y1) samples of the
    up-sampled image; a true convolution unless `flip_filter`; the result is multiplied by `gain`.
    """
    up_x, up_y = _pair(up)
    down_x, down_y = _pair(down)
    x0, x1, y0, y1 = parse_padding(padding)
    if f is None:
        f = x.new_ones([1, 1])
    f = f.to(x.dtype).to(x.device)
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    if f.ndim == 1:
        x = _resample(x, f[None, :] * gain, (up_x, 1), (down_x, 1), (x0, x1, 0, 0))
        return _resample(x, f[:, None], (1, up_y), (1, down_y), (0, 0, y0, y1))
    return _resample(x, f * gain, (up_x, up_y), (down_x, down_y), (x0, x1, y0, y1))


def _resample(x: Tensor, f: Tensor, up: tuple[int, int], down: tuple[int, int], pad: tuple[int, ...]) -> Tensor:
    """One pass with a full filter `f` [h, w]; `up`, `down` as (x, y), `pad` as (x0, x1, y0, y1)."""
    channels = x.shape[1]
    if up == (1, 1):
        weight = f.flip([0, 1]).expand(channels, 1, *f.shape)
        return F.conv2d(F.pad(x, pad), weight, stride=(down[1], down[0]), groups=channels)
    size_x, size_y = (
        n * u + before + after - taps + 1
        for n, u, before, after, taps in zip(
            (x.shape[3], x.shape[2]), up, pad[::2], pad[1::2], (f.shape[1], f.shape[0]), strict=True
        )
    )
    full = F.conv_transpose2d(x, f.expand(channels, 1, *f.shape), stride=(up[1], up[0]), groups=channels)
    # Sample 0 of the wanted range is sample taps - 1 - pad of the full convolution.
    left, top = pad[0] - f.shape[1] + 1, pad[2] - f.shape[0] + 1
    pads = (left, size_x - left - full.shape[3], top, size_y - top - full.shape[2])
    # Zeros first: what is cut off on one side may reach into what is added on the other.
    full = F.pad(F.pad(full, [max(p, 0) for p in pads]), [min(p, 0) for p in pads])
    return full[:, :, :: down[1], :: down[0]]


def setup_filter(
    f: Sequence[float] | Tensor,
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """Make a filter for `upfirdn2d` of a list of taps: 1-D short ones become full 2-D, long ones stay separable."""
    taps = torch.as_tensor(f, dtype=torch.float32)
    if taps.ndim == 0:
        taps = taps[None]
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= 8
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    y: Tensor = taps * gain ** (taps.ndim / 2)
    return y


def filter2d(x: Tensor, f: Tensor, padding: Factor = 0, flip_filter: bool = False, gain: float = 1) -> Tensor:
    """Filter `x` [N, C, H, W] at its own size; `padding` is added to the one that keeps the size."""
    h, w = _filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    keep = (x0 + w // 2, x1 + (w - 1) // 2, y0 + h // 2, y1 + (h - 1) // 2)
    return upfirdn2d(x, f, padding=keep, flip_filter=flip_filter, gain=gain)


def upsample2d(
    x: Tensor, f: Tensor, up: Factor = 2, padding: Factor = 0, flip_filter: bool = False, gain: float = 1
) -> Tensor:
    """Up-sample `x` [N, C, H, W] by `up`, amplitude preserved."""
    up_x, up_y = _pair(up)
    h, w = _filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    keep = (
        x0 + (w + up_x - 1) // 2,
        x1 + (w - up_x) // 2,
        y0 + (h + up_y - 1) // 2,
        y1 + (h - up_y) // 2,
    )
    return upfirdn2d(x, f, up=up, padding=keep, flip_filter=flip_filter, gain=gain * up_x * up_y)


def downsample2d(
    x: Tensor, f: Tensor, down: Factor = 2, padding: Factor = 0, flip_filter: bool = False, gain: float = 1
) -> Tensor:
    """Low-pass `x` [N, C, H, W] and keep every `down`-th sample."""
    down_x, down_y = _pair(down)
    h, w = _filter_size(f)
    x0, x1, y0, y1 = parse_padding(padding)
    keep = (
        x0 + (w - down_x + 1) // 2,
        x1 + (w - down_x) // 2,
        y0 + (h - down_y + 1) // 2,
        y1 + (h - down_y) // 2,
    )
    return upfirdn2d(x, f, down=down, padding=keep, flip_filter=flip_filter, gain=gain)


def parse_padding(padding: Factor) -> tuple[int, int, int, int]:
    """Expand one number, (x, y) or (x0, x1, y0, y1) to the last form."""
    if isinstance(padding, int):
        return (padding,) * 4
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    x0, x1, y0, y1 = padding
    return x0, x1, y0, y1


def _pair(factor: Factor) -> tuple[int, int]:
    """Expand one factor to (x, y)."""
    x, y = (factor, factor) if isinstance(factor, int) else factor
    if x < 1 or y < 1:
        raise ValueError(f"resampling factors must be at least 1, got {factor}")
    return x, y


def _filter_size(f: Tensor) -> tuple[int, int]:
    """Height and width of a full or separable filter."""
    return (f.shape[0], f.shape[0]) if f.ndim == 1 else (f.shape[0], f.shape[1])
