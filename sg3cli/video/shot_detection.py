"""Hard cuts: where a clip jumps to another shot. Nothing is followed, smoothed or bridged across one."""

from __future__ import annotations

import cv2
import numpy as np

THUMB = (16, 9)  # width, height of the small image that stands for a frame
JUMP = 10.0  # mean difference, in levels of 8-bit Lab, that a cut shows at least
CONTRAST = 3.0  # a cut differs so many times more than the frames beside it do
NEAR = 3  # frames on each side that say how much the shot itself changes
FLASH = 2  # frames for which a flash may last: what looks the same before and after is one shot


def thumbnail(rgb: np.ndarray) -> np.ndarray:
    """The frame `[H, W, 3]` uint8 as `[9, 16, 3]` uint8 in Lab."""
    return cv2.cvtColor(cv2.resize(rgb, THUMB, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean difference in levels of thumbnails `[..., 9, 16, 3]`."""
    return np.abs(a.astype(np.float32) - b).mean(axis=(-3, -2, -1))


def find_shots(thumbs: np.ndarray) -> np.ndarray:
    """Shot number `[T]` int32 of each frame, counted from 0; `thumbs [T, 9, 16, 3]`."""
    count = len(thumbs)
    cuts = np.zeros(count, bool)
    steps = difference(thumbs[1:], thumbs[:-1])  # steps[k] lies between the frames k and k + 1
    for k in np.flatnonzero(steps >= JUMP).tolist():
        beside = np.concatenate([steps[max(k - NEAR, 0) : k], steps[k + 1 : k + 1 + NEAR]])
        usual = np.median(beside) if len(beside) else 0.0
        if steps[k] < CONTRAST * usual or _is_flash(thumbs, k):
            continue
        cuts[k + 1] = True
    return np.cumsum(cuts).astype(np.int32)


def _is_flash(thumbs: np.ndarray, k: int) -> bool:
    """Whether the jump after frame k is the start or the end of a flash: its two sides look alike."""
    step = difference(thumbs[k + 1], thumbs[k])
    after = thumbs[k + 2 : k + 2 + FLASH]
    before = thumbs[max(k - FLASH, 0) : k]
    alike = [*difference(after, thumbs[k]), *difference(before, thumbs[k + 1])]
    return bool(alike) and min(alike) < step / CONTRAST
