"""How well a frame agrees with the one before it, moved along the source's motion, where nothing came into view."""

from __future__ import annotations

import cv2
import numpy as np

SHARE, SLACK = 0.01, 0.5  # of both motions' squares, and in squared pixels: more disagreement is an occlusion


def warped(values: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`values [H, W, C]` float32 fetched from x + `flow [H, W, 2]` (pixels) for every x; the border is repeated."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    place = (x + flow[..., 0], y + flow[..., 1])
    moved: np.ndarray = cv2.remap(values, *place, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved


def visible(flow: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Where `[H, W]` bool the motion `flow [H, W, 2]` is undone by `back` (Sundaram et al. 2010, equation 5).

    Elsewhere something came into view, and the frame before says nothing about it.
    """
    returned = warped(back, flow)
    apart = np.square(flow + returned).sum(axis=2)
    return np.asarray(apart < SHARE * (np.square(flow).sum(axis=2) + np.square(returned).sum(axis=2)) + SLACK)


def warping_error(before: np.ndarray, after: np.ndarray, flow: np.ndarray, seen: np.ndarray) -> float:
    """Mean squared difference, in shares of the range, of `after [H, W, 3]` (levels) and `before` moved by `flow`,
    where `seen [H, W]` (Lai et al. 2018, equation 8); nan where nothing is seen."""
    if not seen.any():
        return float("nan")
    difference = (after.astype(np.float32) - warped(before.astype(np.float32), flow)) / 255
    return float(np.square(difference).mean(axis=2)[seen].mean())
