"""Which face is which from frame to frame: numbers that stay with a face, also over a short absence.

A track number stays with its face; a lost face that appears again close to where it was gets its number back.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

SAME_FACE = 0.4  # two squares whose centres are closer than this share of the face show one face
NEAR = 1.0  # a face is expected within this many face sizes of its last place ...
SPEED = 2.0  # ... and this many more for every second since, for at most a second
MARGIN = 1.5  # a square's side as a multiple of its face


@dataclass(frozen=True)
class Roi:
    """A square around a face: centre and side in frame pixels, angle in radians (clockwise on screen)."""

    x: float
    y: float
    side: float
    angle: float


@dataclass(frozen=True)
class Seen:
    """Where a track was when it was last seen, and whether that was in the frame before."""

    track: int
    roi: Roi
    time: float
    active: bool


class Tracks:
    """All tracks so far, by number."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.first = 0  # the least number that is free

    @property
    def active(self) -> list[Seen]:
        """The tracks that the frame before showed."""
        return [seen for seen in self.seen if seen.active]

    def lost_since(self, time: float) -> bool:
        """Whether a track was seen after `time` but not in the frame before."""
        return any(not seen.active and seen.time > time for seen in self.seen)

    def number(self, roi: Roi, time: float, taken: Collection[int]) -> int:
        """The number of a face at `roi`: that of the nearest track within reach, not in `taken`, or a new one."""
        reach = [
            (separation(seen.roi, roi), seen.track)
            for seen in self.seen
            if seen.track not in taken and 0.5 < seen.roi.side / roi.side < 2 and _within_reach(seen, roi, time)
        ]
        if reach:
            return min(reach)[1]
        return max(self.first, 1 + max([*taken, *(seen.track for seen in self.seen)], default=-1))

    def forget(self) -> None:
        """End all tracks: whoever is seen from now on gets a new number."""
        self.first = max(self.first, 1 + max((seen.track for seen in self.seen), default=-1))
        self.seen = []

    def remember(self, places: dict[int, Roi], time: float) -> None:
        """Take the faces of a frame, by track; the other tracks are lost."""
        lost = {seen.track: replace(seen, active=False) for seen in self.seen}
        now = {track: Seen(track, roi, time, True) for track, roi in places.items()}
        self.seen = [seen for _, seen in sorted({**lost, **now}.items())]

    def state(self) -> dict[str, Any]:
        """The tracks as JSON-able data."""
        return {"first": self.first, "seen": [asdict(seen) for seen in self.seen]}

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        self.first = state["first"]
        self.seen = [Seen(**{**seen, "roi": Roi(**seen["roi"])}) for seen in state["seen"]]


def separation(a: Roi, b: Roi) -> float:
    """Distance of two squares' centres in units of the larger one's face."""
    return math.hypot(a.x - b.x, a.y - b.y) / (max(a.side, b.side) / MARGIN)


def same_place(a: Roi, b: Roi) -> bool:
    """Whether two squares look at the same face."""
    return separation(a, b) < SAME_FACE


def _within_reach(seen: Seen, roi: Roi, time: float) -> bool:
    return separation(seen.roi, roi) < NEAR + SPEED * min(max(time - seen.time, 0.0), 1.0)
