"""Source and result beside each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sg3cli.drawing.text import with_caption

if TYPE_CHECKING:
    pass


def compare_view(source: np.ndarray, result: np.ndarray, captions: tuple[str, str] | None = None) -> np.ndarray:
    """Source and result side by side, `[H, W, 3]` each -> `[H, 2W, 3]`; `captions` are written into their corners."""
    if source.shape != result.shape:
        raise ValueError(f"shapes differ: {source.shape} and {result.shape}")
    sides = [source, result]
    if captions is not None:
        sides = [with_caption(image, text) for image, text in zip(sides, captions, strict=True)]
    return np.concatenate(sides, axis=1)
