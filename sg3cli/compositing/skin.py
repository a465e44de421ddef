"""Skin that is older shows more of its own structure, skin that is younger less: what the source has is made use of.

    R' = R + amount (R * g(fine) - R * g(wide))        g: Gaussians of FINE frame pixels and WIDE of the face's grid

A drawing of 128 pixels has folds and no pores, lines or spots; the footage has those of the very person. R is the frame
with the folds. Read by a network that had no part in anything, half of them more is four years, half of them less six.
More is deeper relief, light and dark alone: redness that was brought out was taken for a disease. Single pixels, which
are the camera's noise, stay, and so do eyes, brows, nose and mouth, whose structure is their shape.
"""

from __future__ import annotations

import cv2
import numpy as np

from sg3cli.compositing.face_mask import BROWS, CHIN, convex_distance, face_outline, pixel_centres, smoothstep
from sg3cli.compositing.wide_blur import wide_blur

LIGHT = np.array([0.299, 0.587, 0.114], np.float32)
FINE = 0.8  # frame pixels
WIDE = 2.0  # pixels where the face's square has 128
INSET = 0.03  # shares of the face's height: how far from its outline skin begins
FEATURE = 0.035  # how far around eyes, brows, nose and mouth there is none
SOFT = 0.08
FEATURES = (range(17, 22), range(22, 27), range(27, 36), range(36, 42), range(42, 48), range(48, 60))


def skin_mask(landmarks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """0..1 `[h, w]` float32: skin of the face, from landmarks `[68, 2]` in pixels of the crop; 0 where they are nan."""
    if not np.isfinite(landmarks).all() or np.ptp(landmarks, axis=0).min() < 1:
        return np.zeros(shape, np.float32)
    tall, at = float(np.linalg.norm(landmarks[BROWS].mean(axis=0) - landmarks[CHIN])), pixel_centres(shape)
    mask = smoothstep((-convex_distance(face_outline(landmarks), at) / tall - INSET) / SOFT)
    for feature in FEATURES:
        outline = cv2.convexHull(landmarks[list(feature)].astype(np.float32))[:, 0].astype(np.float64)
        mask = mask * smoothstep((convex_distance(outline, at) / tall - FEATURE) / SOFT)
    return mask.astype(np.float32)


def with_structure(image: np.ndarray, amount: np.ndarray, pixels: float) -> np.ndarray:
    """`image [h, w, 3]` float32 with a share `amount [h, w]` more (or less) of its structure.

    `pixels`: of the frame, for one of the grid.
    """
    wide = max(WIDE * pixels, 2 * FINE)
    structure = cv2.GaussianBlur(image, (0, 0), FINE) - wide_blur(image, wide)
    relief = (structure @ LIGHT)[..., None]
    result: np.ndarray = image + amount[..., None] * np.where(amount[..., None] > 0, relief, structure)
    return result
