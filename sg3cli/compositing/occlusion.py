"""What of the face's mask the source keeps: hair over the forehead and temples, the background under the mask's soft
edge, and what stands before the face.

Both are judged on a small crop of the source. Hair is what does not have the colour of this face's skin and hangs
together with what lies beyond the outline above the nose. What stands before the face is where the source is far from
the generator's own face, compared with how far it is from it in general: a hand, a microphone, a fringe.
"""

from __future__ import annotations

import cv2
import numpy as np

from sg3cli.compositing.face_mask import BROWS, CHIN, JAW, convex_distance, face_outline, pixel_centres, smoothstep
from sg3cli.smoothing import smooth_zero_phase

GRID = 96  # the square crop is judged at this many pixels a side

# Skin's colour: logarithms of red and blue against green do not change with the light, the brightness does.
DARK = 12.0  # levels added before logarithms: noise in the shadows
CHROMA, LUMA = (0.14, 0.28), (0.5, 0.95)  # from here on less like skin; unlike skin at all
SPREADS = (2.5, 5.0)  # the same in units of the skin's own spread, if that is wider

# Shares of the face's height (chin to brows):
ABOVE_BROWS = (0.07, 0.18)  # so far above the brows hair begins, and counts in full
BEYOND = (0.02, 0.1)  # so far outside the outline what is not skin begins to be the source's, and is so in full
THIN = 0.03  # half the width of what is too thin to be hair or a hand: the arms and rims of glasses

OCCLUDED = (3.0, 5.0)  # the smoothed residual, in units of its median on the face: from here on; in full
LEAST_RESIDUAL = 22.0  # levels below which nothing stands before the face
RESIDUAL_SIGMA = 0.05  # of the face's height

SMOOTHING = 0.05  # seconds over which the maps are smoothed


def visible(source: np.ndarray, plain: np.ndarray | None, landmarks: np.ndarray, hair: bool = True) -> np.ndarray:
    """Share `[H, W]` float32 of the face that may change: 0 on hair and on what stands before the face.

    `source` and `plain` `[H, W, 3]` (levels) are the frame and the generator's face without an edit through the same
    window, `landmarks [68, 2]` in their pixels. Without `plain` only hair is looked for.
    """
    shape = source.shape[:2]
    if not np.isfinite(landmarks).all() or np.ptp(face_outline(landmarks), axis=0).min() < 4:
        return np.ones(shape, np.float32)
    face = _Place(landmarks, shape)
    keep = np.zeros(shape, np.float32)
    if hair:
        keep = hair_mask(source, face)
    if plain is not None:
        keep = np.maximum(keep, occlusion(source, plain, face, keep))
    return 1 - keep


class _Place:
    """Where each pixel `[H, W]` of a crop lies on the face: `distance` to its outline, `up` from chin 0 to brows 1."""

    def __init__(self, landmarks: np.ndarray, shape: tuple[int, int]) -> None:
        pixels = pixel_centres(shape)
        self.landmarks = landmarks
        up = landmarks[BROWS].mean(axis=0) - landmarks[CHIN]
        self.height = float(np.linalg.norm(up))
        self.distance = convex_distance(face_outline(landmarks), pixels) / self.height
        self.up = (pixels - landmarks[CHIN]) @ up / self.height**2

    def hull(self, points: np.ndarray, grow: float = 0.0) -> np.ndarray:
        """Pixels `[H, W]` bool of the convex hull of `points [K, 2]`, grown by a share of the face's height."""
        shape = np.zeros(self.up.shape, np.uint8)
        cv2.fillConvexPoly(
            shape, np.rint(cv2.convexHull(points.astype(np.float32))[:, 0] * 16 - 8).astype(int), 1, shift=4
        )
        return cv2.dilate(shape, _disc(grow * self.height)) > 0 if grow else shape > 0

    def skin(self) -> np.ndarray:
        """Pixels that are skin on nearly every face: cheeks, nose and chin, without eyes and mouth."""
        points = self.landmarks
        area = self.hull(points[JAW]) & (self.distance < -0.06)
        for part in (points[48:60], points[36:42], points[42:48]):
            area &= ~self.hull(part, 0.05)
        result: np.ndarray = area & (self.up < 0.88)
        return result


def _disc(radius: float) -> np.ndarray:
    size = 2 * max(int(np.ceil(radius - 0.25)), 0) + 1
    result: np.ndarray = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return result


def unlike_skin(source: np.ndarray, face: _Place) -> np.ndarray:
    """0..1 `[H, W]` float32: how little each pixel of `source [H, W, 3]` has the colour of this face's skin."""
    logs = np.log(source.astype(np.float32) + DARK)
    features = np.stack([logs[..., 0] - logs[..., 1], logs[..., 2] - logs[..., 1], logs.mean(axis=2)], axis=-1)
    sample = features[face.skin()]
    if len(sample) < 16:
        return np.zeros(source.shape[:2], np.float32)
    middle = np.median(sample, axis=0)
    spread = 1.48 * np.median(np.abs(sample - middle), axis=0)
    away = np.abs(features - middle)
    scores = []
    for part, (low, high) in ((slice(0, 2), CHROMA), (slice(2, 3), LUMA)):
        wide = float(spread[part].max())
        low, high = max(low, SPREADS[0] * wide), max(high, SPREADS[1] * wide)
        scores.append((np.linalg.norm(away[..., part], axis=-1) - low) / (high - low))
    return smoothstep(np.maximum(*scores)).astype(np.float32)


def hair_mask(source: np.ndarray, face: _Place) -> np.ndarray:
    """0..1 `[H, W]` float32: hair that reaches into the face from above or from the side, and what lies behind it."""
    other = unlike_skin(source, face)
    high = smoothstep((face.up - 1 - ABOVE_BROWS[0]) / (ABOVE_BROWS[1] - ABOVE_BROWS[0]))
    side = smoothstep((face.up - 0.5) / 0.2) * smoothstep((face.distance + 0.12) / 0.08)
    region = np.maximum(high, side)
    solid = cv2.morphologyEx((other * region > 0.5).astype(np.uint8), cv2.MORPH_OPEN, _disc(THIN * face.height))
    _, labels = cv2.connectedComponents(solid)
    outer = np.unique(labels[(face.distance > 0) & (solid > 0)])
    hair = np.isin(labels, outer[outer > 0]).astype(np.uint8)
    near = cv2.dilate(hair, _disc(2 * THIN * face.height)).astype(np.float32)
    near = cv2.GaussianBlur(near, (0, 0), max(THIN * face.height, 0.5))
    spread = cv2.dilate(other, _disc(1.0))  # the hairline is mixed of both: what is half hair would turn pale
    beyond = smoothstep((face.distance - BEYOND[0]) / (BEYOND[1] - BEYOND[0]))  # a wall, a collar: no change of colour
    result: np.ndarray = cv2.GaussianBlur(spread, (0, 0), 0.7) * np.maximum(near * region, beyond).astype(np.float32)
    return result


def occlusion(source: np.ndarray, plain: np.ndarray, face: _Place, known: np.ndarray) -> np.ndarray:
    """0..1 `[H, W]` float32: where the source is unlike the generator's face over an area, as this crop goes."""
    sigma = max(RESIDUAL_SIGMA * face.height, 0.5)
    blurred = cv2.GaussianBlur(source.astype(np.float32) - plain.astype(np.float32), (0, 0), sigma)
    inside = (face.distance < 0) & (known < 0.5)
    if not inside.any():
        return np.zeros(source.shape[:2], np.float32)
    cast = np.median(blurred[inside], axis=0)  # a generator that gets the light wrong gets it wrong everywhere
    residual = np.abs(blurred - cast).max(axis=2)
    unit = max(float(np.median(residual[inside])), LEAST_RESIDUAL / OCCLUDED[0])
    score = smoothstep((residual / unit - OCCLUDED[0]) / (OCCLUDED[1] - OCCLUDED[0])).astype(np.float32)
    core = cv2.morphologyEx((score > 0.5).astype(np.uint8), cv2.MORPH_OPEN, _disc(2 * THIN * face.height))
    core = cv2.morphologyEx(core, cv2.MORPH_CLOSE, _disc(3 * THIN * face.height))
    whole = cv2.dilate(core, _disc(2 * THIN * face.height)).astype(np.float32)
    result: np.ndarray = cv2.GaussianBlur(whole, (0, 0), max(THIN * face.height, 0.5))
    return result


# ---- over time -----------------------------------------------------------------------------------------------------


def stretches(present: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """A number for each frame `[T]`, the same within a stretch of one shot that shows the face throughout."""
    changes = (np.diff(present.astype(int)) != 0) | (np.diff(shots) != 0)
    return np.concatenate([[0], np.cumsum(changes)])


def smooth_maps(maps: np.ndarray, times: np.ndarray, numbers: np.ndarray, sigma: float = SMOOTHING) -> np.ndarray:
    """Maps `[T, H, W]` (0..1) smoothed over time without lag, each stretch of equal `numbers [T]` on its own."""
    smooth = np.empty(maps.shape, np.float32)
    for number in np.unique(numbers):
        rows = numbers == number
        smooth[rows] = smooth_zero_phase(maps[rows].astype(np.float32), times[rows], sigma)
    return smooth.clip(0, 1)
