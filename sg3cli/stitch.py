"""Back into the frame: a soft mask that follows the face, a paste that leaves every other pixel as it was.

The face is seen through a square window `[4, 2]` (corners TL, BL, BR, TR in frame pixels). All coordinates
are continuous: the centre of pixel (row i, column j) is at (j + 0.5, i + 0.5).
"""

from __future__ import annotations

import cv2
import numpy as np

from sg3cli.geometry import quad_matrix
from sg3cli.smoothing import runs, smooth_zero_phase

JAW = slice(0, 17)
BROWS = slice(17, 27)
CHIN = 8
MASK_GRID = 256  # the mask is smooth: above this size it is computed on a coarser grid and enlarged

# Shares of the face's height (chin to brows):
FOREHEAD = 0.5  # how far the outline reaches above the brows: the forehead, as little of the hair as may be
OUTSET = 0.02  # how far the mask reaches beyond the outline: room for the edit
BORDER = 0.02  # share of the crop, along its edge, that stays exactly 0

# What counts as a change of shape, for which the source's fine detail is in the wrong place:
SHAPE_FINE = 1 / 40  # share of the crop: changes wider than this are shading or colour, not edges that moved
SHAPE_LEVELS = 20.0  # levels (of 255) of moved edges at which about a third of the detail is left


def smooth_landmarks(landmarks: np.ndarray, times: np.ndarray, sigma: float = 0.08) -> np.ndarray:
    """Landmarks `[T, 68, 2]` without the detector's tremble, so that the mask's edge is calm.

    `times [T]` and `sigma` in seconds. Frames without a face (nan) stay so and part what is smoothed together.
    """
    smooth = landmarks.copy()
    for run in runs(np.isfinite(landmarks).all(axis=(1, 2))):
        smooth[run] = smooth_zero_phase(landmarks[run], times[run], sigma)
    return smooth


def landmarks_in_window(landmarks: np.ndarray, window: np.ndarray, size: int) -> np.ndarray:
    """Landmarks `[68, 2]` from frame pixels to pixels of the `size` x `size` crop through `window [4, 2]`."""
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
    return hull.astype(np.float64)


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
    return (points @ normals.T - (start * normals).sum(axis=1)).max(axis=-1)


def smoothstep(t: np.ndarray) -> np.ndarray:
    """3t^2 - 2t^3 between 0 and 1, constant beyond."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def face_mask(landmarks_in_window: np.ndarray, size: int, feather: float) -> np.ndarray:
    """Opacity `[size, size]` float32 of the face in its crop, from landmarks `[68, 2]` in crop pixels.

    1 on the whole face (chin to hairline), falling smoothly to 0 over `feather` (share of the crop) beyond its
    outline, and to 0 towards the crop's edge whatever the face does. All 0 for landmarks that are not finite.
    """
    if not np.isfinite(landmarks_in_window).all():
        return np.zeros((size, size), dtype=np.float32)
    grid = min(size, MASK_GRID)
    points = landmarks_in_window * (grid / size)
    outline = face_outline(points)
    if np.ptp(outline, axis=0).min() < 1:
        return np.zeros((size, size), dtype=np.float32)
    height = np.linalg.norm(points[BROWS].mean(axis=0) - points[CHIN])
    x = np.arange(grid) + 0.5
    pixels = np.stack(np.meshgrid(x, x), axis=-1)
    soft = max(feather * grid, 1e-3)
    beyond = convex_distance(outline, pixels) - OUTSET * height
    inset = np.minimum(pixels, grid - pixels).min(axis=-1) - max(BORDER * grid, 1.0)
    alpha = smoothstep(1 - beyond / soft) * smoothstep(inset / soft)
    return _enlarge(alpha.astype(np.float32), size)


def _enlarge(alpha: np.ndarray, size: int) -> np.ndarray:
    """Bilinear enlargement to `[size, size]`."""
    if len(alpha) == size:
        return alpha
    return cv2.resize(alpha, (size, size), interpolation=cv2.INTER_LINEAR)


def warp_alpha(alpha: np.ndarray, window: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Opacity `[N, N]` of the crop as opacity `[H, W]` of the frame of `shape`, 0 outside the window."""
    result = np.zeros(shape, dtype=np.float32)
    box = _bounding_box(window, shape)
    if box is not None:
        result[box] = _warp(alpha, window, box)
    return result


def kept_detail(edited: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Share `[N, N]` float32, 0..1, of the source's fine detail that still fits the edited crop.

    `edited`, `plain` `[N, N, 3]` are the generator's face with and without the edit. Where the two differ by edges
    (a mouth that opens) detail would show as a ghost of the source; where they differ by nothing, or by shading and
    colour only, it belongs to the face.
    """
    change = (edited.astype(np.float32) - plain.astype(np.float32)).mean(axis=2)
    sigma = SHAPE_FINE * len(change)
    edges = change - cv2.GaussianBlur(change, (0, 0), sigma)
    energy = cv2.GaussianBlur(edges * edges, (0, 0), sigma)
    return np.exp(-energy / SHAPE_LEVELS**2)


def paste(
    frame: np.ndarray,
    crop: np.ndarray,
    window: np.ndarray,
    alpha: np.ndarray,
    match_ring: bool = False,
    plain: np.ndarray | None = None,
    detail: float = 1.0,
) -> np.ndarray:
    """Blend `crop [N, N, 3]` (levels 0..255) over `frame [H, W, 3]` uint8 through `window [4, 2]`.

    `alpha [N, N]` is the crop's opacity. A pixel where the warped opacity is 0 keeps its bits. `match_ring`
    first shifts the crop's colours by their mean difference from the frame on the soft edge.

    With `plain [N, N, 3]`, the generator's face without the edit, what the generator could not draw of the frame
    (skin, teeth, single hairs, a hand before the face) is put back: `crop + detail * kept * (frame - plain)`. An edit
    that changes nothing then gives the frame itself.
    """
    result = frame.copy()
    box = _bounding_box(window, frame.shape[:2])
    if box is None:
        return result
    opacity = _warp(alpha, window, box)[..., None]
    below = frame[box].astype(np.float32)
    picture = _warp(_prepared(crop, window), window, box)
    if plain is not None and detail > 0:
        lost = 1 - detail * kept_detail(crop, plain)
        base = _warp(_prepared(plain, window), window, box)
        picture = below + (picture - base) + _warp(_prepared(lost, window), window, box)[..., None] * (base - below)
    if match_ring:
        picture += _ring_difference(below, picture, opacity)
    blended = np.rint(np.clip(below + opacity * (picture - below), 0, 255)).astype(np.uint8)
    result[box] = np.where(opacity > 0, blended, frame[box])
    return result


def _ring_difference(below: np.ndarray, picture: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Mean colour difference `[3]` where the opacity `[h, w, 1]` is between 0 and 1."""
    weight = opacity * (1 - opacity)
    return (weight * (below - picture)).sum(axis=(0, 1)) / max(float(weight.sum()), 1e-6)


def _bounding_box(window: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    """Rows and columns of the frame that the window touches; None when it lies outside."""
    low = np.floor(window.min(axis=0)).clip(min=0).astype(int)
    high = np.minimum(np.ceil(window.max(axis=0)).astype(int), [shape[1], shape[0]])
    if (high <= low).any():
        return None
    return slice(low[1], high[1]), slice(low[0], high[0])


def _prepared(crop: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The crop in float32, fit to be read linearly: blurred where the frame has fewer pixels than the crop,
    enlarged by cubic interpolation to about two samples per frame pixel where it has more.
    """
    size = len(crop)
    scale = float(np.linalg.norm(window[3] - window[0])) / size  # frame pixels per crop pixel
    picture = crop.astype(np.float32)
    if scale < 1:
        sigma = 0.5 * float(np.sqrt(scale**-2 - 1))
        picture = cv2.GaussianBlur(picture, (0, 0), max(sigma, 0.01), borderType=cv2.BORDER_REPLICATE)
    zoom = int(np.clip(np.ceil(2 * scale), 2, 8)) if scale > 1 else 1
    if zoom > 1:
        picture = cv2.resize(picture, (zoom * size, zoom * size), interpolation=cv2.INTER_CUBIC)
    return picture


def _warp(picture: np.ndarray, window: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """Read `[N, N]` or `[N, N, 3]` seen through `window` at the frame's pixels in `box`; 0 outside."""
    rows, columns = box
    to_frame = quad_matrix(window, len(picture))
    to_box = np.array([[1, 0, -columns.start], [0, 1, -rows.start], [0, 0, 1]]) @ to_frame
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # cv2 puts pixel centres at whole numbers
    to_picture = np.linalg.inv(half) @ np.linalg.inv(to_box) @ half
    extent = (columns.stop - columns.start, rows.stop - rows.start)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, to_picture[:2], extent, flags=flags, borderMode=cv2.BORDER_CONSTANT)
