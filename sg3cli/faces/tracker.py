"""Faces followed through a clip: the mesh of one frame says where to look in the next, the detector fills in.

The detector runs on the first frame, as soon as a face is lost, and every half second for people who come in. A track
number stays with its face; a lost face that appears again close to where it was gets its number back.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from sg3cli.faces import MAX_FACES, Face
from sg3cli.faces.blazeface import BlazeFace, Detection, iou
from sg3cli.faces.ibug import landmarks_of_mesh
from sg3cli.faces.mesh import FaceMesh, Roi, roi_of_detection, roi_of_mesh
from sg3cli.weights import store

MIN_PRESENCE = 0.5
SEARCH_EVERY = 0.5  # seconds between searches for new people
DEFAULT_RATE = 25.0  # frames a second when no times are given
SAME_FACE = 0.4  # two meshes whose centres are closer than this share of the face are one face
NEAR = 0.8  # a lost face is expected within this many face sizes of its last place ...
SPEED = 2.0  # ... and this many more for every second since, for at most a second


@dataclass(frozen=True)
class Seen:
    """Where a track was when it was last seen."""

    track: int
    roi: Roi
    time: float
    active: bool


@dataclass(frozen=True)
class _Fit:
    """A mesh found in the current frame."""

    mesh: np.ndarray  # [468, 3]
    score: float
    roi: Roi  # for the next frame
    moved: float  # distance from where it was expected, in face sizes


class MeshDetector:
    """BlazeFace and the face mesh with tracks (see `sg3cli.faces.Detector`)."""

    def __init__(self, detector: BlazeFace, mesh: FaceMesh) -> None:
        self.detector, self.mesh = detector, mesh
        self.tracks: list[Seen] = []
        self.frame = 0
        self.searched = -math.inf  # time of the last search

    @classmethod
    def load(cls, allow_pull: bool = False) -> MeshDetector:
        """With the networks of the model `face-mesh`; `ModelError` if it is missing and may not be pulled."""
        store.require("face-mesh", allow_pull)
        folder = store.folder_of("face-mesh")
        return cls(BlazeFace(folder / "face_detection_short_range.tflite"), FaceMesh(folder / "face_landmark.tflite"))

    def update(self, rgb: np.ndarray, time: float | None = None) -> list[Face]:
        """Faces of the next frame; see `Detector.update`."""
        time = self.frame / DEFAULT_RATE if time is None else time
        self.frame += 1
        expected = [seen for seen in self.tracks if seen.active]
        fits = self._follow(rgb, expected)
        if len(fits) < max(len(expected), 1) or time - self.searched >= SEARCH_EVERY:
            self._search(rgb, time, fits)
        self._remember(fits, time)
        return [face_of(track, fit.mesh, fit.score) for track, fit in sorted(fits.items())]

    def state(self) -> dict[str, Any]:
        """See `Detector.state`."""
        searched = self.searched if math.isfinite(self.searched) else None
        return {"frame": self.frame, "searched": searched, "tracks": [asdict(seen) for seen in self.tracks]}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Detector.restore`."""
        self.frame = state["frame"]
        self.searched = -math.inf if state["searched"] is None else state["searched"]
        self.tracks = [Seen(**{**seen, "roi": Roi(**seen["roi"])}) for seen in state["tracks"]]

    def _follow(self, rgb: np.ndarray, expected: list[Seen]) -> dict[int, _Fit]:
        """Meshes of the faces that are where they were, by track; two on one face leave the one that moved less."""
        fits: dict[int, _Fit] = {}
        for seen in expected:
            fit = self._fit(rgb, seen.roi)
            if fit is not None:
                fits[seen.track] = fit
        for track in sorted(fits, key=lambda t: -fits[t].moved):
            if any(same_place(fits[track].roi, fit.roi) for other, fit in fits.items() if other != track):
                del fits[track]
        return fits

    def _search(self, rgb: np.ndarray, time: float, fits: dict[int, _Fit]) -> None:
        """Add faces that the detector finds outside `fits`: tiles are used fully only when nothing else is there."""
        self.searched = time
        found = self.detector.tiled(rgb, levels=1 if fits else None)
        for detection in found:
            if len(fits) >= MAX_FACES:
                break
            if any(_covered(detection, fit.roi) for fit in fits.values()):
                continue
            fit = self._fit_detection(rgb, detection)
            if fit is not None and not any(same_place(fit.roi, other.roi) for other in fits.values()):
                fits[self._number(fit.roi, time, fits)] = fit

    def _fit(self, rgb: np.ndarray, roi: Roi) -> _Fit | None:
        mesh, score = self.mesh(rgb, roi)
        if score < MIN_PRESENCE:
            return None
        after = roi_of_mesh(mesh)
        return _Fit(mesh, score, after, math.hypot(after.x - roi.x, after.y - roi.y) / after.side)

    def _fit_detection(self, rgb: np.ndarray, detection: Detection) -> _Fit | None:
        """The mesh of a fresh detection; run twice, because the first crop comes from a coarse box."""
        first = self._fit(rgb, roi_of_detection(detection.box, detection.points))
        return None if first is None else self._fit(rgb, first.roi)

    def _number(self, roi: Roi, time: float, taken: dict[int, _Fit]) -> int:
        """The track of a face that was not followed: the nearest lost one within reach, or a new number."""
        lost = [seen for seen in self.tracks if seen.track not in taken]
        near = [(separation(seen.roi, roi), seen) for seen in lost]
        near = [(d, s) for d, s in near if d < NEAR + SPEED * min(time - s.time, 1) and _alike(s.roi, roi)]
        if near:
            return min(near, key=lambda pair: pair[0])[1].track
        return 1 + max([seen.track for seen in self.tracks] + list(taken), default=-1)

    def _remember(self, fits: dict[int, _Fit], time: float) -> None:
        lost = {seen.track: replace(seen, active=False) for seen in self.tracks}
        now = {track: Seen(track, fit.roi, time, True) for track, fit in fits.items()}
        self.tracks = [seen for _, seen in sorted({**lost, **now}.items())]


def face_of(track: int, mesh: np.ndarray, score: float) -> Face:
    """The public face of a mesh `[468, 3]`; its box is the mesh's."""
    box = np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]).astype(np.float32)
    return Face(box, landmarks_of_mesh(mesh), score, track)


def separation(a: Roi, b: Roi) -> float:
    """Distance of two squares' centres in units of the larger one's face."""
    return math.hypot(a.x - b.x, a.y - b.y) / (max(a.side, b.side) / 1.5)


def same_place(a: Roi, b: Roi) -> bool:
    """Whether two squares look at the same face."""
    return separation(a, b) < SAME_FACE


def _alike(a: Roi, b: Roi) -> bool:
    return 0.5 < a.side / b.side < 2


def _covered(detection: Detection, roi: Roi) -> bool:
    """Whether a detection is (a part of) the face in `roi`: overlaps it, or has its centre inside."""
    half = roi.side / 3
    box = np.array([roi.x - half, roi.y - half, roi.x + half, roi.y + half])
    x, y = (detection.box[:2] + detection.box[2:]) / 2
    return iou(box, detection.box) > 0.3 or (abs(x - roi.x) < half and abs(y - roi.y) < half)
