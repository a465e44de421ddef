"""Parts of a face by its landmarks: masks of what an edit leaves to the source, or where skin is not.

A drawing of 128 pixels has a dozen for an eye. What it changes about one that an edit has nothing to do with is chance:
somebody younger looked with one eye lighter than the other, and his nose ended earlier.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import cv2
import numpy as np

from sg3cli.compositing.face_mask import BROWS, CHIN, beyond_face, convex_distance, pixel_centres, smoothstep
from sg3cli.compositing.optical_flow import GRID, motion_between
from sg3cli.compositing.registration import lain

PARTS: dict[str, tuple[range, ...]] = {  # by iBUG landmarks; each range is one convex outline
    "brows": (range(17, 22), range(22, 27)),
    "eyes": (range(36, 42), range(42, 48)),
    "nose": (range(27, 36),),
    "mouth": (range(48, 68),),
}
REACH = 0.02  # shares of the face's height: how far a part reaches beyond its landmarks
SOFT = 0.07  # over which its mask falls to 0
OUTSIDE = "outside"  # what is not the face
OUTER = (-0.07, 0.01)  # shares of the face's height beyond its outline within which it ends
NARROW = {"mouth": 3.0, "nose": 1.5}  # by how much less a part reaches at its sides: folds cut off there were smudges


def beyond_part(landmarks: np.ndarray, part: range, shape: tuple[int, int]) -> np.ndarray:
    """How far each pixel `[h, w]` lies outside a part, negative inside, in shares of the face's height.

    `landmarks [68, 2]` are finite, in pixels of the crop.
    """
    tall = float(np.linalg.norm(landmarks[BROWS].mean(axis=0) - landmarks[CHIN]))
    outline = cv2.convexHull(landmarks[list(part)].astype(np.float32))[:, 0].astype(np.float64)
    return convex_distance(outline, pixel_centres(shape)) / max(tall, 1e-6)


def part_mask(
    landmarks: np.ndarray, parts: Iterable[str], shape: tuple[int, int], narrow: Mapping[str, float] = NARROW
) -> np.ndarray:
    """0..1 `[h, w]` float32: 1 on the named `parts` of a face, falling smoothly to 0 around them; 0 without a face.

    `landmarks [68, 2]` in pixels of the crop; nan where there is none.
    """
    mask = np.zeros(shape)
    if not np.isfinite(landmarks).all() or np.ptp(landmarks, axis=0).min() < 1:
        return mask.astype(np.float32)
    for part in parts:
        for piece in PARTS[part]:
            beyond = beyond_part(landmarks, piece, shape)
            if part in narrow:
                beyond = beyond * (1 + (narrow[part] - 1) * aside(landmarks[list(piece), 0], shape[1]))
            mask = np.maximum(mask, smoothstep(1 - (beyond - REACH) / SOFT))
    return mask.astype(np.float32)


def on_face(landmarks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """0..1 `[h, w]` float32: 1 on the face with finite `landmarks [68, 2]`, falling smoothly to 0 at its outline."""
    return smoothstep((OUTER[1] - beyond_face(landmarks, shape)) / (OUTER[1] - OUTER[0])).astype(np.float32)


def with_parts(
    edited: np.ndarray, other: np.ndarray, plain: np.ndarray, landmarks: np.ndarray, parts: Collection[str]
) -> np.ndarray:
    """The drawing `edited [N, M, 3]` uint8 with the named parts of an `other` one, `OUTSIDE` among them.

    `landmarks [68, 2]`: of the `plain` drawing, in its pixels; where the other one has them, flow between both says.
    """
    shape = (plain.shape[0], plain.shape[1])
    if not np.isfinite(landmarks).all():
        return edited
    grid = (max(1, round(GRID * shape[0] / min(shape))), max(1, round(GRID * shape[1] / min(shape))))
    scale = grid[0] / shape[0]
    there = lain(landmarks * scale, motion_between(plain, other, grid)) / scale
    whole = {part for part in parts if part != OUTSIDE}
    if "eyes" in whole:
        whole.add("brows")  # or the mask's edge runs through them
    mask = part_mask(there, whole, shape, {})
    if OUTSIDE in parts:
        mask = np.maximum(mask, 1 - on_face(there, shape))
    mixed = edited + mask[..., None] * (other.astype(np.float32) - edited)
    result: np.ndarray = np.rint(mixed).astype(np.uint8)
    return result


def aside(x: np.ndarray, width: int) -> np.ndarray:
    """0..1 `[width]`: 0 in the middle of points at `x [n]`, 1 at the outermost and beyond."""
    middle, half = (x.max() + x.min()) / 2, max(float(np.ptp(x)) / 2, 1e-6)
    result: np.ndarray = np.clip(((np.arange(width) + 0.5 - middle) / half) ** 2, 0, 1)
    return result
