"""Sums over an image's channels, and factors for all of them. numpy's, along so short an axis, take longer than a blur
of the image."""

from __future__ import annotations

import cv2
import numpy as np


def total(image: np.ndarray) -> np.ndarray:
    """The sum `[h, w]` of the channels of `image [h, w, C]` float32, C up to 4."""
    result: np.ndarray = cv2.transform(image, np.ones((1, image.shape[2]), np.float32))
    return result


def mean(image: np.ndarray) -> np.ndarray:
    """The mean `[h, w]` of the channels of `image [h, w, C]` float32, C up to 4."""
    return total(image) / np.float32(image.shape[2])


def length(vectors: np.ndarray) -> np.ndarray:
    """The lengths `[h, w]` of `vectors [h, w, C]` float32, C up to 4."""
    result: np.ndarray = cv2.sqrt(total(vectors * vectors))
    return result


def weighted(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum `[h, w]` of the channels of `image [h, w, C]` float32, C up to 4, each by one of `weights [C]`."""
    result: np.ndarray = cv2.transform(image, weights[None].astype(np.float32))
    return result


def scaled(image: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """`image [h, w, C]` float32, C up to 4, by a `factor [h, w]` for all channels alike."""
    result: np.ndarray = cv2.multiply(image, cv2.merge([factor.astype(np.float32)] * image.shape[2]))
    return result
