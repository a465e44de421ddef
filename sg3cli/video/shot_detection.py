"""Hard cuts: where a clip jumps to another shot. Nothing is followed, smoothed or bridged across one."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

THUMB = (16, 9)  # width, height of the small image that stands for a frame
JUMP = 10.0  # mean difference, in levels of 8-bit Lab, that a cut shows at least
CONTRAST = 3.0  # a cut differs so many times more than the frames beside it do
CALM_JUMP = 4.0  # levels that do if the frames beside it hardly change: a cut within one scene
CALM_CONTRAST = 10.0  # times more than any of these
STILL = 0.1  # levels: what changes less does not change
JOIN_JUMP = 1.0  # levels that do where files were joined
SLACK = 2  # frames by which a join may lie elsewhere than the packets say
NEAR = 3  # frames on each side that say how much the shot itself changes
FLASH = 2  # frames for which a flash may last: what looks the same before and after is one shot


def thumbnail(rgb: np.ndarray) -> np.ndarray:
    """The frame `[H, W, 3]` uint8 as `[9, 16, 3]` uint8 in Lab."""
    return cv2.cvtColor(cv2.resize(rgb, THUMB, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean difference in levels of thumbnails `[..., 9, 16, 3]`."""
    return np.abs(a.astype(np.float32) - b).mean(axis=(-3, -2, -1))


def find_shots(thumbs: np.ndarray, joins: Sequence[int] = ()) -> np.ndarray:
    """Shot number `[T]` int32 of each frame, counted from 0; `thumbs [T, 9, 16, 3]`, `joins`: frames at or near which
    another file may begin."""
    count = len(thumbs)
    cuts = np.zeros(count, bool)
    steps = difference(thumbs[1:], thumbs[:-1])  # steps[k] lies between the frames k and k + 1
    for k in np.flatnonzero(steps >= CALM_JUMP).tolist():
        if _stands_out(steps, k) and not _is_flash(thumbs, k):
            cuts[k + 1] = True
    for join in joins:
        near = np.arange(max(join - 1 - SLACK, 0), min(join + SLACK, count - 1))
        k = int(near[steps[near].argmax()]) if len(near) else 0
        if len(near) and steps[k] >= max(JOIN_JUMP, CONTRAST * float(np.median(_beside(steps, k)))):
            cuts[k + 1] = True
    return np.cumsum(cuts).astype(np.int32)


def _stands_out(steps: np.ndarray, k: int) -> bool:
    """Whether the step after frame k is so much more than those beside it that it is a cut, or a flash."""
    beside = _beside(steps, k)
    if steps[k] >= JUMP:
        return bool(steps[k] >= CONTRAST * np.median(beside))
    return bool(steps[k] >= CALM_CONTRAST * max(STILL, float(beside.max())))


def is_abrupt(step: float, before: Sequence[float]) -> bool:
    """Whether a step, seen beside those `before` it alone, may be a cut."""
    calm = step >= CALM_JUMP and len(before) > 0 and step >= CALM_CONTRAST * max(STILL, *before)
    return step >= JUMP or calm


def _beside(steps: np.ndarray, k: int) -> np.ndarray:
    """The steps near that after frame k; zero where there are none."""
    beside = np.concatenate([steps[max(k - NEAR, 0) : k], steps[k + 1 : k + 1 + NEAR]])
    return beside if len(beside) else np.zeros(1, np.float32)


def _is_flash(thumbs: np.ndarray, k: int) -> bool:
    """Whether the jump after frame k is the start or the end of a flash: its two sides look alike."""
    step = difference(thumbs[k + 1], thumbs[k])
    after = thumbs[k + 2 : k + 2 + FLASH]
    before = thumbs[max(k - FLASH, 0) : k]
    alike = [*difference(after, thumbs[k]), *difference(before, thumbs[k + 1])]
    return bool(alike) and min(alike) < step / CONTRAST
