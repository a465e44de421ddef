"""Adaptive discriminator augmentation (Karras et al. 2020, arXiv 2006.06676): few images without over-fitting.

Real and drawn images go through the same random transforms, each of which is left out with probability 1 - p. Below
p = 0.8 the generator can undo what they do to the distribution of images, so none of it leaks (their section 2.2).
Transforms: mirror, quarter turns, whole-pixel and fractional shifts, scaling in one and two directions, rotation
(their figure 4a, "pixel blitting" and "geometric"), brightness, contrast, luma flip, hue, saturation ("color").
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

P_MAX = 0.8  # the most that does not leak
SHIFT, SCALE, CONTRAST, BRIGHTNESS = 0.125, 0.2, 0.5, 0.2  # appendix B
LUMA = torch.full((3,), 3**-0.5)  # the axis of greys


class Transforms(NamedTuple):
    """For N images: where each looks, [N,2,3] in coordinates of `affine_grid`, and its colours, [N,3,4]."""

    places: Tensor
    colours: Tensor


def draw_transforms(count: int, p: float, size: int, rng: torch.Generator) -> Transforms:
    """Random transforms for `count` images of `size` pixels, each applied with probability p."""
    return Transforms(_places(count, p, size, rng)[:, :2], _colours(count, p, rng)[:, :3])


def apply_transforms(x: Tensor, transforms: Transforms) -> Tensor:
    """x [N,3,R,R] in [-1,1] -> the same shape; differentiable. What lies outside is the mirrored image.

    Sampled at twice the resolution and averaged, so that shrinking does not alias.
    """
    n, channels, size = len(x), x.shape[1], x.shape[-1]
    grid = F.affine_grid(transforms.places.to(x), [n, channels, 2 * size, 2 * size], align_corners=False)
    x = F.avg_pool2d(F.grid_sample(x, grid, padding_mode="reflection", align_corners=False), 2)
    colours = transforms.colours.to(x)
    return torch.einsum("nij,njhw->nihw", colours[:, :, :3], x) + colours[:, :, 3, None, None]


def next_p(p: float, sign: float, target: float, images: int, kimg: float) -> float:
    """p after `images` more: up when the discriminator is sure of the real ones (their r_t), else down.

    sign: mean of sign(D(real)); from 0 to 1 takes `kimg` thousand images.
    """
    return min(max(p + math.copysign(images / (kimg * 1000), sign - target), 0.0), P_MAX)


def _places(n: int, p: float, size: int, rng: torch.Generator) -> Tensor:
    """[N,3,3] from a place in the result to the place in the source; both run over [-1,1]."""
    normal, uniform, chosen = _draws(n, rng)
    G = _flat(torch.where(chosen(p) & (uniform() < 0.5), -1.0, 1.0), torch.ones(n))
    G = _turn((uniform() * 4).floor() * (math.pi / 2) * chosen(p)) @ G
    whole = torch.stack([((uniform() * 2 - 1) * SHIFT * size).round() * 2 / size for _ in range(2)])
    G = _shift(*(whole * chosen(p))) @ G
    scale = (normal() * SCALE * math.log(2)).exp()
    scale = torch.where(chosen(p), scale, 1.0)
    G = _flat(scale, scale) @ G
    turning = 1 - math.sqrt(1 - p)  # two chances to be turned, together p
    G = _turn((uniform() * 2 - 1) * math.pi * chosen(turning)) @ G
    stretch = torch.where(chosen(p), (normal() * SCALE * math.log(2)).exp(), 1.0)
    G = _flat(stretch, 1 / stretch) @ G
    G = _turn((uniform() * 2 - 1) * math.pi * chosen(turning)) @ G
    moved = chosen(p)
    return _shift(normal() * SHIFT * 2 * moved, normal() * SHIFT * 2 * moved) @ G


def _colours(n: int, p: float, rng: torch.Generator) -> Tensor:
    """[N,4,4] from RGB1 to RGB1."""
    normal, uniform, chosen = _draws(n, rng)
    C = torch.eye(4).expand(n, 4, 4).clone()
    C[:, :3, 3] = (normal() * BRIGHTNESS * chosen(p))[:, None]
    contrast = torch.where(chosen(p), (normal() * CONTRAST * math.log(2)).exp(), 1.0)
    C = torch.diag_embed(torch.stack([contrast] * 3 + [torch.ones(n)], 1)) @ C
    grey = torch.outer(LUMA, LUMA)
    flipped = (chosen(p) & (uniform() < 0.5)).float()[:, None, None]
    C = _affine(torch.eye(3) - 2 * grey * flipped) @ C
    C = _affine(_about_luma((uniform() * 2 - 1) * math.pi * chosen(p))) @ C
    saturation = torch.where(chosen(p), (normal() * math.log(2)).exp(), 1.0)[:, None, None]
    return _affine(grey + (torch.eye(3) - grey) * saturation) @ C


def _draws(n: int, rng: torch.Generator):  # type: ignore[no-untyped-def]  # noqa: ANN202 (three closures over n and rng)
    return (
        lambda: torch.randn(n, generator=rng),
        lambda: torch.rand(n, generator=rng),
        lambda p: torch.rand(n, generator=rng) < p,
    )


def _flat(sx: Tensor, sy: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([sx, sy, torch.ones_like(sx)], 1))


def _shift(tx: Tensor, ty: Tensor) -> Tensor:
    M = torch.eye(3).expand(len(tx), 3, 3).clone()
    M[:, 0, 2], M[:, 1, 2] = tx, ty
    return M


def _turn(angle: Tensor) -> Tensor:
    M = torch.eye(3).expand(len(angle), 3, 3).clone()
    M[:, 0, 0], M[:, 0, 1], M[:, 1, 0], M[:, 1, 1] = angle.cos(), -angle.sin(), angle.sin(), angle.cos()
    return M


def _about_luma(angle: Tensor) -> Tensor:
    """[N,3,3] rotations of the colours about the axis of greys (Rodrigues)."""
    x, y, z = LUMA.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3) * cos + cross * sin + torch.outer(LUMA, LUMA) * (1 - cos)


def _affine(linear: Tensor) -> Tensor:
    M = torch.eye(4).expand(len(linear), 4, 4).clone()
    M[:, :3, :3] = linear
    return M
