"""A part of a video: its opacity over time, and which frames are spared the work."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import groupby
from typing import Any

import numpy as np

from sg3cli.time_ranges import Ranges

FADE = 0.2  # seconds, inside the range, over which it begins and ends


def opacity(times: np.ndarray, ranges: Ranges) -> np.ndarray:
    """How much of the edit is seen at each of `times` `[T]`: 0 outside, 1 inside, with a fade within the ends.

    There is no fade where a range begins with the video, or is open at its end. A range shorter than two fades never
    reaches more than its middle allows.
    """
    shown = np.zeros(len(times))
    for start, end in ranges:
        inside = (times >= start) & (times < end)
        up = np.ones(len(times)) if start <= 0 else (times - start) / FADE
        down = np.ones(len(times)) if math.isinf(end) else (end - times) / FADE
        shown[inside] = np.clip(np.minimum(up, down), 0, 1)[inside]
    return shown


def whole_batches(wanted: np.ndarray, batch: int) -> np.ndarray:
    """Which frames `[T]` bool share a batch (frames `k * batch` to `(k + 1) * batch`) with one of those `wanted`."""
    batches = np.logical_or.reduceat(wanted, np.arange(0, len(wanted), batch))
    return np.repeat(batches, batch)[: len(wanted)]


def chunk_frames(seconds: float, rate: Fraction, batch: int) -> int:
    """Frames of a chunk of about `seconds`: whole batches, because a batch's images depend on its size. 0: none."""
    return batch * max(1, round(seconds * float(rate) / batch)) if seconds > 0 else 0


def within_reach(times: np.ndarray, wanted: np.ndarray, seconds: float) -> np.ndarray:
    """Which frames `[T]` bool are no more than so many seconds away from one of those `wanted`."""
    before = np.concatenate([[0], np.cumsum(wanted)])  # how many are wanted among the first k
    first = np.searchsorted(times, times - seconds, side="left")
    last = np.searchsorted(times, times + seconds, side="right")
    return before[last] > before[first]


def only_inside(
    frames: Iterator[Any],
    shown: np.ndarray,
    batch: int,
    edited: Callable[[Iterator[Any]], Iterator[Any]],
    plain: Callable[[Any], Any],
    blend: Callable[[Any, Any, float], Any],
) -> Iterator[Any]:
    """Each of `frames` as `edited` makes it, `plain` where `shown [T]` is 0, blended by `shown` in between.

    `edited` maps a stream of frames to as many; it is given whole batches (frames `k * batch` to `(k + 1) * batch`), or
    nothing of them, so that its results do not depend on where the stream begins.
    """
    wanted = whole_batches(shown > 0, batch)
    for inside, group in groupby(frames, key=lambda frame: bool(wanted[frame.index])):
        if not inside:
            yield from map(plain, group)
            continue
        sources: deque[Any] = deque()  # those that `edited` has taken and not given back
        for result in edited(tee(group, sources)):
            frame = sources.popleft()
            share = float(shown[frame.index])
            yield plain(frame) if share == 0 else result if share == 1 else blend(plain(frame), result, share)


def tee(frames: Iterator[Any], into: deque[Any]) -> Iterator[Any]:
    """The frames, each appended to `into` as it passes."""
    for frame in frames:
        into.append(frame)
        yield frame
