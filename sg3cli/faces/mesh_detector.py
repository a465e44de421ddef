"""Faces followed through a clip: the mesh of one frame says where to look in the next, the detector fills in.

The detector runs on the first frame of a shot, while a face is missing, and for people who come in: in every
frame for large faces, every half second for smaller ones, now and then for the smallest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sg3cli.faces.association import Roi, Seen, Tracks, same_place
from sg3cli.faces.blazeface import BlazeFace, Detection, iou
from sg3cli.faces.face import MAX_FACES, Face
from sg3cli.faces.face_mesh import FaceMesh, roi_of_detection, roi_of_mesh
from sg3cli.faces.landmarks68 import head_axes, landmarks_of_mesh
from sg3cli.faces.visibility import yaw_of_axes
from sg3cli.video.shot_detection import NEAR, difference, is_abrupt, thumbnail
from sg3cli.weights import store

MIN_PRESENCE = 0.5
SEARCH_EVERY = 0.5  # seconds between searches for new people
SWEEP_EVERY = 4.0  # seconds between searches for small faces beside known ones
SEARCH_FOR = 1.0  # seconds for which a lost face is looked for in every frame
FAST = 0.12  # face sizes from one frame to the next beyond which a face is looked at twice
SURE = 0.85  # score of a detection that needs no second look with the frame turned
SAME_PLACE = 0.2  # overlap of two boxes that show one face
ALL_LEVELS = 99
DEFAULT_RATE = 25.0  # frames a second when no times are given


@dataclass(frozen=True)
class _Fit:
    """A mesh found in the current frame."""

    mesh: np.ndarray  # [468, 3]
    score: float
    roi: Roi  # for the next frame
    moved: float  # distance from where it was expected, in face sizes


class MeshDetector:
    """BlazeFace and the face mesh with tracks (see `sg3cli.faces.face.Detector`)."""

    def __init__(self, detector: BlazeFace, mesh: FaceMesh) -> None:
        self.detector, self.mesh = detector, mesh
        self.tracks = Tracks()
        self.frame = 0
        self.searched = self.swept = -math.inf  # times of the last search, and of the last one in the finest tiles
        self.thumb: np.ndarray | None = None  # the frame before
        self.steps: list[float] = []  # how much the last frames differed from those before them

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
        if self._may_be_cut(thumbnail(rgb)):
            self.tracks.forget()  # who is there now is found anew
            self.swept = -math.inf
        expected = self.tracks.active
        fits = self._follow(rgb, expected)
        missing = len(fits) < max(len(expected), 1) or self.tracks.lost_since(time - SEARCH_FOR)
        if missing or time - self.searched >= SEARCH_EVERY:
            self._search(rgb, time, fits)
        else:
            self._add(rgb, time, fits, self.detector.whole(rgb))  # cheap: who comes in large is found at once
        self.tracks.remember({track: fit.roi for track, fit in fits.items()}, time)
        return [face_of(track, fit.mesh, fit.score) for track, fit in sorted(fits.items())]

    def _may_be_cut(self, thumb: np.ndarray) -> bool:
        step = None if self.thumb is None else float(difference(thumb, self.thumb))
        self.thumb = thumb
        if step is None:
            return False
        before, self.steps = self.steps, [*self.steps, step][-NEAR:]
        return is_abrupt(step, before)

    def state(self) -> dict[str, Any]:
        """See `Detector.state`."""
        searched, swept = (t if math.isfinite(t) else None for t in (self.searched, self.swept))
        thumb = None if self.thumb is None else self.thumb.tolist()
        return {
            "frame": self.frame,
            "searched": searched,
            "swept": swept,
            "thumb": thumb,
            "steps": self.steps,
            "tracks": self.tracks.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `Detector.restore`."""
        self.frame = state["frame"]
        self.searched, self.swept = (-math.inf if state[k] is None else state[k] for k in ("searched", "swept"))
        self.thumb = None if state["thumb"] is None else np.array(state["thumb"], np.uint8)
        self.steps = list(state["steps"])
        self.tracks.restore(state["tracks"])

    def _follow(self, rgb: np.ndarray, expected: list[Seen]) -> dict[int, _Fit]:
        """Meshes of the faces that are where they were, by track; two on one face leave the one that moved less."""
        fits: dict[int, _Fit] = {}
        for seen in expected:
            fit = self._fit(rgb, seen.roi)
            if fit is not None and fit.moved > FAST:  # the crop was off, and so is what it shows
                again = self._fit(rgb, fit.roi)
                fit = None if again is None else replace(again, moved=fit.moved + again.moved)
            if fit is not None:
                fits[seen.track] = fit
        for track in sorted(fits, key=lambda t: -fits[t].moved):
            if any(same_place(fits[track].roi, fit.roi) for other, fit in fits.items() if other != track):
                del fits[track]
        return fits

    def _search(self, rgb: np.ndarray, time: float, fits: dict[int, _Fit]) -> None:
        """Add faces that the detector finds outside `fits`; the finest tiles, which take long, only now and then."""
        self.searched = time
        sweep = time - self.swept >= SWEEP_EVERY
        if sweep:
            self.swept = time
        self._add(rgb, time, fits, self.detector.tiled(rgb, levels=ALL_LEVELS if sweep else 1 if fits else None))
        if not fits:  # a camera that was held upside down; the mesh finds its way from there
            self._add(rgb, time, fits, self.detector.turned(rgb))

    def _add(self, rgb: np.ndarray, time: float, fits: dict[int, _Fit], found: list[Detection]) -> None:
        """Take up the detections that show none of `fits`."""
        for detection in found:
            if len(fits) >= MAX_FACES:
                break
            if any(_covered(detection, fit.roi) for fit in fits.values()):
                continue
            if detection.score < SURE:
                detection = self._best_turned(rgb, detection)
            fit = self._fit_detection(rgb, detection)
            if fit is not None and not any(same_place(fit.roi, other.roi) for other in fits.values()):
                fits[self.tracks.number(fit.roi, time, fits)] = fit

    def _best_turned(self, rgb: np.ndarray, detection: Detection) -> Detection:
        """The detection, or what is seen better in its place when the frame is turned.

        A face upside down can be taken for one that is not, with its eyes where the mouth is.
        """
        there = [found for found in self.detector.turned(rgb) if iou(found.box, detection.box) > SAME_PLACE]
        return max([detection, *there], key=lambda found: found.score)

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


def face_of(track: int, mesh: np.ndarray, score: float) -> Face:
    """The public face of a mesh `[468, 3]`; its box is the mesh's."""
    box = np.concatenate([mesh[:, :2].min(0), mesh[:, :2].max(0)]).astype(np.float32)
    return Face(box, landmarks_of_mesh(mesh), score, track, yaw_of_axes(head_axes(mesh)))


def _covered(detection: Detection, roi: Roi) -> bool:
    """Whether a detection is (a part of) the face in `roi`: overlaps it, or has its centre inside."""
    half = roi.side / 3
    box = np.array([roi.x - half, roi.y - half, roi.x + half, roi.y + half])
    x, y = (detection.box[:2] + detection.box[2:]) / 2
    return iou(box, detection.box) > 0.3 or (abs(x - roi.x) < half and abs(y - roi.y) < half)
