"""What goes with a smile: cheeks, lower lids and the sides of the nose rise, and light falls on them otherwise.

    R'(x) = exp(a d(x)) R(x + f(x))        f: by `a` smiles, from the points of the face mesh

A drawing of 128 pixels smiles with the mouth; the face around it stays as it was, which looks put on. How far it does,
the corners of its mouth say: apart and up, both, so that neither a mouth that opens nor a head that turns is taken for
a smile. What the rest of a face does then is the mean of people who were photographed neutral and smiling
(`training.people128.smile_pairs`), turned as this head is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from sg3cli.compositing.face_mask import smoothstep
from sg3cli.compositing.mouth_motion import around_mouth, spread
from sg3cli.compositing.optical_flow import GRID, Shape
from sg3cli.compositing.transfer import Transfer, read_moved, sized
from sg3cli.faces.drawn_mesh import LIPS, STILL, still_pose

LID_EDGES = (7, 163, 144, 145, 153, 154, 155, 249, 390, 373, 374, 380, 381, 382)  # lower ones, of both eyes
BELOW_LIDS = (25, 110, 24, 23, 22, 26, 112, 255, 339, 254, 253, 252, 256, 341)
CORNERS = (61, 291)  # of the mouth, the person's right and left
MORE = 2.0  # of the motion: a smile for a photographer hardly reaches the eyes, one that is meant does
LIDS = 1.6  # of that of the lower lids, beyond it
LIGHTER = 0.3  # of the light: most of it drawings and the network tell, and twice is a stain
SMILES = (0.2, 0.5)  # of a smile: less is none, or a mesh that trembles; from here on it counts in full
MOST = 1.8  # smiles
# Of the picture of a neutral face: where its middle lies, and its part between the eyes' outer corners.
MIDDLE, EYES = (0.5, 0.45), 0.35
LEAST = 0.1  # pixels of the grid that one moves the corners by; a head that hides it is not judged


class Smiling(NamedTuple):
    """One smile by points of the face mesh: where they lie on a neutral face `[468, 3]` (unit: from the outer corner of
    one eye to that of the other), how they move `[468, 3]`, and the logarithm of the factor by which skin is lighter
    then, on a picture of that face `[R, R]` (`on_picture`)."""

    shape: np.ndarray
    motion: np.ndarray
    light: np.ndarray


def smiled(
    maps: Transfer, edited: np.ndarray, points: tuple[np.ndarray, np.ndarray], smiling: Smiling
) -> tuple[Transfer, np.ndarray]:
    """The `maps` and the drawing `edited [N, M, 3]` (levels) with what goes with its smile; as they are without one.

    `points`: the meshes `[468, 3]` of the drawings without and with the edit, in pixels of the maps' grid.
    """
    turned = smiling.motion @ still_pose(smiling.shape, points[0])
    share = smiles(*points, turned)
    if share == 0:
        return maps, edited
    shape = (maps.motion.shape[0], maps.motion.shape[1])
    moved = MORE * share * turned[:, :2]
    moved[[*LID_EDGES, *BELOW_LIDS]] *= LIDS
    follows = beside_mouth(spread(-moved, points[0][:, :2] + moved, shape) / GRID, points[1])
    result = maps.read_at(follows)
    lighter = np.exp(seen_from(LIGHTER * share * smiling.light, smiling.shape, points[1], shape))
    drawn = read_moved(edited, follows, GRID) * sized(lighter, (edited.shape[0], edited.shape[1]))
    return replace(result, gain=(1 + result.gain) * lighter - 1), drawn.clip(0, 255)


def smiles(before: np.ndarray, after: np.ndarray, turned: np.ndarray) -> float:
    """How many smiles lead from the mesh `before [468, 3]` to `after`; `turned [468, 3]`: one, as this head is turned.

    The lesser of what the corners' distance and their height say; 0 where these disagree.
    """
    right, left = CORNERS
    done, whole = ((motion - motion[STILL].mean(axis=0))[:, :2] for motion in (after - before, turned))
    wide, wide_whole = (float((motion[left] - motion[right])[0]) for motion in (done, whole))
    high, high_whole = (float((motion[left] + motion[right])[1]) for motion in (done, whole))
    if min(abs(wide_whole), abs(high_whole)) < LEAST:
        return 0.0
    told = wide / wide_whole, high / high_whole
    least = min(told, key=abs) if told[0] * told[1] > 0 else 0.0
    sure = smoothstep(np.array((abs(least) - SMILES[0]) / (SMILES[1] - SMILES[0])))
    return float(np.clip(sure * least, -MOST, MOST))


def on_picture(shape: np.ndarray, side: int) -> np.ndarray:
    """Where points of a neutral face `[n, 3]` lie on the picture of it that has so many pixels a side, `[n, 2]`."""
    result: np.ndarray = side * (np.array(MIDDLE) + EYES * shape[:, :2])
    return result


def seen_from(image: np.ndarray, face: np.ndarray, points: np.ndarray, shape: Shape) -> np.ndarray:
    """The picture `[R, R]` of a neutral `face [468, 3]` as its mesh `points [468, 3]` lie on a grid of `shape`:
    `[h, w, 1]` float32."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    onto = on_picture(face, len(image))
    scale = len(image) / GRID
    offset = spread(onto - scale * points[:, :2], points[:, :2], shape)
    where = scale * np.stack([x, y], axis=-1) + offset - 0.5
    read = cv2.remap(image, where.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.asarray(read)[..., None]


def beside_mouth(values: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The map `[h, w, C]` without what the drawings tell: 0 at the mouth of the mesh `after [468, 3]`."""
    shape = (values.shape[0], values.shape[1])
    result: np.ndarray = (1 - around_mouth(after[LIPS, :2], shape)[..., None]) * values
    return result.astype(np.float32)
