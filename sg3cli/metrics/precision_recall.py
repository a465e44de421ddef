"""Precision and recall of drawn images (Kynkäänniemi et al. 2019): what share looks real, and what share of the real
is drawn at all.

A set's manifold is the union of balls around its features, each of which reaches to the k-th nearest other feature.
"""

from __future__ import annotations

import numpy as np

NEIGHBOURS = 3
ROWS = 2048  # features whose distances to all others are held at once


def precision_recall(real: np.ndarray, drawn: np.ndarray, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """(precision, recall) of features [N,K] and [M,K], each of more than `neighbours` rows."""
    return inside(drawn, real, neighbours), inside(real, drawn, neighbours)


def inside(points: np.ndarray, manifold: np.ndarray, neighbours: int = NEIGHBOURS) -> float:
    """Share of `points` [N,K] that lie in a ball of `manifold` [M,K]."""
    if len(manifold) <= neighbours:
        raise ValueError(f"{len(manifold)} features are too few for {neighbours} neighbours")
    centre = manifold.mean(axis=0)  # distances lose less to rounding around it
    points, manifold = points - centre, manifold - centre
    radii = np.concatenate(
        [np.partition(part, neighbours, axis=1)[:, neighbours] for part in _squared(manifold, manifold)]
    )  # the smallest is that to itself
    found = [(part <= radii[None] + 1e-9 * radii.max()).any(axis=1) for part in _squared(points, manifold)]
    return float(np.concatenate(found).mean())


def _squared(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    """Squared distances of rows a [N,K] to rows b [M,K], `ROWS` of them in each part."""
    lengths = np.square(b).sum(axis=1)
    parts = [a[first : first + ROWS] for first in range(0, len(a), ROWS)]
    return [(np.square(p).sum(axis=1)[:, None] - 2 * p @ b.T + lengths).clip(min=0) for p in parts]
