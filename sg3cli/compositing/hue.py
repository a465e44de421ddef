"""The colour that an edit has no business with: an edited drawing in the hue that the face had.

    R = Q + (b(P) l(Q) / l(P) - b(Q))        b: colours over an area, l: their lightness

Lightness changes as the drawing says, and by one factor for all colours, which is what a shadow or a fold does to
skin; what is finer than an area, a lip's edge or an iris, stays as drawn. Directions that were fitted on people also
hold what those people's skin and light had in common, and it came out as orange cheeks and a green jaw.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.levels import HALF, tensor_to_signed, tensor_to_uint8

AREA = 1 / 32  # standard deviation of an area, as a share of the face square
GRID = 128  # pixels of the square at most; an area needs no more
DARK = 4.0  # levels added before a ratio
REC601 = (0.299, 0.587, 0.114)


def in_the_hue_of(plain: Tensor, edited: Tensor, side: int | None = None, area: float = AREA) -> Tensor:
    """Drawings `edited [N,3,H,W]` in [-1,1] with the hue of `plain`; equal drawings come back to the bit.

    `side`: pixels of the face square, where the drawings are expanded and show more; `area`: a share of that.
    """
    side = side or plain.shape[-1]
    small, scale = on_grid((plain, edited), side)
    before, after = (_over_areas(x, area * side * scale) for x in small)
    luma = plain.new_tensor(REC601)[:, None, None]
    factor = (after * luma).sum(1, keepdim=True) / (before * luma).sum(1, keepdim=True)
    correction = (before * factor - after) / HALF
    return edited + as_large_as(edited, correction)


def on_grid(images: Sequence[Tensor], side: int) -> tuple[list[Tensor], float]:
    """Drawings [N,3,H,W] whose face square has `side` pixels, with `GRID` at most, and by how much they were scaled."""
    scale = min(1.0, GRID / side)
    if scale == 1:
        return list(images), scale
    height, width = images[0].shape[-2:]
    grid = max(1, round(height * scale)), max(1, round(width * scale))
    return [F.adaptive_avg_pool2d(image, grid) for image in images], scale


def as_large_as(image: Tensor, small: Tensor) -> Tensor:
    """A map of the grid [N,C,h,w] at the size of `image [N,C,H,W]`."""
    size = image.shape[-2:]
    return small if small.shape[-2:] == size else F.interpolate(small, size=size, mode="bilinear", align_corners=False)


def images_in_the_hue_of(plain: np.ndarray, edited: np.ndarray, side: int) -> np.ndarray:
    """`in_the_hue_of` for one pair of drawings `[H, W, 3]` uint8."""
    before, after = (tensor_to_signed(torch.from_numpy(image)).permute(2, 0, 1)[None] for image in (plain, edited))
    kept: np.ndarray = tensor_to_uint8(in_the_hue_of(before, after, side))[0].permute(1, 2, 0).contiguous().numpy()
    return kept


def _over_areas(x: Tensor, sigma: float) -> Tensor:
    """Colours [N,3,h,w] in [-1,1] as levels above `DARK`, blurred."""
    return blurred(((x + 1) * HALF).clamp(0, 2 * HALF) + DARK, sigma)


def blurred(levels: Tensor, sigma: float) -> Tensor:
    """[N,C,h,w] under a Gaussian of `sigma` pixels; each edge is continued by itself."""
    reach = max(1, round(3 * sigma))
    place = torch.arange(-reach, reach + 1, dtype=levels.dtype, device=levels.device)
    taps = torch.exp(-0.5 * (place / sigma).square())
    channels = levels.shape[1]
    taps = (taps / taps.sum()).expand(channels, 1, 1, -1)
    levels = F.conv2d(F.pad(levels, (reach, reach, 0, 0), mode="replicate"), taps, groups=channels)
    return F.conv2d(F.pad(levels, (0, 0, reach, reach), mode="replicate"), taps.transpose(2, 3), groups=channels)
