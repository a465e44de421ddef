"""The face mesh of two drawings of one face, whose place in the window is known: what an edit moved."""

from __future__ import annotations

import numpy as np

from sg3cli.faces.association import Roi
from sg3cli.faces.face_mesh import FaceMesh, roi_of_mesh
from sg3cli.weights import store

LOWER, SIDE = 0.08, 0.95  # of the window's square: how far below its middle a face lies, and the square to look at
MIN_PRESENCE = 0.5
LIPS = np.array([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409])  # outline


class DrawnMesh:
    """Finds the mesh in drawings."""

    def __init__(self, mesh: FaceMesh) -> None:
        self.mesh = mesh

    @classmethod
    def load(cls) -> DrawnMesh | None:
        """With the network of the model `face-mesh`; None where that has not been pulled."""
        if not store.is_present("face-mesh"):
            return None
        return cls(FaceMesh(store.folder_of("face-mesh") / "face_landmark.tflite"))

    def single(self, image: np.ndarray, side: float) -> np.ndarray | None:
        """Points `[468, 2]` of a drawing or an aligned photograph `[h, w, 3]` uint8; None where it shows no face."""
        points, found = self.mesh(image, self._roi(image, side))
        return points[:, :2] if found >= MIN_PRESENCE else None

    def pair(self, plain: np.ndarray, edited: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Points `[468, 2]` of the drawings `[h, w, 3]` uint8 in their pixels; None where one shows no face.

        Both are looked at through one square, that of the plain face, so that errors which they share cancel.
        """
        roi = self._roi(plain, side)
        (before, found), (after, found_after) = (self.mesh(image, roi) for image in (plain, edited))
        if min(found, found_after) < MIN_PRESENCE:
            return None
        return before[:, :2], after[:, :2]

    def _roi(self, image: np.ndarray, side: float) -> Roi:
        """The square around the face, from a first look at where it should be."""
        height, width = image.shape[:2]
        first, _ = self.mesh(image, Roi(width / 2, height / 2 + LOWER * side, SIDE * side, 0.0))
        return roi_of_mesh(first)
