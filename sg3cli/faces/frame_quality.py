"""How good an image of its face a frame is: seen from the front, eyes open, sharp."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sg3cli.faces.alignment import ABSENT, Track

NOSE, RIGHT_EDGE, LEFT_EDGE = 30, 0, 16  # tip, and the ends of the jaw line
EYES = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))  # corner, two above, corner, two below
OPEN = 0.22  # height of an open eye as a share of its width; a closed one has about 0.1


def frame_quality(track: Track, thumbs: Sequence[np.ndarray | None]) -> np.ndarray:
    """Score `[T]`, 0 to 1, of each frame of a short stretch; 0 without a face.

    `thumbs` are the aligned faces `[N, N, 3]` in [-1, 1]. Sharpness counts against the sharpest of the stretch, so the
    scores of two stretches are not comparable.
    """
    present = track.status != ABSENT
    sharp = np.array([0.0 if thumb is None else sharpness(thumb) for thumb in thumbs])
    scores = np.zeros(len(present))
    marks = track.landmarks[present].astype(np.float64)
    relative = sharp[present] / max(float(sharp.max(initial=0.0)), 1e-12)
    scores[present] = frontality(marks) * np.minimum(openness(marks) / OPEN, 1) * relative
    return scores


def frontality(landmarks: np.ndarray) -> np.ndarray:
    """1 where the nose is midway between the ends of the jaw, 0 where it is over one: `[n, 68, 2]` -> `[n]`."""
    start, across = landmarks[:, RIGHT_EDGE], landmarks[:, LEFT_EDGE] - landmarks[:, RIGHT_EDGE]
    length = np.maximum((across * across).sum(-1), 1e-9)
    share = ((landmarks[:, NOSE] - start) * across).sum(-1) / length
    return np.clip(1 - 2 * np.abs(share - 0.5), 0, 1)


def openness(landmarks: np.ndarray) -> np.ndarray:
    """Height of the eyes as a share of their width, mean of both: `[n, 68, 2]` -> `[n]`."""
    ratios = []
    for a, b, c, d, e, f in EYES:
        width = np.linalg.norm(landmarks[:, d] - landmarks[:, a], axis=-1)
        height = np.linalg.norm(landmarks[:, b] - landmarks[:, f], axis=-1)
        height = (height + np.linalg.norm(landmarks[:, c] - landmarks[:, e], axis=-1)) / 2
        ratios.append(height / np.maximum(width, 1e-9))
    return np.mean(ratios, axis=0)


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian of the brightness of an image `[N, N, 3]`."""
    return float(cv2.Laplacian(image.astype(np.float32).mean(axis=2), cv2.CV_32F).var())
