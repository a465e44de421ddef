"""How a mouth moves, where dense flow cannot see it.

Lips that are drawn wider have no texture to follow: flow takes a longer mouth for a darker cheek, and a smile became a
line beyond the source's lips. The face mesh of both drawings says where the corners went. It trembles by a pixel and
takes a beard for a moved lip, so it counts around the mouth alone, where it says much more than the flow.
"""

from __future__ import annotations

import cv2
import numpy as np

from sg3cli.compositing import channels
from sg3cli.compositing.optical_flow import GRID
from sg3cli.faces.drawn_mesh import LIPS

SPREAD = 3.0  # pixels of the grid over which one point's motion holds
REACH = (6.0, 8.0)  # pixels: how far around the lips, to the sides and up and down, motion counts in full; then fades
SURE = (1.0, 2.0)  # pixels by which it must differ from the flow's to count; to count in full
SMOOTH = 2.0  # pixels

Points = tuple[np.ndarray, np.ndarray]  # [468, 3] of the plain and of the edited drawing, pixels of the grid


def with_mouth(motion: np.ndarray, points: Points) -> np.ndarray:
    """`motion [h, w, 2]` (the edited drawing at x shows the plain one at x + motion, in units of `GRID` pixels) with
    that of the lips; itself where no point moved."""
    before, after = (mesh[:, :2] for mesh in points)
    if np.array_equal(before, after):
        return motion
    shape = motion.shape[:2]
    further = around_mouth(after[LIPS], shape)[..., None] * (spread(before - after, after, shape) / GRID - motion)
    length = channels.length(further)[..., None] * GRID
    share = np.clip((length - SURE[0]) / (SURE[1] - SURE[0]), 0, 1)
    result: np.ndarray = motion + cv2.GaussianBlur(_smooth_step(share) * further, (0, 0), SMOOTH)
    return result.astype(np.float32)


def spread(values: np.ndarray, at: np.ndarray, shape: tuple[int, int], over: float = SPREAD) -> np.ndarray:
    """`values [n, C]` of points `at [n, 2]` (pixels) as a smooth field `[h, w, C]`: each place has those near it,
    `over` so many pixels."""
    at, values = at.astype(np.float32), values.astype(np.float32)
    x, y = (np.arange(n, dtype=np.float32) + np.float32(0.5) for n in shape[::-1])
    column, row = (np.exp(-0.5 * ((line - at[:, k, None]) / np.float32(over)) ** 2) for k, line in ((0, x), (1, y)))
    rows = np.concatenate([row * one[:, None] for one in values.T] + [row], axis=1).T
    # cv2's product: numpy's runs on all cores, and waits for them where other work has them
    sums = cv2.gemm(rows, column, 1, None, 0).reshape(-1, *shape)
    result: np.ndarray = np.moveaxis(sums[:-1], 0, -1) / (sums[-1][..., None] + np.float32(1e-6))
    return result


def around_mouth(lips: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """0..1 `[h, w]`: an ellipse around points `lips [n, 2]`, 1 inside and fading over as much again."""
    low, high = lips.min(0), lips.max(0)
    x, y = (
        (np.arange(n) + 0.5 - centre) / (half + reach)
        for n, centre, half, reach in zip(shape[::-1], (low + high) / 2, (high - low) / 2, REACH, strict=True)
    )
    return _smooth_step(np.clip(2 - np.hypot(x[None, :], y[:, None]), 0, 1))


def _smooth_step(share: np.ndarray) -> np.ndarray:
    result: np.ndarray = share * share * (3 - 2 * share)
    return result
