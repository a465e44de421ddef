"""What a face looks like, as a short vector: tells the people of one clip apart, after a cut or an absence.

Colours of hair, skin and surroundings, and where the edges of the face run (histograms of oriented gradients; Dalal
and Triggs 2005), projected by a linear discriminant analysis (Fisher 1936) that was fitted to rendered people under
changing light, size and pose (`sg3cli.training.people128.appearance`). It is no face recognition: it was never taught
real people, and two portraits of one person years apart are nothing to it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from sg3cli.geometry import ffhq_quad, warp_quad

SIDE = 96  # pixels of the aligned crop
COLOURS = 12  # its Lab colours are kept on a grid of this many cells a side
CELLS, TURNS = 8, 8  # cells a side of the gradient histograms, and bins over the whole turn
EDGE_WEIGHT = 30.0  # brings the gradient part to the spread of the colours
INNER = slice(SIDE // 6, SIDE - SIDE // 6)  # rows and columns of brows, eyes, nose and mouth
SKIN = slice(SIDE // 3, 2 * SIDE // 3)
PROJECTION = Path(__file__).parent / "appearance.npz"
SAME = 0.8  # two faces of one clip whose vectors are closer are taken for one person


def features(rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Raw description `[947]` float32 of the face with `landmarks [68, 2]` in the frame `rgb [H, W, 3]` uint8.

    Lightness is measured from that of the skin, so that brighter light changes little.
    """
    crop = warp_quad(rgb, ffhq_quad(landmarks), SIDE) / 255
    lab = cv2.cvtColor(crop.astype(np.float32), cv2.COLOR_RGB2LAB)
    tone = np.median(lab[SKIN, SKIN].reshape(-1, 3), axis=0)
    colours = cv2.resize(lab, (COLOURS, COLOURS), interpolation=cv2.INTER_AREA)
    colours[..., 0] -= tone[0]
    return np.concatenate([tone, colours.reshape(-1), EDGE_WEIGHT * np.sqrt(_edges(lab[INNER, INNER, 0]))])


def _edges(grey: np.ndarray) -> np.ndarray:
    """Gradient histograms `[CELLS * CELLS * TURNS]` of `grey [n, n]`, of length 1."""
    dx, dy = cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)
    strength, angle = cv2.cartToPolar(dx, dy)
    bins = (angle * (TURNS / (2 * np.pi))).astype(np.int32) % TURNS
    cells = [
        cv2.resize(np.where(bins == k, strength, 0), (CELLS, CELLS), interpolation=cv2.INTER_AREA) for k in range(TURNS)
    ]
    edges = np.stack(cells, axis=-1).reshape(-1)
    return edges / (np.linalg.norm(edges) + 1e-6)


@cache
def projection() -> tuple[np.ndarray, np.ndarray]:
    """Mean `[947]` and projection `[947, K]` of the discriminant analysis."""
    with np.load(PROJECTION, allow_pickle=False) as arrays:
        return arrays["mean"].astype(np.float32), arrays["projection"].astype(np.float32)


def appearance(rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Unit vector `[K]` float32 of a face; the distance of two (0..2) says how unlike they look. See `SAME`."""
    mean, matrix = projection()
    return unit((features(rgb, landmarks) - mean) @ matrix)


def unit(vector: np.ndarray) -> np.ndarray:
    """`vector [..., K]` at length 1."""
    return vector / (np.linalg.norm(vector, axis=-1, keepdims=True) + 1e-9)
