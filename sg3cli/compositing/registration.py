"""Drawings laid onto the face that they are of: eyes on eyes and lips on lips before an edit is read off them.

A generator draws a talking mouth a few pixels beside where it is, or half as open. What its two drawings tell of an
edit would then be done to the chin. The face mesh of the plain drawing and of the source say how far a drawing is off;
both drawings are moved by that, alike, so that what differs between them stays the edit.
"""

from __future__ import annotations

import cv2
import numpy as np

from sg3cli.compositing.mouth_motion import spread
from sg3cli.compositing.optical_flow import GRID, Shape, at_grid
from sg3cli.compositing.transfer import read_moved
from sg3cli.faces.drawn_mesh import DrawnMesh

SURE = (1.0, 2.0)  # pixels of the grid by which a drawing must be off to be moved; to be moved in full
FARTHEST = 7.0  # pixels: a mesh that says more does not see the same face
SMOOTH = 3.0  # pixels


def laid(
    mesh: DrawnMesh | None, source: np.ndarray, plain: np.ndarray, edited: np.ndarray, shape: Shape
) -> tuple[np.ndarray, np.ndarray]:
    """Drawings `plain`, `edited` `[N, M, 3]` uint8 with the face where `source [H, W, 3]` (levels) has it, seen through
    the same window, whose grid has `shape`; as they are where no mesh tells, or nothing is edited."""
    if mesh is None or np.array_equal(plain, edited):
        return plain, edited
    drawn, seen = (at_grid(image, shape).astype(np.uint8) for image in (plain, source))
    if (points := mesh.pair(drawn, seen, GRID)) is None:
        return plain, edited
    off = offset(points[0][:, :2], points[1][:, :2], shape)
    before, after = (np.rint(read_moved(image, off, GRID)).clip(0, 255).astype(np.uint8) for image in (plain, edited))
    return before, after


def offset(drawn: np.ndarray, source: np.ndarray, shape: Shape) -> np.ndarray:
    """`[h, w, 2]` float32, in units of `GRID` pixels: what the source shows at x, the drawing shows at x + offset.

    `drawn`, `source` `[468, 2]`: the mesh of both, in pixels of the grid of `shape`. 0 where they lie together.
    """
    off = spread(drawn - source, source, shape)
    length = np.linalg.norm(off, axis=2, keepdims=True)
    share = np.clip((length - SURE[0]) / (SURE[1] - SURE[0]), 0, 1) * np.minimum(1, FARTHEST / (length + 1e-6))
    result: np.ndarray = cv2.GaussianBlur(share * off, (0, 0), SMOOTH) / GRID
    return result.astype(np.float32)
