"""The face mesh of two drawings of one face, whose place in the window is known: what an edit moved."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sg3cli.faces.association import Roi
from sg3cli.faces.face_mesh import FaceMesh, roi_of_mesh
from sg3cli.weights import store

LOWER, SIDE = 0.08, 0.95  # of the window's square: how far below its middle a face lies, and the square to look at
MIN_PRESENCE = 0.5
# Points that no expression moves: the nose's bridge, the forehead, the temples and the corners of the eyes.
STILL = np.array(
    [10, 151, 9, 8, 168, 6, 109, 338, 67, 297, 103, 332, 54, 284, 21, 251, 162, 389, 127, 356, 33, 263, 133, 362]
)
LIPS = np.array([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409])  # outline
OVAL = np.array(  # the face's outline
    [
        *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
        *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
    ]
)


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
        """Points `[468, 3]` of a drawing or an aligned photograph `[h, w, 3]` uint8; None where it shows no face."""
        points, found = self.mesh(image, self._roi(image, side))
        return points if found >= MIN_PRESENCE else None

    def alike(self, images: Sequence[np.ndarray], side: float) -> list[np.ndarray | None]:
        """Points `[468, 3]` of each of the `images [h, w, 3]` uint8 of one window; None for one that shows no face.

        All are looked at through one square, that of the first one's face, so that errors which they share cancel.
        """
        roi = self._roi(images[0], side)
        return [points if found >= MIN_PRESENCE else None for points, found in (self.mesh(i, roi) for i in images)]

    def _roi(self, image: np.ndarray, side: float) -> Roi:
        """The square around the face, from a first look at where it should be."""
        height, width = image.shape[:2]
        first, _ = self.mesh(image, Roi(width / 2, height / 2 + LOWER * side, SIDE * side, 0.0))
        return roi_of_mesh(first)


def still_pose(shape: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`[3, 3]`: what turns and scales offsets on a face of the `shape [468, 3]` into those on a mesh `points [468, 3]`
    (`offset @ result`), by the points that no expression moves (Umeyama 1991, equations 40 to 42)."""
    a, b = (values[STILL] - values[STILL].mean(axis=0) for values in (shape, points))
    left, sizes, right = np.linalg.svd(a.T @ b)
    signs = np.array([1, 1, np.sign(np.linalg.det(left @ right))])
    result: np.ndarray = (left * signs) @ right * float((sizes * signs).sum() / (a * a).sum())
    return result
