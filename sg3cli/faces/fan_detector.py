"""2D-FAN landmarks (Bulat and Tzimiropoulos 2017, arXiv:1703.07332) through the face-alignment package.

The 68 points are the reference's own convention. Both networks run in every frame: about 2.6 s each on one CPU core.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.faces.association import MARGIN, Roi, Tracks, separation
from sg3cli.faces.face import MAX_FACES, Face
from sg3cli.faces.visibility import yaw_of_landmarks
from sg3cli.weights import store

if TYPE_CHECKING:
    from face_alignment import FaceAlignment


DEFAULT_RATE = 25.0  # frames a second when no times are given
PIXEL_CENTRE = 0.5  # face-alignment counts from pixel centres


class FanDetector:
    """S3FD and FAN in every frame, with tracks (see `sg3cli.faces.face.Detector`)."""

    def __init__(self, network: FaceAlignment) -> None:
        self.network, self.tracks, self.frame = network, Tracks(), 0

    @classmethod
    def load(cls, allow_pull: bool = False, device: str | None = None) -> FanDetector:
        """With the weights of the model `fan`; `ModelError` if they are missing and may not be pulled."""
        store.require("fan", allow_pull)  # the package would download them on its own, unverified
        import torch
        from face_alignment import FaceAlignment, LandmarksType

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(FaceAlignment(LandmarksType.TWO_D, device=device, compile=False))

    def update(self, rgb: np.ndarray, time: float | None = None) -> list[Face]:
        """Faces of the next frame; see `Detector.update`."""
        time = self.frame / DEFAULT_RATE if time is None else time
        self.frame += 1
        boxes = sorted(self.network.face_detector.detect_from_image(rgb.copy()), key=lambda box: -box[4])
        found = self.landmarks(rgb, np.array(boxes[:MAX_FACES]).reshape(-1, 5))
        faces = self._numbered(found, time)
        self.tracks.remember({face.track: roi_of_box(face.box) for face in faces}, time)
        return faces

    def landmarks(self, rgb: np.ndarray, boxes: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """(box [4], landmarks [68, 2], score) for `boxes [N, 5]` (x0 y0 x1 y1 score) of a frame."""
        if len(boxes) == 0:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            points = self.network.get_landmarks_from_image(rgb, detected_faces=list(boxes))
        return [
            (
                box[:4].astype(np.float32),
                p[:, :2].astype(np.float32) + np.float32(PIXEL_CENTRE),
                min(float(box[4]), 1.0),
            )
            for box, p in zip(boxes, points, strict=True)
        ]

    def _numbered(self, found: list[tuple[np.ndarray, np.ndarray, float]], time: float) -> list[Face]:
        """Faces with track numbers; those nearest to a known track choose first."""
        last = [seen.roi for seen in self.tracks.active]
        distances = [min((separation(roi_of_box(box), roi) for roi in last), default=0.0) for box, _, _ in found]
        faces: dict[int, Face] = {}
        for index in np.argsort(distances, kind="stable"):
            box, points, score = found[index]
            track = self.tracks.number(roi_of_box(box), time, faces)
            faces[track] = Face(box, points, score, track, yaw_of_landmarks(points))
        return [face for _, face in sorted(faces.items())]

    def state(self) -> dict[str, Any]:
        """See `Detector.state`."""
        return {"frame": self.frame, "tracks": self.tracks.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """See `Detector.restore`."""
        self.frame = state["frame"]
        self.tracks.restore(state["tracks"])


def roi_of_box(box: np.ndarray) -> Roi:
    """The square around a box `[4]` that tracks compare."""
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    return Roi(float(centre[0]), float(centre[1]), MARGIN * float(size.max()), 0.0)
