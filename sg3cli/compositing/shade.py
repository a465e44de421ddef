"""How deep an edit's shadows may be: as deep as the face's own contrast allows, softly.

    r = log(b(Q) / b(P))        t = r / (1 + (r / L)^4)^(1/4)        R = (Q + e) exp(t - r) - e

P, Q: drawings without and with the edit, b: lightness over a small area, L: a share of how much the logarithm of the
plain face's lightness varies. A direction adds the same folds to every face; on one in haze, whose own shadows are
faint, they came out as black smears from the nose to the chin. What is smaller than an area is left as it is drawn.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from sg3cli.compositing.hue import DARK, REC601, as_large_as, blurred, in_the_hue_of, on_grid
from sg3cli.levels import HALF, tensor_to_signed, tensor_to_uint8

AREA = 1 / 64  # standard deviation of an area, as a share of the face square
CONTRAST = 0.65  # of the face's own, what an edit may add to one place
LEAST = 0.03  # of that contrast: a picture without any is not held to the bit


def in_the_shade_of(plain: Tensor, edited: Tensor, side: int | None = None) -> Tensor:
    """Drawings `edited [N,3,H,W]` in [-1,1], nowhere much darker or lighter than `plain`; equal ones to the bit.

    `side`: pixels of the face square, where the drawings are expanded and show more.
    """
    side = side or plain.shape[-1]
    small, scale = on_grid((plain, edited), side)
    before, after = (_logarithm(x, AREA * side * scale) for x in small)
    change, limit = after - before, CONTRAST * face_contrast(before, side * scale)
    allowed = change / (1 + (change / limit) ** 4) ** 0.25
    factor = as_large_as(edited, torch.expm1(allowed - change))
    return edited + factor * (edited + 1 + DARK / HALF)


def as_shown(plain: Tensor, edited: Tensor, kept: Collection[str]) -> Tensor:
    """Edited drawings `[N,3,R,R]` as footage shows them: what is `kept` (`weights.kept`) as `plain` has it."""
    shown = in_the_hue_of(plain, edited) if "hue" in kept else edited
    return in_the_shade_of(plain, shown) if "shade" in kept else shown


def images_in_the_shade_of(plain: np.ndarray, edited: np.ndarray, side: int) -> np.ndarray:
    """`in_the_shade_of` for one pair of drawings `[H, W, 3]` uint8."""
    before, after = (tensor_to_signed(torch.from_numpy(image)).permute(2, 0, 1)[None] for image in (plain, edited))
    held: np.ndarray = tensor_to_uint8(in_the_shade_of(before, after, side))[0].permute(1, 2, 0).contiguous().numpy()
    return held


def face_contrast(logarithm: Tensor, side: float) -> Tensor:
    """[N,1,1,1]: standard deviation of logarithms `[N,1,h,w]` inside the face, whose square has `side` pixels in the
    middle."""
    height, width = logarithm.shape[-2:]
    x, y = ((torch.arange(n, device=logarithm.device) + 0.5 - n / 2) / side for n in (width, height))
    inside = ((x[None, :] / 0.3).square() + ((y[:, None] - 0.08) / 0.36).square() < 0.7).to(logarithm.dtype)
    share = inside / inside.sum()
    mean = (logarithm * share).sum((2, 3), keepdim=True)
    variance = ((logarithm - mean).square() * share).sum((2, 3), keepdim=True)
    return variance.sqrt().clamp(min=LEAST)


def _logarithm(x: Tensor, sigma: float) -> Tensor:
    """[N,3,h,w] in [-1,1] -> [N,1,h,w]: logarithm of the lightness over areas, in levels above `DARK`."""
    luma = (x * x.new_tensor(REC601)[:, None, None]).sum(1, keepdim=True)
    levels = ((luma + 1) * HALF).clamp(0, 2 * HALF) + DARK
    return blurred(levels, sigma).log()
