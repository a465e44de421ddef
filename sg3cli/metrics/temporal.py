"""Temporal figures of an edited clip: steadiness, identity over time, the seam of the paste."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np


def jitter(landmarks: np.ndarray, times: np.ndarray) -> float:
    """Mean size of the landmarks' acceleration, in pixels per second squared.

    `landmarks [T, P, 2]`, `times [T]` in seconds, not necessarily evenly spaced; nan below three frames.
    """
    if len(times) < 3:
        return float("nan")
    return float(accelerations(landmarks, times).mean())


def accelerations(landmarks: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Mean size of the landmarks' acceleration at each frame but the first and last, `[T-2]`; see `jitter`."""
    steps = np.diff(times)[:, None, None]
    velocity = np.diff(landmarks, axis=0) / steps
    between = ((steps[1:] + steps[:-1]) / 2).astype(np.float64)
    return np.asarray(np.linalg.norm(np.diff(velocity, axis=0) / between, axis=-1).mean(axis=-1))


def identity_consistency(source: np.ndarray, edited: np.ndarray) -> tuple[float, float]:
    """TL-ID and TG-ID of STIT (Tzaban et al. 2022): (local, global), about 1 when as constant as the source.

    `source`, `edited` are identity embeddings `[T, D]` of the same frames. Local compares adjacent frames,
    global all pairs; both are the mean over pairs of the ratio edited similarity / source similarity.
    """
    if len(source) < 2 or source.shape[0] != edited.shape[0]:
        return float("nan"), float("nan")
    s, e = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (source, edited))
    ratio = (e @ e.T) / (s @ s.T)
    local = np.diagonal(ratio, offset=1)
    return float(local.mean()), float(ratio[np.triu_indices(len(ratio), k=1)].mean())


def flicker(source: Sequence[np.ndarray], edited: Sequence[np.ndarray]) -> float:
    """How much more (or less) the edited clip changes from frame to frame than the source, in grey levels.

    Mean over adjacent frames of | |e(t+1) - e(t)| - |s(t+1) - s(t)| |, each difference averaged over the
    frame: tLPIPS with an absolute difference in place of LPIPS.
    """
    if len(source) != len(edited):
        raise ValueError(f"lengths differ: {len(source)} and {len(edited)}")
    if len(source) < 2:
        return float("nan")
    return float(np.abs(_changes(edited) - _changes(source)).mean())


def _changes(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Mean absolute difference of adjacent frames, `[T-1]`."""
    pairs = pairwise(frames)
    return np.array([np.abs(b.astype(np.float32) - a.astype(np.float32)).mean() for a, b in pairs])


def seam_error(source: np.ndarray, result: np.ndarray, alpha: np.ndarray) -> float:
    """Gradient mismatch on the ring where the paste fades out (0 < alpha < 1), in grey levels per pixel.

    `source`, `result [H, W, 3]`, `alpha [H, W]`; nan when there is no ring.
    """
    d = result.astype(np.float32) - source.astype(np.float32)
    gradient = np.hypot(np.gradient(d, axis=0), np.gradient(d, axis=1)).mean(axis=-1)
    ring = (alpha > 0) & (alpha < 1)
    return float(gradient[ring].mean()) if ring.any() else float("nan")


def outside_difference(source: np.ndarray, result: np.ndarray, alpha: np.ndarray) -> int:
    """Largest absolute difference of two uint8 frames where alpha is 0; a paste must give 0."""
    outside = alpha == 0
    if not outside.any():
        return 0
    return int(np.abs(result[outside].astype(np.int16) - source[outside].astype(np.int16)).max())
