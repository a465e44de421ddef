"""How fast, and how far, images change along straight paths of a latent space.

PPL (Karras et al. 2019, 2020): the perceptual distance of the images at the start of a path and a little further, over
the square of that little, because such distances are squares themselves. The length of a whole path is the sum over
pieces of the distances' roots; with ever more pieces it goes to the length of the curve that the images draw.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

EPSILON = 1e-4  # share of the path between the two images of PPL
TRIMMED = 0.01  # share of the paths that is left out at each end

Draw = Callable[[np.ndarray], Tensor]  # points [n, ...] -> images [n, 3, R, R]
Distance = Callable[[Tensor, Tensor], Tensor]  # two batches of images -> [n]


def between(a: np.ndarray, b: np.ndarray, share: float, spherical: bool = False) -> np.ndarray:
    """Points [n, ...] that lie `share` of the way from `a` to `b`; `spherical`: along the great circle, as noise does.

    On the way between vectors of different lengths the length changes evenly.
    """
    if not spherical:
        return np.asarray(a + share * (b - a))
    flat_a, flat_b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    long_a, long_b = (np.linalg.norm(x, axis=1, keepdims=True).clip(min=1e-12) for x in (flat_a, flat_b))
    unit_a, unit_b = flat_a / long_a, flat_b / long_b
    angle = np.arccos((unit_a * unit_b).sum(axis=1, keepdims=True).clip(-1, 1))
    aside = unit_b - np.cos(angle) * unit_a
    aside = aside / np.linalg.norm(aside, axis=1, keepdims=True).clip(min=1e-12)
    direction = np.cos(share * angle) * unit_a + np.sin(share * angle) * aside
    return np.asarray(((1 - share) * long_a + share * long_b) * direction, a.dtype).reshape(a.shape)


def speeds(
    draw: Draw, distance: Distance, a: np.ndarray, b: np.ndarray, spherical: bool = False, epsilon: float = EPSILON
) -> np.ndarray:
    """[n]: squared perceptual speed at the start of each path from `a` to `b`, both [n, ...]."""
    images = draw(a), draw(between(a, b, epsilon, spherical))
    return distance(*images).double().cpu().numpy() / epsilon**2


def lengths(
    draw: Draw, distance: Distance, a: np.ndarray, b: np.ndarray, pieces: int, spherical: bool = False
) -> np.ndarray:
    """[n]: length of each whole path, the sum of the roots of the distances over `pieces`."""
    total, before = np.zeros(len(a)), draw(a)
    for k in range(1, pieces + 1):
        after = draw(between(a, b, k / pieces, spherical))
        total += distance(before, after).double().clamp(min=0).sqrt().cpu().numpy()
        before = after
    return total


def trimmed_mean(values: np.ndarray, share: float = TRIMMED) -> float:
    """Mean of [n] without what lies below the lowest and above the highest `share`."""
    low, high = np.quantile(values, share, method="lower"), np.quantile(values, 1 - share, method="higher")
    return float(values[(values >= low) & (values <= high)].mean())
