"""EQ-T and EQ-R of StyleGAN3 (arXiv 2106.12423, section 4.1 and appendix E): does the image move as it is told to?

    EQ = 10 log10(4 / mean |T[g(w)] - g(w; T)|^2)      images in [-1, 1], over the pixels that both show

T is a shift by whole pixels of up to an eighth of the image, or a turn by any angle. The turned image is resampled
with a Lanczos kernel at four times the resolution, and compared in the inner circle of 0.45 of its side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from sg3cli.geometry import similarity
from sg3cli.nets.generator import Generator


def eq_t(G: Generator, ws: Tensor, seed: int = 0) -> float:
    """dB over the codes ws [N,num_ws,w_dim], one shift each."""
    return decibels(list(shift_errors(G, ws, seed)))


def eq_r(G: Generator, ws: Tensor, seed: int = 0) -> float:
    """dB over the codes ws [N,num_ws,w_dim], one angle each."""
    return decibels(list(turn_errors(G, ws, seed)))


@torch.no_grad()
def shift_errors(G: Generator, ws: Tensor, seed: int = 0, first: int = 0) -> Iterator[float]:
    """The mean squared error of each of ws [N,num_ws,w_dim] from number `first` on, each shifted in its own way."""
    size, rng = G.img_resolution, np.random.default_rng(seed)
    for number, w in enumerate(ws):
        dx, dy = rng.integers(-size // 8, size // 8 + 1, 2)
        if number < first:
            continue
        still, moved = _both(G, w, similarity(dx / size, dy / size, 0))
        a = still[:, max(0, -dy) : size - max(0, dy), max(0, -dx) : size - max(0, dx)]
        b = moved[:, max(0, dy) : size - max(0, -dy), max(0, dx) : size - max(0, -dx)]
        yield float((a - b).square().mean())


@torch.no_grad()
def turn_errors(G: Generator, ws: Tensor, seed: int = 0, first: int = 0) -> Iterator[float]:
    """The mean squared error of each of ws [N,num_ws,w_dim] from number `first` on, each turned by its own angle."""
    size, rng = G.img_resolution, np.random.default_rng(seed)
    axis = (torch.arange(size) + 0.5) / size - 0.5
    inside = axis[None] ** 2 + axis[:, None] ** 2 < 0.45**2
    for number, w in enumerate(ws):
        angle = float(rng.uniform(0, 360))
        if number < first:
            continue
        still, turned = _both(G, w, similarity(0, 0, angle))
        difference = torch.from_numpy(_turned(still.permute(1, 2, 0).numpy(), angle)).permute(2, 0, 1) - turned
        yield float(difference[:, inside].square().mean())


def _both(G: Generator, w: Tensor, motion: np.ndarray) -> tuple[Tensor, Tensor]:
    """The image, and the one that the generator draws when it is moved by `motion` [3,3]."""
    inverse = torch.from_numpy(np.linalg.inv(motion)).float()
    identity = torch.eye(3)
    still, moved = (G.synthesis(w[None], transform=T)[0].float().cpu() for T in (identity, inverse))
    return still, moved


def _turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """[R,R,3] float32, turned as `similarity` turns."""
    size, fine = len(image), 4
    large = cv2.resize(image, None, fx=fine, fy=fine, interpolation=cv2.INTER_LANCZOS4)
    M = similarity(0, 0, degrees)[:2]
    centre = (fine * size - 1) / 2
    M = np.column_stack([M[:, :2], np.array([centre, centre]) - M[:, :2] @ np.array([centre, centre])])
    turned = cv2.warpAffine(large, M, (fine * size, fine * size), flags=cv2.INTER_CUBIC)
    return np.asarray(cv2.resize(turned, (size, size), interpolation=cv2.INTER_AREA))


def decibels(errors: Sequence[float]) -> float:
    """EQ of mean squared errors of images in [-1, 1]; inf where there is none."""
    mean = float(np.mean(errors))
    return float(10 * np.log10(4 / mean)) if mean > 0 else float("inf")
