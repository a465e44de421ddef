"""KID (Binkowski et al. 2018): squared maximum mean discrepancy of two sets of features, without bias at any size."""

from __future__ import annotations

import numpy as np

SUBSET, SUBSETS = 1000, 100  # features of each side in a draw, and draws


def kernel_distance(
    a: np.ndarray, b: np.ndarray, subset: int = SUBSET, subsets: int = SUBSETS, seed: int = 0
) -> tuple[float, float | None]:
    """(mean, standard deviation over the draws) of features a [N,K] and b [M,K]; 0 is expected of equal distributions.

    The kernel is (x.y / K + 1)^3. Where a set has fewer rows than `subset`, as many as the smaller has are drawn; where
    that is all of both there is one draw, and no deviation.
    """
    size = min(subset, len(a), len(b))
    if size < 2:
        raise ValueError(f"{size} features on a side are too few")
    rng, found = np.random.default_rng(seed), []
    draws = 1 if size == len(a) == len(b) else subsets
    for _ in range(draws):
        found.append(discrepancy(*(x[rng.choice(len(x), size, replace=False)] for x in (a, b))))
    return float(np.mean(found)), float(np.std(found)) if draws > 1 else None


def discrepancy(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased estimate from features a and b, both [n,K]: no feature is compared with itself."""
    count, width = a.shape
    within = 0.0
    for x in (a, b):
        table = (x @ x.T / width + 1) ** 3
        within += (table.sum() - np.trace(table)) / (count * (count - 1))
    return float(within - 2 * ((a @ b.T / width + 1) ** 3).mean())
