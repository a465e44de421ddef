"""Landmarks of schematic faces, and frames composed of two rendered people."""

from __future__ import annotations

import cv2
import numpy as np

SIZE = 64
SIDE = 288


def crop_face(size: float = SIZE, turn: float = 0.0) -> np.ndarray:
    """68 landmarks of a schematic face as FFHQ places it in a crop of `size`, turned by `turn` radians."""
    points = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([0.5 + 0.28 * np.cos(angle), 0.45 + 0.38 * np.sin(angle)], axis=1)
    points[17:27] = np.stack([np.linspace(0.3, 0.7, 10), np.full(10, 0.4)], axis=1)
    points[27:] = [0.5, 0.6]
    c, s = np.cos(turn), np.sin(turn)
    return ((points - 0.5) @ np.array([[c, s], [-s, c]]) + 0.5) * size


def frontal_face(centre=(200.0, 150.0), size=60.0, degrees=0.0):
    """Frontal 68 landmarks with `size` pixels between the eyes, turned clockwise on screen."""
    points = np.zeros((68, 2))
    points[:17] = np.stack([np.linspace(-1.1, 1.1, 17), 1.9 - 1.6 * np.linspace(-1, 1, 17) ** 2], 1)
    points[17:36] = np.stack([np.linspace(-0.7, 0.7, 19), np.full(19, -0.3)], 1)
    ring = np.stack([np.cos(np.arange(6)), np.sin(np.arange(6))], 1) * 0.15
    ring -= ring.mean(0)
    half = np.array([0.5, 0.0])
    points[36:42], points[42:48] = ring - half, ring + half
    points[48:68] = np.stack([np.linspace(-0.3, 0.3, 20), np.full(20, 1.05)], 1)
    points[48], points[54] = (-0.4, 1.05), (0.4, 1.05)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, s], [-s, c]]) * size + centre


def scene(people, *places, size=(360, 640)):
    """A frame of `size` with people at `places` (who, x, y, scale, degrees); and their landmarks."""
    height, width = size
    frame = np.linspace(90, 140, width, dtype=np.float32)[None, :, None] * np.ones((height, 1, 3), np.float32)
    truth = []
    for who, x, y, scale, degrees in places:
        turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), degrees, scale)
        turn[:, 2] += (x - SIDE / 2, y - SIDE / 2)
        mask = np.zeros((SIDE, SIDE), np.float32)
        cv2.circle(mask, (SIDE // 2, SIDE // 2), SIDE // 2 - 12, 1, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), 4)
        source = np.dstack([people[0][who].astype(np.float32), mask])
        if scale < 0.6:
            source = cv2.GaussianBlur(source, (0, 0), 0.4 / scale)
        warped = cv2.warpAffine(source, turn, (width, height), flags=cv2.INTER_LINEAR)
        frame += (warped[..., :3] - frame) * warped[..., 3:]
        truth.append(people[1][who] @ turn[:, :2].T + turn[:, 2])
    return frame.round().astype(np.uint8), np.array(truth)
