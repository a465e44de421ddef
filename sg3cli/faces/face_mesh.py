"""The 468-point face mesh (Kartynnik et al. 2019, arXiv:1907.06724), run by cv2.dnn on an upright crop."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from sg3cli.faces.association import MARGIN, Roi

SIDE = 192
POINTS = 468
RIGHT_EYE, LEFT_EYE = 33, 263  # outer corners, the person's right and left


def roi_matrix(roi: Roi) -> np.ndarray:
    """`[2, 3]` affine map from crop coordinates (0..192, continuous) to frame coordinates."""
    c, s = math.cos(roi.angle) * roi.side / SIDE, math.sin(roi.angle) * roi.side / SIDE
    half = SIDE / 2
    return np.array([[c, -s, roi.x - half * (c - s)], [s, c, roi.y - half * (s + c)]])


class FaceMesh:
    """The landmark network."""

    def __init__(self, model: Path) -> None:
        self.net = cv2.dnn.readNetFromTFLite(str(model), cv2.dnn.ENGINE_CLASSIC)

    def __call__(self, rgb: np.ndarray, roi: Roi) -> tuple[np.ndarray, float]:
        """Mesh `[468, 3]` float64 (x, y in frame pixels, z in the same unit) and the presence score 0..1."""
        crop = cut(rgb, roi).astype(np.float32) / 255
        self.net.setInput(crop.transpose(2, 0, 1)[None])
        points, logit = self.net.forward(["conv2d_21", "conv2d_31"])
        mesh = points.reshape(POINTS, 3).astype(np.float64)
        linear, offset = roi_matrix(roi)[:, :2], roi_matrix(roi)[:, 2]
        mesh[:, :2] = mesh[:, :2] @ linear.T + offset
        mesh[:, 2] *= roi.side / SIDE
        return mesh, 1 / (1 + math.exp(-float(np.clip(logit.reshape(-1)[0], -80, 80))))


def cut(rgb: np.ndarray, roi: Roi) -> np.ndarray:
    """The square `roi` of the frame as `[192, 192, 3] uint8`, black outside; averaged first when it is large."""
    matrix = roi_matrix(roi)
    shrink = int(roi.side / SIDE)
    if shrink >= 2:
        rgb, matrix = _shrunk(rgb, matrix, shrink)
    linear, offset = matrix[:, :2], matrix[:, 2]
    # cv2 counts from pixel centres; our coordinates have them at +0.5.
    centred = np.hstack([linear, (offset + linear @ (0.5, 0.5) - 0.5)[:, None]])
    return cv2.warpAffine(rgb, centred, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _shrunk(rgb: np.ndarray, matrix: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The part of the frame under the crop, `factor` times smaller, and the crop's matrix in it."""
    corners = np.array([[0, 0, 1], [0, SIDE, 1], [SIDE, SIDE, 1], [SIDE, 0, 1]]) @ matrix.T
    limit = rgb.shape[1::-1]
    low = np.clip(np.floor(corners.min(0)), 0, np.array(limit) - 1).astype(int)
    high = np.clip(np.ceil(corners.max(0)), low + 1, limit).astype(int)
    part = rgb[low[1] : high[1], low[0] : high[0]]
    size = np.maximum((high - low) // factor, 1)
    small = cv2.resize(part, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA)
    scale = size / (high - low)
    return small, np.hstack([matrix[:, :2] * scale[:, None], ((matrix[:, 2] - low) * scale)[:, None]])


def roi_of_detection(box: np.ndarray, points: np.ndarray) -> Roi:
    """The square around a detection: its box (`[4]`), turned so that the eyes (`points[0:2]`) are level."""
    dx, dy = points[1] - points[0]
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    return Roi(float(centre[0]), float(centre[1]), MARGIN * float(size.max()), math.atan2(dy, dx))


def roi_of_mesh(mesh: np.ndarray) -> Roi:
    """The square around a mesh `[468, 2+]`, turned so that the outer eye corners are level."""
    dx, dy = mesh[LEFT_EYE, :2] - mesh[RIGHT_EYE, :2]
    angle = math.atan2(dy, dx)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    upright = mesh[:, :2] @ turn
    low, high = upright.min(0), upright.max(0)
    x, y = turn @ ((low + high) / 2)
    return Roi(float(x), float(y), MARGIN * float((high - low).max()), angle)
