"""Skin that is older shows more of its own structure, skin that is younger less: what the source has is made use of.

    R' = R + amount (R * g(fine) - R * g(wide))        g: Gaussians of FINE frame pixels and WIDE of the face's grid

A drawing of 128 pixels has folds and no pores, lines or spots; the footage has those of the very person. R is the frame
with the folds. Read by a network that had no part in anything, half of them more is four years, half of them less six.
More is deeper relief, light and dark alone: redness that was brought out was taken for a disease, and spots for stains,
so that lines come out most. Single pixels, which are the camera's noise, stay, and so do eyes, brows, nose and mouth,
whose structure is their shape.
"""

from __future__ import annotations

from itertools import chain

import cv2
import numpy as np

from sg3cli.compositing.channels import scaled, weighted
from sg3cli.compositing.face_mask import beyond_face, smoothstep
from sg3cli.compositing.face_parts import PARTS, beyond_part
from sg3cli.compositing.wide_blur import wide_blur

LIGHT = np.array([0.299, 0.587, 0.114], np.float32)
FINE = 0.8  # frame pixels
WIDE = 2.0  # pixels where the face's square has 128
INSET = 0.03  # shares of the face's height: how far from its outline skin begins
LINE = (0.2, 0.7)  # coherence of what is no line, and of what is one
LEAST_LINE = 0.2  # of a spot's relief that comes out
RIM = (0.2, 0.35)  # relief, as a share of lightness, that skin may have; that is none of skin's
BESIDE = 2.5  # of the wider Gaussian, as deviations: so far it makes a halo
DARK = 6.0  # levels added to lightness
FEATURE = 0.035  # how far around eyes, brows, nose and mouth there is none
SOFT = 0.08


def skin_mask(landmarks: np.ndarray, shape: tuple[int, int], margin: float = 1.0) -> np.ndarray:
    """0..1 `[h, w]` float32: skin of the face, from landmarks `[68, 2]` in pixels of the crop; 0 where they are nan.

    `margin`: how far it stays away from the outline, eyes, brows, nose and mouth, as a share of what is usual.
    """
    mask = smoothstep((-beyond_face(landmarks, shape) - margin * INSET) / (margin * SOFT))
    if not mask.any():
        return mask.astype(np.float32)
    for feature in chain.from_iterable(PARTS.values()):
        mask = mask * smoothstep((beyond_part(landmarks, feature, shape) - margin * FEATURE) / (margin * SOFT))
    return mask.astype(np.float32)


def lines(relief: np.ndarray, wide: float) -> np.ndarray:
    """LEAST_LINE..1 `[h, w]`: how far structure `[h, w]` runs one way within `wide` pixels: a line does, a spot not.

    The coherence of its structure tensor, (l1 - l2) / (l1 + l2) for the eigenvalues l1 >= l2.
    """
    dx, dy = (cv2.Sobel(relief, cv2.CV_32F, *way, ksize=3) for way in ((1, 0), (0, 1)))
    xx, xy, yy = (wide_blur(a, wide) for a in (dx * dx, dx * dy, dy * dy))
    coherence = np.sqrt((xx - yy) ** 2 + 4 * xy * xy) / (xx + yy + 1e-3)
    result: np.ndarray = LEAST_LINE + (1 - LEAST_LINE) * smoothstep((coherence - LINE[0]) / (LINE[1] - LINE[0]))
    return result


def deeper_than_skin(relief: np.ndarray, wide: float) -> np.ndarray:
    """0..1 `[h, w]`: where something no deeper than its `relief [h, w]`, as a share of lightness, is no part of skin:
    the rim of glasses, a strand of hair; and beside it."""
    side = 2 * round(BESIDE * wide) + 1
    near = cv2.dilate(np.abs(relief).astype(np.float32), np.ones((side, side), np.uint8))
    return smoothstep((near - RIM[0]) / (RIM[1] - RIM[0])).astype(np.float32)


def with_structure(image: np.ndarray, amount: np.ndarray, pixels: float) -> np.ndarray:
    """`image [h, w, 3]` float32 with a share `amount [h, w]` more (or less) of its structure.

    `pixels`: of the frame, for one of the grid.
    """
    wide = max(WIDE * pixels, 2 * FINE)
    around = wide_blur(image, wide)
    structure = cv2.GaussianBlur(image, (0, 0), FINE) - around
    light = weighted(structure, LIGHT)
    amount = amount * (1 - deeper_than_skin(light / (weighted(around, LIGHT) + DARK), wide))
    if (amount > 0).any():
        structure = np.where(amount[..., None] > 0, (light * lines(light, wide))[..., None], structure)
    result: np.ndarray = image + scaled(structure, amount)
    return result
