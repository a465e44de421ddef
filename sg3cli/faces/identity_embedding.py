"""Vectors that tell people apart: what they look like, or a face recognition network of the user's own.

Any ONNX network serves that takes an aligned face `[1, 3, 112, 112]`, RGB in [-1, 1], and gives one vector, as those of
the ArcFace family do (Deng et al. 2019, arXiv:1801.07698). It runs in cv2.dnn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sg3cli.errors import ModelError
from sg3cli.faces.appearance import SAME, appearance, unit

SIDE = 112
SAME_NETWORK = 1.15  # distance of unit vectors: a cosine of about 0.34
# Where such networks expect the eyes, the nose and the corners of the mouth in their 112 pixels.
PLACES = np.array([[38.29, 51.70], [73.53, 51.50], [56.03, 71.74], [41.55, 92.37], [70.73, 92.20]])


@dataclass(frozen=True)
class Embedder:
    """`vector(rgb [H, W, 3] uint8, landmarks [68, 2]) -> [K]` of length 1; closer than `same` is the same person."""

    vector: Callable[[np.ndarray, np.ndarray], np.ndarray]
    same: float


def make_embedder(network: str | None) -> Embedder:
    """The embedder in the file `network`, or the one that goes by appearance. Raises `ModelError` for another file."""
    return Embedder(appearance, SAME) if network is None else Embedder(OnnxFaces(Path(network)), SAME_NETWORK)


class OnnxFaces:
    """A face recognition network."""

    def __init__(self, path: Path) -> None:
        try:
            self.net = cv2.dnn.readNetFromONNX(str(path))
            self.length = self._forward(np.zeros((SIDE, SIDE, 3), np.uint8)).size
        except cv2.error as error:
            hint = "give an ONNX network that takes [1, 3, 112, 112] and gives one vector"
            raise ModelError(f"{path} cannot be used to tell faces apart", hint) from error

    def __call__(self, rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Unit vector `[K]` float32 of a face."""
        points = [landmarks[36:42].mean(0), landmarks[42:48].mean(0), landmarks[30], landmarks[48], landmarks[54]]
        matrix = similarity_to(np.array(points), PLACES)
        crop = cv2.warpAffine(rgb, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        return unit(self._forward(crop).reshape(-1).astype(np.float32))

    def _forward(self, crop: np.ndarray) -> np.ndarray:
        # Not `levels.to_signed`, whose last bit may differ: this is how these networks were trained.
        self.net.setInput(((crop.astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None])
        return np.asarray(self.net.forward())


def similarity_to(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    """`[2, 3]` turn, scale and shift that brings `points [N, 2]` to `places [N, 2]` best (least squares)."""
    p, q = (x[:, 0] + 1j * x[:, 1] for x in (points.astype(np.float64), places))
    turn = np.vdot(p - p.mean(), q - q.mean()) / max(np.vdot(p - p.mean(), p - p.mean()).real, 1e-12)
    shift = q.mean() - turn * p.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
