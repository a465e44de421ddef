"""Crops of frames: through the aligned square, and through the window that the face is seen through."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from sg3cli.faces.alignment import ABSENT, Track
from sg3cli.geometry import warp_quad
from sg3cli.levels import to_signed

if TYPE_CHECKING:
    from sg3cli.video import Frame


def aligned_crops(frames: Iterable[Frame], track: Track, size: int) -> Iterator[np.ndarray | None]:
    """The aligned face of each frame, `[size, size, 3]` float32 in [-1, 1]; None where there is no face."""
    return _crops(frames, track, track.quads, size)


def window_crops(frames: Iterable[Frame], track: Track, size: int) -> Iterator[np.ndarray | None]:
    """What is seen through the window of each frame (the face unaligned), as `aligned_crops`."""
    return _crops(frames, track, track.windows, size)


def _crops(frames: Iterable[Frame], track: Track, quads: np.ndarray, size: int) -> Iterator[np.ndarray | None]:
    for frame in frames:
        if track.status[frame.index] == ABSENT:
            yield None
        else:
            levels = warp_quad(frame.rgb, quads[frame.index], size)
            yield to_signed(levels)
