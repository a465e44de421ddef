"""Where one face ends and another begins, so that nobody's edit is pasted over somebody else.

Of two faces the one that is larger in the shot is taken to be in front. It keeps its own outline; the one behind keeps
clear of the front one's whole head. Beside each other both end where they are equally far away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg3cli.compositing.face_mask import (
    MASK_GRID,
    Size,
    convex_distance,
    enlarge,
    face_outline,
    landmarks_in_window,
    pixel_centres,
    shape_of,
    smoothstep,
)
from sg3cli.smoothing import smooth_zero_phase

SOFT = 0.08  # share of the crop over which the opacity rises from the border
HEAD = 1.3  # size of a head, hair and ears, as a multiple of its face's outline
SMOOTHING = 0.08  # seconds: Gaussian sigma of the other faces' outlines


@dataclass(frozen=True)
class AllFaces:
    """All faces of a clip, in order of frames: row n shows the person `people[n]` in the frame `frames[n]`."""

    frames: np.ndarray  # [n] int64
    people: np.ndarray  # [n] int64
    landmarks: np.ndarray  # [n, 68, 2] float32, without jitter
    nearness: np.ndarray  # [n] usual size of that person in that shot: the larger is in front

    @classmethod
    def of(
        cls, frames: np.ndarray, people: np.ndarray, landmarks: np.ndarray, times: np.ndarray, shots: np.ndarray
    ) -> AllFaces:
        """From the sightings (see the fields), with `times [T]` and `shots [T]` of the clip's frames."""
        smoothed, nearness = landmarks.copy(), np.zeros(len(frames))
        for person in np.unique(people):
            for shot in np.unique(shots[frames[people == person]]):
                rows = np.flatnonzero((people == person) & (shots[frames] == shot))
                nearness[rows] = np.median(np.ptp(landmarks[rows], axis=1).max(axis=1))
                for part in np.split(rows, np.flatnonzero(np.diff(frames[rows]) > 1) + 1):
                    smoothed[part] = smooth_zero_phase(landmarks[part], times[frames[part]], SMOOTHING)
        return cls(frames, people, smoothed, nearness)

    def overlap(self, person: int, frame: int, own: np.ndarray, window: np.ndarray, size: Size) -> np.ndarray | float:
        """Opacity `[H, W]` of a crop that keeps `person` off the other faces in `frame`; 1.0 where no other is near.

        `own [68, 2]` are the person's landmarks in the frame, `window [4, 2]` is what the crop shows.
        """
        rows = np.arange(*np.searchsorted(self.frames, (frame, frame + 1)))
        mine = rows[self.people[rows] == person]
        nearness = self.nearness[mine[0]] if len(mine) else np.ptp(own, axis=0).max()
        shape = shape_of(size)
        scale = min(1.0, MASK_GRID / min(shape))
        grid = (round(shape[0] * scale), round(shape[1] * scale))
        opacity: np.ndarray | None = None
        for row in rows[self.people[rows] != person]:
            other = landmarks_in_window(self.landmarks[row], window, grid)
            if _far(other, grid):
                continue
            gap = _gap(landmarks_in_window(own, window, grid), other, nearness >= self.nearness[row], grid)
            soft = smoothstep(gap / (SOFT * min(grid))).astype(np.float32)
            opacity = soft if opacity is None else np.minimum(opacity, soft)
        if opacity is None:
            return 1.0
        return enlarge(opacity, shape)


def _far(points: np.ndarray, grid: tuple[int, int]) -> bool:
    """Whether the head around landmarks `[68, 2]` lies outside a crop of `grid` (height, width)."""
    reach = HEAD * np.ptp(points, axis=0).max()
    return bool(((points.max(axis=0) + reach < 0) | (points.min(axis=0) - reach > np.array(grid[::-1]))).any())


def _gap(own: np.ndarray, other: np.ndarray, in_front: bool, grid: tuple[int, int]) -> np.ndarray:
    """Pixels `[H, W]` by which a place is nearer to `own` face than to the `other`; at most 0 off limits."""
    pixels = pixel_centres(grid)
    mine = convex_distance(face_outline(own), pixels)
    outline = face_outline(other)
    if in_front:
        values: np.ndarray = np.maximum(convex_distance(outline, pixels), 0) - mine
        return values
    middle = outline.mean(axis=0)
    result: np.ndarray = convex_distance(middle + HEAD * (outline - middle), pixels) - np.maximum(mine, 0)
    return result
