"""How well renders reproduce their targets: PSNR, MS-SSIM and a perceptual distance, frame by frame.

Pairs are passed explicitly, so a target can never be compared with itself by a mistaken path.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from sg3cli.levels import to_levels, to_signed
from sg3cli.metrics.perceptual import PerceptualLoss
from sg3cli.metrics.ssim import ms_ssim


def psnr(a: np.ndarray, b: np.ndarray, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB of two arrays of one shape; `inf` where they are equal."""
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
    mse = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if mse == 0 else 10 * float(np.log10(peak**2 / mse))


@dataclass(frozen=True)
class ReconstructionReport:
    """Per-frame scores of the frames that have a face; `frames [K]` are their indices.

    `perceptual` is nan-filled when no perceptual loss was given: not computed, never 0.
    """

    frames: np.ndarray
    psnr: np.ndarray
    ms_ssim: np.ndarray
    perceptual: np.ndarray
    perceptual_name: str

    def to_dict(self) -> dict[str, Any]:
        """Means and worst frames, JSON-able; scores that were not computed are None."""
        empty = len(self.frames) == 0
        scored = not empty and bool(self.perceptual_name)
        return {
            "frames": len(self.frames),
            "psnr_mean": None if empty else float(self.psnr.mean()),
            "psnr_min": None if empty else float(self.psnr.min()),
            "worst_frame": None if empty else int(self.frames[self.psnr.argmin()]),
            "ms_ssim_mean": None if empty else float(self.ms_ssim.mean()),
            "perceptual": self.perceptual_name or None,
            "perceptual_mean": float(self.perceptual.mean()) if scored else None,
        }


def reconstruction_report(
    targets: Iterable[np.ndarray | None],
    renders: Iterable[np.ndarray],
    perceptual: PerceptualLoss | None = None,
) -> ReconstructionReport:
    """Score `renders` (uint8 `[N, N, 3]`) against `targets` (float `[N, N, 3]` in [-1, 1]) in step.

    A target of None is a frame without a face: its render is skipped.
    For the reconstruction of aligned crops pass the crops and the renders at the identity transform.
    """
    rows: list[tuple[int, float, float, float]] = []
    for index, (target, render) in enumerate(zip_longest(targets, renders)):
        if render is None:
            raise ValueError(f"there are targets but no renders from frame {index} on")
        if target is None:
            continue
        levels = to_levels(target)  # clipped, not rounded: the target keeps its precision
        a, b = _to_batch(levels), _to_batch(render)
        with torch.inference_mode():
            distance = float(perceptual(a, b)) if perceptual else float("nan")
            rows.append((index, psnr(levels, render), float(ms_ssim(a, b)), distance))
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    name = perceptual.name if perceptual else ""
    return ReconstructionReport(table[:, 0].astype(np.int64), table[:, 1], table[:, 2], table[:, 3], name)


def _to_batch(levels: np.ndarray) -> torch.Tensor:
    """`[H, W, 3]` in 0..255 -> `[1, 3, H, W]` float32 in [-1, 1]."""
    return torch.from_numpy(to_signed(levels)).permute(2, 0, 1)[None]
