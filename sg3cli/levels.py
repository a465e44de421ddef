"""Between the levels of images, 0 to 255, and the range of the networks, [-1, 1]: one function each way and kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

HALF = 127.5  # levels from black or white to the middle


def to_signed(levels: np.ndarray) -> np.ndarray:
    """Levels of any type as float32 in [-1, 1]."""
    return levels.astype(np.float32) / HALF - 1


def to_levels(signed: np.ndarray) -> np.ndarray:
    """Values in [-1, 1] as levels of the same type, clipped and not rounded."""
    return np.clip((signed + 1) * HALF, 0, 255)


def to_uint8(signed: np.ndarray) -> np.ndarray:
    """Values in [-1, 1] as levels, clipped and rounded."""
    result: np.ndarray = np.rint(to_levels(signed)).astype(np.uint8)
    return result


def tensor_to_signed(levels: Tensor) -> Tensor:
    """`to_signed` of a tensor; strides are kept."""
    return levels.float().div(HALF).sub_(1)


def tensor_to_uint8(signed: Tensor) -> Tensor:
    """`to_uint8` of a tensor; strides are kept."""
    import torch

    return ((signed + 1) * HALF).round().clamp(0, 255).to(torch.uint8)
