"""Two videos side by side: each frame of the source with what the other shows then, and the face that both show."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sg3cli.errors import InputError
from sg3cli.faces.face import Detector, Face
from sg3cli.video import Frame, VideoInfo

EARLY = 2e-3  # seconds: a frame that comes this much late is still the one that is shown
ASPECT = 0.02  # by which the shapes of two videos may differ
NEAR = 0.75  # of a face's box: a face whose middle is farther away is another one


@dataclass(frozen=True)
class Pair:
    """A frame of the source, and the edited one of the same size that is shown at its time."""

    source: Frame
    edited: Frame


def pairs(source: Iterable[Frame], edited: Iterable[Frame]) -> Iterator[Pair]:
    """Frames by time since the first one, so that both may have rates of their own; ends with the shorter video."""
    others = iter(edited)
    shown = next(others, None)
    following = next(others, None)
    for frame in source:
        while following is not None and following.time <= frame.time + EARLY:
            shown, following = following, next(others, None)
        if shown is None or (following is None and frame.time > shown.time + lasts(shown) - EARLY):
            return
        yield Pair(frame, fitted(shown, frame.rgb.shape[:2]))


def lasts(frame: Frame) -> float:
    """Seconds that a frame is shown."""
    return max(float(frame.duration * frame.time_base), 4 * EARLY)


def fitted(frame: Frame, shape: tuple[int, ...]) -> Frame:
    """The frame at the source's size (height, width)."""
    if frame.rgb.shape[:2] == shape:
        return frame
    return replace(frame, rgb=cv2.resize(frame.rgb, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), stored=None)


def check_shapes(source: VideoInfo, edited: VideoInfo) -> None:
    """Raise `InputError` unless one can be laid on the other."""
    ratio = source.width * edited.height / max(source.height * edited.width, 1)
    if abs(ratio - 1) > ASPECT:
        shapes = f"{edited.width}x{edited.height}, {source.width}x{source.height} for the source"
        raise InputError(f"the edited video has another shape: {shapes}", "name a video of the same picture, uncut")


class FaceFollower:
    """The faces of two videos, frame by frame: one of the source, and the edited one at its place."""

    def __init__(self, source: Detector, edited: Detector) -> None:
        self._detectors = (source, edited)
        self._last: Face | None = None
        self._edited: tuple[int, list[Face]] = (-1, [])

    def update(self, pair: Pair, known: np.ndarray | None = None) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Landmarks `[68, 2]` in both frames of the next pair, None where the face is not seen.

        `known [68, 2]` say about where it is in the source; without it the first frame's largest face is followed.
        """
        found = self._detectors[0].update(pair.source.rgb, pair.source.time)
        if pair.edited.index != self._edited[0]:  # a frame that is shown for longer is looked at once
            self._edited = (pair.edited.index, self._detectors[1].update(pair.edited.rgb, pair.edited.time))
        face = self._chosen(found, known)
        if face is None:
            return None, None
        self._last = face
        other = nearest(self._edited[1], middle(face.landmarks), reach(face))
        return face.landmarks, None if other is None else other.landmarks

    def _chosen(self, found: list[Face], known: np.ndarray | None) -> Face | None:
        if known is not None:
            if not np.isfinite(known).all():
                return None
            side = float(np.ptp(known, axis=0).max())
            return nearest(found, middle(known), NEAR * side)
        if self._last is None:
            return max(found, key=lambda face: face.area, default=None)
        same = [face for face in found if face.track == self._last.track]
        return same[0] if same else nearest(found, middle(self._last.landmarks), reach(self._last))


def middle(landmarks: np.ndarray) -> np.ndarray:
    """`[2]`: mean of landmarks `[68, 2]`."""
    return np.asarray(landmarks.mean(axis=0))


def reach(face: Face) -> float:
    """Pixels within which the same face is looked for."""
    return NEAR * float(np.ptp(face.landmarks, axis=0).max())


def nearest(faces: list[Face], place: np.ndarray, most: float) -> Face | None:
    """The face whose middle is the nearest to `place [2]`, within `most` pixels."""
    apart = [float(np.linalg.norm(middle(face.landmarks) - place)) for face in faces]
    best = int(np.argmin(apart)) if apart else -1
    return faces[best] if apart and apart[best] <= most else None
