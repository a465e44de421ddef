"""One face in one frame, and what a detector of faces offers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np


MAX_FACES = 8


@dataclass(frozen=True)
class Face:
    """One face in one frame."""

    box: np.ndarray  # [4] float32, x0 y0 x1 y1
    landmarks: np.ndarray  # [68, 2] float32, iBUG order
    score: float  # 0..1
    track: int  # the same number for the same face in every frame of a shot
    yaw: float = 0.0  # degrees that it is turned; beside 60 it shows its profile

    @property
    def area(self) -> float:
        """Of its box, in pixels."""
        x0, y0, x1, y1 = self.box.tolist()
        return float((x1 - x0) * (y1 - y0))


class Detector(Protocol):
    """Finds faces in consecutive frames; keeps track numbers, at most `MAX_FACES` faces at a time."""

    def update(self, rgb: np.ndarray, time: float | None = None) -> list[Face]:
        """Faces of the next frame `[H, W, 3] uint8`, `time` in seconds (None: 25 frames a second), by track."""
        ...

    def state(self) -> dict[str, Any]:
        """What the next `update` depends on, as JSON-able data."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` was taken."""
        ...
