"""Frechet distance between two sets of images in the feature space of the embedded model's attribute net.

FID (Heusel et al. 2017, equation 6) with another network: the 256 hidden units of `people-128`'s attribute net, which
was trained to read labels, landmarks and identity off rendered faces. Its numbers are for comparing runs on faces with
one another, never with published FIDs.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between normal distributions fitted to the features a [N,K] and b [M,K]: |mu|^2 + tr(A + B - 2 sqrt(A B))."""
    mean = a.mean(0) - b.mean(0)
    A, B = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # tr sqrt(A B): roots of the eigenvalues of A B, which are those of sqrt(A) B sqrt(A), real and not negative
    values, vectors = np.linalg.eigh(A)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ B @ root).clip(0)).sum()
    return float(mean @ mean + np.trace(A) + np.trace(B) - 2 * overlap)


class FaceFeatures:
    """Images [N,3,*,*] in [-1,1] -> [N,256] float64."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        from sg3cli.nets.attribute_net import load_attribute_net
        from sg3cli.weights.bundle import ATTRIBUTE_NET, EMBEDDED

        self.net = load_attribute_net(EMBEDDED / "people-128" / ATTRIBUTE_NET).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, batches: Iterable[Tensor]) -> np.ndarray:
        parts = [self.net.hidden(x.to(self.device).clamp(-1, 1)).double().cpu().numpy() for x in batches]
        return np.concatenate(parts)


def clip_features(features: np.ndarray, length: int = 16) -> np.ndarray:
    """Of clips of `length` frames each `[N // length, 2 K]`, from frame features `[N, K]`: their mean over the clip
    (what is shown) and their mean absolute change from frame to frame (how it moves)."""
    count = len(features) // length
    clips = features[: count * length].reshape(count, length, features.shape[1])
    return np.concatenate([clips.mean(axis=1), np.abs(np.diff(clips, axis=1)).mean(axis=1)], axis=1)


def frechet_from(a: np.ndarray, b: np.ndarray, minimum: int) -> float | None:
    """`frechet_distance` with at least `minimum` rows on both sides, else None; never below 0 by rounding."""
    return max(frechet_distance(a, b), 0.0) if min(len(a), len(b)) >= minimum else None
