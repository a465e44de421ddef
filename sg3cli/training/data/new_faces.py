"""Photographs of people who do not exist: the variety that a thousand photographed people lack.

An encoder that sees the same photographs for hours learns them by heart (measured: training photographs at a feature
distance of 1.84 where held-out ones were at 2.01). So each is changed in ways that keep it a photograph: the face of
somebody else with a like pose, warped to landmarks between the two and brought to the first one's colours, within the
first one's hair and background; a smooth random warp; light from a side, gamma and saturation. What the encoder has to
draw is the changed picture, so nothing here needs to be believed by a person, only to be sharp and free of seams.
"""

from __future__ import annotations

import numpy as np
from scipy.interpolate import RBFInterpolator

GRID = 24  # points a side at which a warp is computed; between them it is smooth anyway
BORDER = np.array([(x, y) for x in (0, 0.5, 1) for y in (0, 0.5, 1) if (x, y) != (0.5, 0.5)])  # shares; stay put
FEATHER = 0.035  # of the side: width of the seam
LIKE_POSE = 8.0  # degrees of yaw and of pitch between two faces that may be exchanged


def exchanged(
    image: np.ndarray, points: np.ndarray, other: np.ndarray, other_points: np.ndarray, shape: float
) -> tuple[np.ndarray, np.ndarray]:
    """The face of `other` in the surroundings of `image` (both [S,S,3] uint8, landmarks [68,2] in shares of the side).

    `shape` in 0..1: 0 keeps the first one's landmarks, 1 takes the other's (turned and scaled to the first one's).
    Returns the picture and its landmarks.
    """
    goal = points + shape * (_fitted(other_points, points) - points)
    around, face = warped(image, points, goal), warped(other, other_points, goal)
    mask = face_mask(goal, len(image))[..., None]
    face = _coloured_like(face, around, mask)
    mixed = around + mask * (face - around)
    return mixed.clip(0, 255).round().astype(np.uint8), goal


def warped(image: np.ndarray, points: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """image [S,S,3] uint8 with its landmarks moved to `goal` (both [68,2] in shares), float32 [S,S,3] in 0..255.

    A thin-plate spline through the landmarks (Bookstein 1989), a little smoothed, from the goal back to the picture.
    """
    there, here = np.concatenate([goal, BORDER]), np.concatenate([points, BORDER])
    spline = RBFInterpolator(there, here - there, kernel="thin_plate_spline", smoothing=1e-5)
    axis = np.linspace(0, 1, GRID)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    return _moved(image, spline(grid).reshape(GRID, GRID, 2))


def bent(
    image: np.ndarray, points: np.ndarray, rng: np.random.Generator, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random warp: `strength` is the standard deviation of a few moves, in shares of the side.

    Landmarks are those of the warped picture, to first order.
    """
    import cv2

    coarse = strength * rng.standard_normal((5, 5, 2))
    coarse[[0, -1]] = coarse[:, [0, -1]] = 0  # the picture's edge stays where it is
    field = cv2.resize(coarse.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_CUBIC)
    at = (points * (GRID - 1)).astype(np.float32)[:, None]
    here = cv2.remap(field, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
    return _moved(image, field).clip(0, 255).round().astype(np.uint8), points - here


def lit(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """image [S,S,3] uint8 under other light: brighter on a side, another gamma and saturation; same type."""
    side = len(image)
    slope = strength * rng.standard_normal(5)
    x = np.linspace(-1, 1, side, dtype=np.float32)
    ramp = np.exp(slope[0] * x[None, :] + slope[1] * x[:, None] + slope[2] * (x[None, :] ** 2 - 0.33))
    colours = (image / np.float32(255)) ** np.exp(slope[3]) * ramp[..., None]
    grey = colours.mean(-1, keepdims=True)
    colours = grey + np.exp(slope[4]) * (colours - grey)
    return (255 * colours).clip(0, 255).round().astype(np.uint8)


def face_mask(points: np.ndarray, side: int) -> np.ndarray:
    """[S,S] float32 in 0..1: inside the landmarks [68,2] (shares), a little up the forehead, soft towards the rim."""
    import cv2

    brows = points[17:27]
    up = brows + 0.35 * (brows - points[27:31].mean(0)) * [0, 1]
    hull = cv2.convexHull((side * np.concatenate([points, up])).astype(np.float32))
    mask = np.zeros((side, side), np.uint8)
    cv2.fillConvexPoly(mask, hull.round().astype(np.int32), 1)
    reach = max(1, round(FEATHER * side))
    soft = cv2.erode(mask, np.ones((3, 3), np.uint8), iterations=reach).astype(np.float32)
    return cv2.GaussianBlur(soft, (0, 0), reach / 2)


def like_pose(yaw: np.ndarray, pitch: np.ndarray, row: int, identity: np.ndarray) -> np.ndarray:
    """Rows of other people who look where the one of `row` looks; yaw, pitch [N] in degrees, NaN where unknown."""
    near = (np.abs(yaw - yaw[row]) < LIKE_POSE) & (np.abs(pitch - pitch[row]) < LIKE_POSE)
    return np.flatnonzero(near & (identity != identity[row]))


def _moved(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    """image [S,S,3] read where each pixel's place plus `field` [GRID,GRID,2] (shares) points, float32."""
    import cv2

    side = len(image)
    full = cv2.resize(field.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR)
    axis = np.arange(side, dtype=np.float32)
    x, y = axis[None, :] + side * full[..., 0], axis[:, None] + side * full[..., 1]
    return cv2.remap(image.astype(np.float32), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def _fitted(points: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """points [68,2] turned, scaled and moved onto `goal` by least squares (as complex numbers)."""
    a, b = points - points.mean(0), goal - goal.mean(0)
    p, q = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    turned = p * (np.vdot(p, q) / np.vdot(p, p))
    return np.stack([turned.real, turned.imag], 1) + goal.mean(0)


def _coloured_like(face: np.ndarray, around: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """face [S,S,3] with the mean and spread of each colour that `around` has under mask [S,S,1]."""
    weight = mask / mask.sum().clip(1e-6)
    means = [(weight * x).sum((0, 1)) for x in (face, around)]
    spreads = [np.sqrt((weight * (x - m) ** 2).sum((0, 1))) for x, m in zip((face, around), means, strict=True)]
    gain = (spreads[1] / spreads[0].clip(1)).clip(0.5, 1.6)
    coloured: np.ndarray = (face - means[0]) * gain + means[1]
    return coloured
