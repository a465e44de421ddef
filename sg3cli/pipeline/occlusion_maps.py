"""What of a face may change, for each frame of a whole clip: kept in chunks, smoothed over time."""

from __future__ import annotations

import numpy as np

from sg3cli.compositing.occlusion import SMOOTHING, smooth_maps, stretches
from sg3cli.faces.alignment import ABSENT, Track
from sg3cli.files import Chunks, read_arrays
from sg3cli.pipeline.partial_render import opacity, whole_batches, within_reach
from sg3cli.settings import RenderConfig
from sg3cli.smoothing import REACH
from sg3cli.time_ranges import parse_ranges

NEAR = REACH * SMOOTHING + 1e-6  # seconds to both sides by which smoothing reaches


class VisibleMaps:
    """The maps of a clip, kept in chunks and smoothed over time when they are asked for.

    Of chunks that hold a range of frames only those are right that are further than `NEAR` from its ends.
    """

    def __init__(self, chunks: Chunks, track: Track) -> None:
        self.chunks, self.times = chunks, track.times
        self.numbers = stretches(track.status != ABSENT, track.shots)
        self.firsts = [int(path.stem) for path in chunks.paths]
        self._smooth: tuple[int, np.ndarray] | None = None

    def at(self, index: int) -> np.ndarray:
        """The map of frame `index`, `[h, w]` float32."""
        chunk = int(np.searchsorted(self.firsts, index, side="right")) - 1
        if self._smooth is None or self._smooth[0] != chunk:
            self._smooth = (chunk, self._smoothed(chunk))
        return self._smooth[1][index - self.firsts[chunk]]

    def _smoothed(self, chunk: int) -> np.ndarray:
        """The maps of one chunk, smoothed together with what is near in time: as if the whole clip were at once."""
        first, last = self.firsts[chunk], [*self.firsts, self.chunks.rows][chunk + 1]
        begin, end = np.searchsorted(self.times, [self.times[first] - NEAR, self.times[last - 1] + NEAR])
        begin, end = max(begin, self.firsts[0]), min(end, self.chunks.rows)
        wanted = range(
            int(np.searchsorted(self.firsts, begin, side="right")) - 1, int(np.searchsorted(self.firsts, end))
        )
        maps = np.concatenate([read_arrays(self.chunks.paths[k])[0]["visible"] for k in wanted])
        start = self.firsts[wanted[0]]
        rows = slice(int(begin), min(int(end), start + len(maps)))
        smooth = smooth_maps(maps[rows.start - start : rows.stop - start] / 255, self.times[rows], self.numbers[rows])
        return smooth[first - rows.start : last - rows.start]


def mapped_frames(track: Track, config: RenderConfig) -> np.ndarray:
    """Which frames `[T]` bool need a map: those with a face, as far as `--range` and the smoothing reach."""
    present = track.status != ABSENT
    if config.range is None:
        return present
    shown = opacity(track.times, parse_ranges(config.range)) > 0
    near = within_reach(track.times, shown, NEAR)
    return present & whole_batches(near, config.batch)
