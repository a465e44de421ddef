"""Conditional manipulation: a direction from which others have been projected out (InterFaceGAN, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sg3cli.errors import UsageError


def condition(direction: np.ndarray, conditions: Sequence[np.ndarray]) -> np.ndarray:
    """`direction` minus its least-squares projection on `conditions`, at its old length.

    All are `[rows, w_dim]` (or one row each); every row is projected on its own. With one unit condition c this is
    `n - (n.c)c`, with two the closed form of the paper. Raises `UsageError` when nothing is left.
    """
    out = np.empty_like(direction, dtype=np.float64)
    for row, vector in enumerate(direction.astype(np.float64)):
        basis = np.stack([c[row if len(c) > 1 else 0] for c in conditions], axis=1).astype(np.float64)  # [w_dim, k]
        weights = np.linalg.lstsq(basis, vector, rcond=None)[0]
        rest = vector - basis @ weights
        before, after = np.linalg.norm(vector), np.linalg.norm(rest)
        if after < 1e-6 * before:
            raise UsageError("the direction lies within its conditions", "condition on fewer directions")
        out[row] = rest * (before / after) if before > 0 else rest
    return out.astype(np.float32)
