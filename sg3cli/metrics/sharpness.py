"""How sharp a picture is, and how a clip trembles, against the same of the source."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np


def sharpness(image: np.ndarray, mask: np.ndarray) -> float:
    """Variance of the Laplacian of the grey levels of `image [H, W, 3]` where `mask [H, W]` is above a half; nan
    without such a pixel."""
    inside = mask > 0.5
    grey = image.astype(np.float32).mean(axis=2)
    return float(cv2.Laplacian(grey, cv2.CV_32F)[inside].var()) if inside.any() else float("nan")


def unrest(before: np.ndarray, after: np.ndarray, flow: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute difference in levels of two frames in a row `[H, W, 3]`, the first one moved by `flow [H, W, 2]`
    (pixels: what is at x in `after` is at x + flow in `before`), where `mask [H, W]` is above a half."""
    height, width = mask.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    values = before.astype(np.float32)
    moved = cv2.remap(values, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = mask > 0.5
    return float(np.abs(after - moved).mean(axis=2)[inside].mean()) if inside.any() else float("nan")


def frame_flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Motion `[H, W, 2]` in pixels between two frames in a row `[H, W, 3]` uint8, as `unrest` takes it."""
    start, to = (cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (after, before))
    search: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow: np.ndarray = search.calc(start, to, None)
    return flow
