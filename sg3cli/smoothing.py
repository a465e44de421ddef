"""Smoothing over time without lag, and the repair of gaps and outliers.

Everything takes values `[T, ...]` with the time of each frame in seconds, so that variable frame rates are right.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

REACH = 4.0  # the Gaussian is cut off at this many sigmas
PAPER_KERNEL = np.array([0.25, 0.75, 1.0, 0.75, 0.25]) / 3  # Alaluf et al. 2022, latent codes and transforms
OUTLIER_RADIUS = 3  # frames on each side that a frame is compared with
WIDTHS = (1.0, 2.0, 4.0)  # times sigma: how far `smooth_adaptive` may look where nothing moves
DOUBT = 2.5  # standard deviations within which two estimates agree


def smooth_zero_phase(values: np.ndarray, times: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing of `values [T, ...]` at `times [T]` (seconds, ascending) with `sigma` in seconds.

    Each result is the value at its own time of the straight line that fits its neighbourhood best (Gaussian
    weights). In the middle of a regular clip that is the plain Gaussian filter; at the ends, and where frames are
    irregular, it neither lags nor flattens motion: straight lines stay what they are, constants to the bit.
    """
    values = np.asarray(values)
    if sigma <= 0 or len(values) < 2:
        return values.copy()
    rows = values.reshape(len(values), -1).astype(np.float64)
    smooth = np.empty_like(rows)
    for i, (near, weights) in enumerate(_line_weights(np.asarray(times, np.float64), sigma)):
        smooth[i] = rows[i] + weights @ (rows[near] - rows[i])
    return smooth.reshape(values.shape).astype(values.dtype)


def _line_weights(times: np.ndarray, sigma: float) -> Iterator[tuple[slice, np.ndarray]]:
    """For each frame its neighbours and their weights (sum 1) in the local linear fit."""
    first = np.searchsorted(times, times - REACH * sigma)
    last = np.searchsorted(times, times + REACH * sigma, side="right")
    for t, a, b in zip(times, first, last, strict=True):
        yield slice(a, b), line_weights(times[a:b], t, sigma)


def line_weights(times: np.ndarray, t: float, sigma: float) -> np.ndarray:
    """Weights `[T]` (sum 1) of the values at `times [T]` in the value at `t` of the line that fits them best there."""
    d = (times - t) / sigma
    w = np.exp(-0.5 * d * d)
    s0, s1, s2 = w.sum(), w @ d, w @ (d * d)
    determinant = s0 * s2 - s1 * s1
    if determinant > 1e-9 * s0 * s0:
        w = w * (s2 - s1 * d) / (determinant / s0)
    result: np.ndarray = w / s0  # a frame on its own stays as it is
    return result


def smooth_adaptive(values: np.ndarray, times: np.ndarray, sigma: float) -> np.ndarray:
    """`smooth_zero_phase` of `values [T, K]` that looks farther where the values rest than where they move.

    At each frame the widest of `WIDTHS` times `sigma` counts whose estimate still agrees, within the noise, with all
    narrower ones in every column (intersection of confidence intervals; Goldenshluger and Nemirovski 1997). A resting
    face is held still, a moving one is smoothed with `sigma` alone; neither lags.
    """
    values = np.asarray(values, np.float64)
    noise = noise_of(values)
    if sigma <= 0 or len(values) < 3 or not noise.any():
        return smooth_zero_phase(values, times, sigma)
    levels, low, high = [], np.full(values.shape, -np.inf), np.full(values.shape, np.inf)
    agreed = np.zeros(len(values), np.int64)
    for k, width in enumerate(WIDTHS):
        levels.append(smooth_zero_phase(values, times, width * sigma))
        gain = [
            np.sqrt(weights @ weights) for _, weights in _line_weights(np.asarray(times, np.float64), width * sigma)
        ]
        doubt = DOUBT * np.array(gain)[:, None] * noise
        low, high = np.maximum(low, levels[k] - doubt), np.minimum(high, levels[k] + doubt)
        agreed[(agreed == k - 1) & (low <= high).all(axis=1)] = k
    chosen = smooth_zero_phase(_least_around(agreed, times, 2 * sigma).astype(np.float64), times, sigma)
    shares = np.clip(1 - np.abs(chosen[:, None] - np.arange(len(WIDTHS))), 0, 1)
    shares /= shares.sum(axis=1, keepdims=True)
    result: np.ndarray = np.einsum("tk,ktc->tc", shares, np.array(levels))
    return result


def noise_of(values: np.ndarray) -> np.ndarray:
    """Standard deviation `[K]` of the noise in `values [T, K]`, from its second differences; motion hardly counts."""
    bends = np.diff(values, 2, axis=0)
    return 1.4826 * np.median(np.abs(bends), axis=0) / np.sqrt(6) if len(bends) else np.zeros(values.shape[1])


def _least_around(levels: np.ndarray, times: np.ndarray, reach: float) -> np.ndarray:
    """The least of `levels [T]` within `reach` seconds of each frame: caution starts before the motion does."""
    first = np.searchsorted(times, times - reach)
    last = np.searchsorted(times, times + reach, side="right")
    return np.array([levels[a:b].min() for a, b in zip(first, last, strict=True)])


def median_around(values: np.ndarray, times: np.ndarray, reach: float) -> np.ndarray:
    """Median of `values [T, ...]` within `reach` seconds of each frame, fewer towards the ends on both sides alike."""
    result = np.empty_like(values)
    last = len(times) - 1
    for k, t in enumerate(times):
        r = min(reach, max(t - times[0], reach / 2), max(times[last] - t, reach / 2))
        a, b = np.searchsorted(times, t - r - 1e-9), np.searchsorted(times, t + r + 1e-9)
        result[k] = np.median(values[a:b], axis=0)
    return result


def jitter(values: np.ndarray, present: np.ndarray) -> float:
    """Root mean square of the second differences of `values [T, ...]`, in their unit, over frames in a row.

    Frames count whose neighbours are both `present [T]`; 0 when there are none.
    """
    inside = present[:-2] & present[1:-1] & present[2:]
    bends = np.diff(values.reshape(len(values), -1), 2, axis=0)[inside]
    return float(np.sqrt(np.mean(np.square(bends)))) if bends.size else 0.0


def smooth_paper(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """The paper's 5-tap kernel over frames, reflected at the ends so that as many frames come out as go in."""
    rows = np.moveaxis(np.asarray(values), axis, 0)
    radius = len(PAPER_KERNEL) // 2
    padded = rows[_reflected(len(rows), radius)].astype(np.float64)
    smooth = sum(w * padded[k : k + len(rows)] for k, w in enumerate(PAPER_KERNEL))
    return np.moveaxis(np.asarray(smooth), 0, axis).astype(rows.dtype)


def _reflected(count: int, radius: int) -> np.ndarray:
    """Indices `[count + 2 radius]` that mirror a sequence at its ends (d c b a | a b c d | d c b a)."""
    index = np.arange(-radius, count + radius) % (2 * count)
    return np.minimum(index, 2 * count - 1 - index)


def outliers(values: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Frames `[T]` bool of `values [T, K]` that jump off and back again, as a wrong detection does.

    A frame counts when some column is farther from the median of its neighbourhood than `floor [T, K]` and than
    eight times the usual distance from the median there; motion that goes on is not affected.
    """
    count = len(values)
    if count < 2 * OUTLIER_RADIUS + 1:
        return np.zeros(count, bool)
    around = _reflected(count, OUTLIER_RADIUS)
    windows = np.lib.stride_tricks.sliding_window_view(values[around], 2 * OUTLIER_RADIUS + 1, axis=0)
    away = np.abs(values - np.median(windows, axis=-1))
    spread = np.median(np.abs(windows - np.median(windows, axis=-1)[..., None]), axis=-1)
    result: np.ndarray = np.any(away > np.maximum(floor, 8 * spread), axis=1)
    return result


def bridge(present: np.ndarray, times: np.ndarray, max_gap: float) -> np.ndarray:
    """Frames `[T]` bool without a face that lie in a gap of at most `max_gap` seconds between frames with one."""
    filled = np.zeros(len(present), bool)
    for before, after in pairwise(np.flatnonzero(present)):
        # The time for which nothing is seen runs from the first frame of the gap to the next face.
        if after > before + 1 and times[after] - times[before + 1] <= max_gap + 1e-6:
            filled[before + 1 : after] = True
    return filled


def interpolate(values: np.ndarray, times: np.ndarray, known: np.ndarray) -> np.ndarray:
    """`values [T, ...]` with the frames not in `known [T]` bool replaced: linear in time, held beyond the ends."""
    rows = values.reshape(len(values), -1).astype(np.float64)
    for column in rows.T:
        column[~known] = np.interp(times[~known], times[known], column[known])
    return rows.reshape(values.shape).astype(values.dtype)


def runs(mask: np.ndarray) -> Iterator[slice]:
    """The stretches of consecutive True in `mask [T]`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    for start, stop in edges.reshape(-1, 2):
        yield slice(int(start), int(stop))
