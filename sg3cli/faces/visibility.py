"""Which frames show enough of a face to be edited: not in profile, not half outside the image.

A face that turns away or leaves is let go, and taken up again only when it is clearly back (hysteresis), so that
nothing flickers at the limit.
"""

from __future__ import annotations

import numpy as np

from sg3cli.smoothing import runs

YAW = (64.0, 70.0)  # degrees: back below the first, gone beyond the second
INSIDE = (0.75, 0.6)  # share of the landmarks in the frame: back above the first, gone below the second


def trusted(landmarks: np.ndarray, yaws: np.ndarray, present: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Frames `[T]` bool whose face can be edited.

    `landmarks [T, 68, 2]` and `yaws [T]` (degrees) where `present [T]`; `size` is (height, width) of the frame.
    """
    within = ((landmarks >= 0) & (landmarks <= size[::-1])).all(axis=-1).mean(axis=-1)
    good = _held(-np.abs(yaws), present, -YAW[0], -YAW[1])
    return good & _held(within, present, *INSIDE)


def hidden(boxes: np.ndarray, present: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Frames `[T]` bool in which a face that is not seen would lie behind another one.

    `boxes [T, 4]` of the face where it is `present [T]`, `others [T, F, 4]` of the other faces (nan: none).
    """
    frames = np.arange(len(boxes))
    known = np.flatnonzero(present)
    if len(known) == 0 or others.shape[1] == 0:
        return np.zeros(len(boxes), bool)
    expected = np.stack([np.interp(frames, known, boxes[known, k]) for k in range(4)], axis=1)[:, None]
    overlap = np.minimum(expected[..., 2:], others[..., 2:]) - np.maximum(expected[..., :2], others[..., :2])
    return ~present & (overlap > 0).all(axis=-1).any(axis=-1)  # comparisons with nan are false


def _held(values: np.ndarray, present: np.ndarray, back: float, gone: float) -> np.ndarray:
    """`present` without the stretches that begin where `values` fall below `gone` and end where they reach `back`."""
    good = present.copy()
    for run in runs(present):
        holding = values[run.start] >= gone
        for k in range(run.start, run.stop):
            holding = values[k] >= (gone if holding else back)
            good[k] = holding
    return good


def yaw_of_landmarks(landmarks: np.ndarray) -> float:
    """About how far `landmarks [68, 2]` are turned, in degrees, from how unevenly the nose parts the eyes."""
    left, right = landmarks[36:42].mean(axis=0), landmarks[42:48].mean(axis=0)
    nose = landmarks[27:31].mean(axis=0)
    across = right - left
    share = float((nose - (left + right) / 2) @ across) / max(float(across @ across), 1e-6)
    return float(np.degrees(np.arctan(2.2 * share)))


def yaw_of_axes(axes: np.ndarray) -> float:
    """Yaw in degrees from the head's axes `[3, 3]` as rows (x to the person's left, z away from the camera)."""
    x = axes[0]
    return float(np.degrees(np.arctan2(x[2], np.hypot(x[0], x[1]))))
