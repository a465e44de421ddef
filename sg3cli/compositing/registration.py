"""Drawings laid onto the face that they are of: eyes on eyes and lips on lips before an edit is read off them.

A generator draws a talking mouth a few pixels beside where it is, or half as open. What its two drawings tell of an
edit would then be done to the chin. The face mesh of the plain drawing and of the source say how far a drawing is off;
both drawings are moved by that, alike, so that what differs between them stays the edit.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from sg3cli.compositing import channels
from sg3cli.compositing.mouth_motion import Points, spread
from sg3cli.compositing.optical_flow import GRID, Shape, at_grid
from sg3cli.compositing.transfer import read_moved
from sg3cli.faces.drawn_mesh import DrawnMesh

SURE = (1.0, 2.0)  # pixels of the grid by which a drawing must be off to be moved; to be moved in full
FARTHEST = 7.0  # pixels: a mesh that says more does not see the same face
SMOOTH = 3.0  # pixels
TIMES = 3  # that a moved point is sought from where it was


class Laid(NamedTuple):
    """Drawings `[N, M, 3]` uint8 without and with the edit, where the source has its face; and the face mesh
    `[468, 3]` of both, in pixels of the grid: None where one shows no face, or they agree."""

    plain: np.ndarray
    edited: np.ndarray
    points: Points | None


def laid(mesh: DrawnMesh | None, source: np.ndarray, plain: np.ndarray, edited: np.ndarray, shape: Shape) -> Laid:
    """Drawings `plain`, `edited` `[N, M, 3]` uint8 with the face where `source [H, W, 3]` (levels) has it, seen through
    the same window, whose grid has `shape`; as they are where no mesh tells, or nothing is edited."""
    if mesh is None or np.array_equal(plain, edited):
        return Laid(plain, edited, None)
    drawn, seen, changed = mesh.alike([at_grid(i, shape).astype(np.uint8) for i in (plain, source, edited)], GRID)
    points = None if drawn is None or changed is None else (drawn, changed)
    if drawn is None or seen is None:
        return Laid(plain, edited, points)
    off = offset(drawn[:, :2], seen[:, :2], shape)
    before, after = (np.rint(read_moved(image, off, GRID)).clip(0, 255).astype(np.uint8) for image in (plain, edited))
    return Laid(before, after, None if points is None else (lain(points[0], off), lain(points[1], off)))


def lain(points: np.ndarray, off: np.ndarray) -> np.ndarray:
    """Points `[n, 3]` of a drawing (pixels of the grid), as they lie once that is read at x + `off(x)` `[h, w, 2]`."""
    result = points.copy()
    for _ in range(TIMES):  # x + off(x) = point
        x, y = (result[None, :, k].astype(np.float32) - np.float32(0.5) for k in (0, 1))
        there = cv2.remap(off, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
        result[:, :2] = points[:, :2] - GRID * there
    return result


def offset(drawn: np.ndarray, source: np.ndarray, shape: Shape) -> np.ndarray:
    """`[h, w, 2]` float32, in units of `GRID` pixels: what the source shows at x, the drawing shows at x + offset.

    `drawn`, `source` `[468, 2]`: the mesh of both, in pixels of the grid of `shape`. 0 where they lie together.
    """
    off = spread(drawn - source, source, shape)
    length = channels.length(off)[..., None]
    share = np.clip((length - SURE[0]) / (SURE[1] - SURE[0]), 0, 1) * np.minimum(1, FARTHEST / (length + 1e-6))
    result: np.ndarray = cv2.GaussianBlur(share * off, (0, 0), SMOOTH) / GRID
    return result.astype(np.float32)
