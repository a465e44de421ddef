"""Squares in frames: the FFHQ alignment, maps between squares, and images seen through them.

A quad is a square `[..., 4, 2]` with corners TL, BL, BR, TR in continuous frame pixels (the first pixel's centre is at
(0.5, 0.5)). A canvas coordinate is normalised and centred: a square spans [-0.5, 0.5] in both directions. A quad's
parameters are `[..., 4]`: centre x and y, angle in radians (clockwise on screen), logarithm of half its side.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from sg3cli.errors import UsageError

LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)  # left and right in the image
LEFT_MOUTH, RIGHT_MOUTH = 48, 54
RULES = ("ffhq", "eyes")


def ffhq_quad(landmarks: np.ndarray, rule: str = "ffhq") -> np.ndarray:
    """The aligned square `[..., 4, 2]` of landmarks `[..., 68, 2]` (Karras et al. 2018, appendix C).

    `rule`: "ffhq" sizes it by the larger of eye and mouth distance, as the training data was; "eyes" by the eyes
    alone, as the reference's video code does.
    """
    if rule not in RULES:
        raise UsageError(f"no alignment rule is called '{rule}'", f"one of: {', '.join(RULES)}")
    points = np.asarray(landmarks, np.float64)
    left, right = points[..., LEFT_EYE, :].mean(-2), points[..., RIGHT_EYE, :].mean(-2)
    eyes, across = (left + right) / 2, right - left
    down = (points[..., LEFT_MOUTH, :] + points[..., RIGHT_MOUTH, :]) / 2 - eyes
    x = across - _quarter_turn(down)
    half = 2.0 * np.linalg.norm(across, axis=-1)
    if rule == "ffhq":
        half = np.maximum(half, 1.8 * np.linalg.norm(down, axis=-1))
    x = x / np.linalg.norm(x, axis=-1, keepdims=True) * half[..., None]
    return quad_from_axes(eyes + 0.1 * down, x)


def quad_from_axes(centre: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The square with `centre [..., 2]` whose half-axis to the right is `x [..., 2]`."""
    y = _quarter_turn(x)
    return np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y], axis=-2)


def axes_of(quad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half-axis to the right, both `[..., 2]`, of a square."""
    top_left, _, bottom_right, top_right = (quad[..., k, :] for k in range(4))
    return (top_left + bottom_right) / 2, (top_right - top_left) / 2


def quad_to_params(quad: np.ndarray) -> np.ndarray:
    """Parameters `[..., 4]` of squares `[..., 4, 2]`: centre x and y, angle, log of half the side."""
    centre, x = axes_of(quad)
    angle = np.arctan2(x[..., 1], x[..., 0])
    return np.concatenate([centre, np.stack([angle, np.log(np.linalg.norm(x, axis=-1))], -1)], -1)


def params_to_quad(params: np.ndarray) -> np.ndarray:
    """Inverse of `quad_to_params`."""
    angle, half = params[..., 2], np.exp(params[..., 3])
    return quad_from_axes(params[..., :2], np.stack([half * np.cos(angle), half * np.sin(angle)], -1))


def analytic_transform(quad: np.ndarray, window: np.ndarray) -> np.ndarray:
    """M `[..., 3, 3]` from the canvas of `quad` to the canvas of `window`: what is at u there is at v = M u here.

    With A = 2 [x y] and c of each square, v = A_w^-1 (A_q u + c_q - c_w). It takes the place of detecting the
    landmarks again on both images (Alaluf et al. 2022, section 5): exact, and with the scale.
    """
    linear_q, centre_q = _linear(quad)
    linear_w, centre_w = _linear(window)
    M = np.zeros((*np.broadcast_shapes(linear_q.shape, linear_w.shape)[:-2], 3, 3))
    M[..., :2, :2] = np.linalg.solve(linear_w, linear_q)
    M[..., :2, 2] = np.linalg.solve(linear_w, (centre_q - centre_w)[..., None])[..., 0]
    M[..., 2, 2] = 1
    return M


def similarity(tx: float, ty: float, degrees: float, scale: float = 1.0) -> np.ndarray:
    """Matrix `[3, 3]` that turns counter-clockwise on screen by `degrees`, scales, and shifts by (tx, ty)."""
    c, s = math.cos(math.radians(degrees)) * scale, math.sin(math.radians(degrees)) * scale
    return np.array([[c, s, tx], [-s, c, ty], [0.0, 0.0, 1.0]])


def rotation_degrees(M: np.ndarray) -> np.ndarray:
    """Counter-clockwise angle on screen, in degrees, of similarity matrices `[..., 3, 3]`."""
    result: np.ndarray = np.degrees(np.arctan2(M[..., 0, 1], M[..., 0, 0]))
    return result


def quad_matrix(quad: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """`[3, 3]` from continuous crop pixels to frame pixels; `size` is the crop's side, or (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    top_left, bottom_left, _, top_right = np.asarray(quad, np.float64)
    matrix = np.eye(3)
    matrix[:2, 0] = (top_right - top_left) / width
    matrix[:2, 1] = (bottom_left - top_left) / height
    matrix[:2, 2] = top_left
    return matrix


def expanded_quad(quad: np.ndarray, shares: tuple[float, float, float, float]) -> np.ndarray:
    """The square `[..., 4, 2]` grown to the left, right, top and bottom by `shares` of its side: a rectangle."""
    top_left, bottom_left, _, top_right = (quad[..., k, :] for k in range(4))
    x, y = top_right - top_left, bottom_left - top_left
    left, right, top, bottom = shares
    corners = ((-left, -top), (-left, 1 + bottom), (1 + right, 1 + bottom), (1 + right, -top))
    return np.stack([top_left + across * x + down * y for across, down in corners], axis=-2)


def warp_quad(rgb: np.ndarray, quad: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """The frame `[H, W, 3]` (uint8 or float, 0..255) seen through `quad [4, 2]`: `[size, size, 3]` float32.

    `size` may be (height, width) where the quad is a rectangle of that aspect.

    One resampling in float: cubic where the image is enlarged; where it is reduced, as many samples per pixel as
    the frame has, averaged. Beyond its border the frame is mirrored.
    """
    height, width = (size, size) if isinstance(size, int) else size
    side = float(np.linalg.norm(quad[3] - quad[0]))
    samples = max(1, math.ceil(side / width - 1e-6))
    matrix = quad_matrix(quad, (height * samples, width * samples))
    part, origin = _part_under(rgb, quad)
    matrix[:2, 2] -= origin
    # cv2 counts from pixel centres, which lie at +0.5 here, on both sides.
    matrix[:2, 2] += matrix[:2, :2] @ (0.5, 0.5) - 0.5
    method = cv2.INTER_CUBIC if samples == 1 else cv2.INTER_LINEAR
    fine = cv2.warpAffine(
        part.astype(np.float32),
        matrix[:2],
        (width * samples, height * samples),
        flags=method | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )
    crop = fine if samples == 1 else cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    result: np.ndarray = np.clip(crop, 0, 255)
    return result


def _part_under(rgb: np.ndarray, quad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part of a frame that a quad can see, mirror images at the border included, and its corner's position."""
    limit = np.array(rgb.shape[1::-1])
    low, high = np.floor(quad.min(0)) - 4, np.ceil(quad.max(0)) + 4
    beyond_low, beyond_high = np.maximum(-low, 0), np.maximum(high - limit, 0)
    low = np.clip(np.minimum(low, limit - beyond_high), 0, limit - 1).astype(int)
    high = np.clip(np.maximum(high, beyond_low), low + 1, limit).astype(int)
    return rgb[low[1] : high[1], low[0] : high[0]], low


def _quarter_turn(vector: np.ndarray) -> np.ndarray:
    """`[..., 2]` turned by 90 degrees, right to down."""
    return np.stack([-vector[..., 1], vector[..., 0]], axis=-1)


def _linear(quad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2 [x y] `[..., 2, 2]` (columns) and centre `[..., 2]` of a square."""
    centre, x = axes_of(np.asarray(quad, np.float64))
    return 2 * np.stack([x, _quarter_turn(x)], axis=-1), centre
