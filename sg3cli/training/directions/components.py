"""Directions without labels: the main axes along which a generator's codes differ (GANSpace, Harkonen et al. 2020)."""

from __future__ import annotations

import numpy as np

from sg3cli.training.directions.fit import Fitted


def principal_directions(codes: np.ndarray, count: int) -> list[Fitted]:
    """codes [N, w_dim] -> `pc1`, `pc2`, ...: axes of largest variance, strength 1 is one standard deviation along each.

    The sign is free; the entry of largest size is made positive, so that the same codes give the same directions.
    """
    centred = codes.astype(np.float64) - codes.mean(0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(codes))
    order = np.argsort(variances)[::-1][: min(count, len(variances), len(codes) - 1)]
    found = []
    for number, place in enumerate(order, start=1):
        axis = axes[:, place]
        axis = axis * np.sign(axis[np.argmax(np.abs(axis))])
        share = float(variances[place] / variances.sum())
        report = {"n": len(codes), "method": "pca", "variance_explained": share}
        unit = "one standard deviation of the codes along it"
        found.append(Fitted(f"pc{number}", axis, float(np.sqrt(variances[place].clip(min=0))), unit, None, report))
    return found
