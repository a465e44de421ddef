"""A Gaussian of many pixels at the price of one of few."""

from __future__ import annotations

import cv2
import numpy as np

COARSE = 2.0  # pixels of a Gaussian that are still computed; what is wider is, on a smaller picture


def wide_blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """`image [h, w]` or `[h, w, C]` float32 under a Gaussian of `sigma` pixels, to a hundredth of its contrast."""
    factor = int(sigma / COARSE)
    height, width = image.shape[:2]
    if factor < 2 or min(height, width) < 4 * factor:
        plain: np.ndarray = cv2.GaussianBlur(image, (0, 0), sigma)
        return plain
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = cv2.GaussianBlur(cv2.resize(image, size, interpolation=cv2.INTER_AREA), (0, 0), sigma / factor)
    result: np.ndarray = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    return result
