"""The projection behind `faces.appearance`: linear discriminant analysis of rendered people.

Each image is seen once as another camera might show it: smaller, mirrored, in other light, with landmarks that are a
little off. What changes so within a person counts for nothing, what differs between people counts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sg3cli.faces.appearance import features
from sg3cli.files import atomic_path
from sg3cli.training.data.synthface import FaceSet

DIMENSIONS = 24
SHRINKAGE = 0.1  # of the within-person covariance towards its mean variance
SMALLEST = 40  # pixels of the smallest images


def describe(faces: FaceSet, seed: int = 0) -> np.ndarray:
    """Features `[N, 947]` of all images, each changed at random."""
    rng = np.random.default_rng(seed)
    return np.stack([_changed(rng, *pair) for pair in zip(faces.images, faces.landmarks, strict=True)])


def _changed(rng: np.random.Generator, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Features of one image `[R, R, 3]` in another size and light."""
    import cv2

    full = len(image)
    size = int(rng.integers(SMALLEST, full + 1))
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.04, 3))
    lit = np.clip(small * gain, 0, 1) ** np.exp(rng.normal(0, 0.12))
    points = landmarks * (size / full) + rng.normal(0, 0.004 * size, (1, 2)) + rng.normal(0, 0.003 * size, (68, 2))
    return features((255 * lit).astype(np.uint8), points)


def fit(described: np.ndarray, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[D]` and projection `[D, DIMENSIONS]` that tell the people `identity [N]` apart in `described [N, D]`."""
    x = described.astype(np.float64)
    people, index, counts = np.unique(identity, return_inverse=True, return_counts=True)
    means = np.zeros((len(people), x.shape[1]))
    np.add.at(means, index, x)
    means /= counts[:, None]
    inside = x - means[index]
    within = inside.T @ inside / max(len(x) - len(people), 1)
    within += SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
    values, vectors = np.linalg.eigh(within)
    white = vectors / np.sqrt(values)
    _, turned = np.linalg.eigh(white.T @ np.cov(means.T) @ white)
    return x.mean(0), white @ turned[:, ::-1][:, :DIMENSIONS]


def save(path: Path, mean: np.ndarray, projection: np.ndarray) -> None:
    """Write what `faces.appearance.projection` reads, in half precision."""
    scale = np.abs(projection).max()  # a common factor does not matter: the vectors are brought to length 1
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, mean=mean.astype(np.float32), projection=(projection / scale).astype(np.float16))
