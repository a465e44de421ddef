"""Masks: a soft opacity of the face in its crop, from its landmarks; smoothed over time.

The face is seen through a square window `[4, 2]` (corners TL, BL, BR, TR in frame pixels). All coordinates
are continuous: the centre of pixel (row i, column j) is at (j + 0.5, i + 0.5).
"""

from __future__ import annotations

import cv2
import numpy as np

from sg3cli.geometry import quad_matrix
from sg3cli.smoothing import runs, smooth_zero_phase

Size = int | tuple[int, int]  # a crop's side, or its height and width

JAW = slice(0, 17)
BROWS = slice(17, 27)
CHIN = 8
MASK_GRID = 256  # the mask is smooth: above this size it is computed on a coarser grid and enlarged

# Shares of the face's height (chin to brows):
FOREHEAD = 0.5  # how far the outline reaches above the brows: the forehead, as little of the hair as may be
OUTSET = 0.02  # how far the mask reaches beyond the outline: room for the edit
BORDER = 0.02  # share of the crop, along its edge, that stays exactly 0


def smooth_landmarks(landmarks: np.ndarray, times: np.ndarray, sigma: float = 0.08) -> np.ndarray:
    """Landmarks `[T, 68, 2]` without the detector's jitter, so that the mask's edge is smooth.

    `times [T]` and `sigma` in seconds. Frames without a face (nan) stay so and part what is smoothed together.
    """
    smooth = landmarks.copy()
    for run in runs(np.isfinite(landmarks).all(axis=(1, 2))):
        smooth[run] = smooth_zero_phase(landmarks[run], times[run], sigma)
    return smooth


def landmarks_in_window(landmarks: np.ndarray, window: np.ndarray, size: Size) -> np.ndarray:
    """Landmarks `[68, 2]` from frame pixels to pixels of the crop of `size` through `window [4, 2]`."""
    to_crop = np.linalg.inv(quad_matrix(window, size))
    return landmarks @ to_crop[:2, :2].T + to_crop[:2, 2]


def face_outline(landmarks: np.ndarray) -> np.ndarray:
    """Convex outline `[K, 2]` of the whole face: the jaw line, closed by an arch over the forehead.

    The 68 points end at the brows; the arch is half an ellipse over the two ends of the jaw line whose top
    lies `FOREHEAD` of the face's height above the brows.
    """
    jaw, brows = landmarks[JAW], landmarks[BROWS].mean(axis=0)
    up = brows - jaw[CHIN]
    top = brows + FOREHEAD * up
    middle, half = (jaw[0] + jaw[-1]) / 2, (jaw[-1] - jaw[0]) / 2
    t = np.linspace(0, np.pi, 19)[1:-1, None]
    arch = middle - half * np.cos(t) + (top - middle) * np.sin(t)
    hull = cv2.convexHull(np.concatenate([jaw, arch]).astype(np.float32))[:, 0]
    result: np.ndarray = hull.astype(np.float64)
    return result


def convex_distance(outline: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Signed distance of `points [..., 2]` to the convex `outline [K, 2]`, negative inside.

    The largest distance to the edges' lines: exact inside and beside an edge, smaller than the true distance
    beyond a corner. It moves continuously with the outline, so a mask made from it does not flicker as one
    made from drawn pixels would.
    """
    edges = np.roll(outline, -1, axis=0) - outline
    lengths = np.linalg.norm(edges, axis=1)
    kept = lengths > 1e-6 * lengths.max()
    start, along = outline[kept], edges[kept] / lengths[kept, None]
    normals = np.stack([along[:, 1], -along[:, 0]], axis=1)
    normals *= -np.sign(((outline.mean(axis=0) - start) * normals).sum(axis=1, keepdims=True))  # outwards
    x, y = points[..., 0], points[..., 1]
    result: np.ndarray = np.full(x.shape, -np.inf)
    for (across, down), offset in zip(normals, (start * normals).sum(axis=1), strict=True):
        np.maximum(result, across * x + down * y - offset, out=result)
    return result


def smoothstep(t: np.ndarray) -> np.ndarray:
    """3t^2 - 2t^3 between 0 and 1, constant beyond."""
    t = np.clip(t, 0, 1)
    result: np.ndarray = t * t * (3 - 2 * t)
    return result


def face_mask(landmarks_in_window: np.ndarray, size: Size, feather: float) -> np.ndarray:
    """Opacity `[H, W]` float32 of the face in its crop of `size`, from landmarks `[68, 2]` in crop pixels.

    1 on the whole face (chin to hairline), falling smoothly to 0 over `feather` (share of the crop's smaller side)
    beyond its outline, and to 0 towards the crop's edge whatever the face does. All 0 for landmarks that are not
    finite.
    """
    height, width = shape_of(size)
    if not np.isfinite(landmarks_in_window).all():
        return np.zeros((height, width), dtype=np.float32)
    scale = min(1.0, MASK_GRID / min(height, width))
    grid = (round(height * scale), round(width * scale))
    points = landmarks_in_window * (grid[1] / width, grid[0] / height)
    outline = face_outline(points)
    if np.ptp(outline, axis=0).min() < 1:
        return np.zeros((height, width), dtype=np.float32)
    tall = np.linalg.norm(points[BROWS].mean(axis=0) - points[CHIN])
    soft = max(feather * min(grid), 1e-3)
    beyond = convex_distance(outline, pixel_centres(grid)) - OUTSET * tall
    alpha = smoothstep(1 - beyond / soft).astype(np.float32) * edge_mask(grid, feather)
    return enlarge(alpha, (height, width))


def beyond_face(landmarks_in_window: np.ndarray, size: Size) -> np.ndarray:
    """How far each pixel `[H, W]` of the crop lies outside the face, negative inside, in shares of the face's height.

    Infinite for landmarks `[68, 2]` that are not finite or span nothing.
    """
    shape = shape_of(size)
    if np.isfinite(landmarks_in_window).all():
        outline = face_outline(landmarks_in_window)
        if np.ptp(outline, axis=0).min() >= 1:
            tall = float(np.linalg.norm(landmarks_in_window[BROWS].mean(axis=0) - landmarks_in_window[CHIN]))
            return convex_distance(outline, pixel_centres(shape)) / tall
    return np.full(shape, np.inf)


def edge_mask(size: Size, feather: float) -> np.ndarray:
    """Opacity `[H, W]` float32 of a crop of `size` that falls to 0 towards its edge, and is exactly 0 on it."""
    shape = shape_of(size)
    pixels = pixel_centres(shape)
    inset = np.minimum(pixels, np.array(shape[::-1]) - pixels).min(axis=-1) - max(BORDER * min(shape), 1.0)
    return smoothstep(inset / max(feather * min(shape), 1e-3)).astype(np.float32)


def pixel_centres(shape: tuple[int, int]) -> np.ndarray:
    """`[H, W, 2]`: x and y of the centre of every pixel."""
    return np.stack(np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5), axis=-1)


def shape_of(size: Size) -> tuple[int, int]:
    """(height, width) of a crop given by its side or by both."""
    return (size, size) if isinstance(size, int) else size


def enlarge(alpha: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear enlargement to `shape` (height, width)."""
    if alpha.shape == shape:
        return alpha
    result: np.ndarray = cv2.resize(alpha, shape[::-1], interpolation=cv2.INTER_LINEAR)
    return result
