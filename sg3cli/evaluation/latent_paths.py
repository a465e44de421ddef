"""PPL and the length of whole paths in Z, W, W+ and S, between points as `latents.sampling` draws them there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sg3cli.evaluation.report_run import ReportRun, Row
from sg3cli.latents.rendering import draw
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.metrics.path_length import lengths, speeds, trimmed_mean
from sg3cli.metrics.perceptual import PerceptualLoss, StructuralLoss
from sg3cli.nets.generator import Generator

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]
SIDE = 256  # pixels: larger images are reduced to it before they are compared


@dataclass(frozen=True)
class Paths:
    """Measures paths of one space of `G`; `label`: the class of a conditional model."""

    G: Generator
    perceptual: PerceptualLoss
    space: str
    truncation: float = 1.0
    label: int | None = None
    batch: int = 8

    def speed_rows(self, count: int, first: int) -> Iterator[Row]:
        """Squared speed at the start of each of `count` paths, from number `first` on; its seeds are 2k, 2k+1."""
        return self._rows(count, first, self._speeds)

    def length_rows(self, count: int, first: int, pieces: int) -> Iterator[Row]:
        """Length of each of `count` paths, from number `first` on."""
        return self._rows(count, first, lambda a, b: self._lengths(a, b, pieces))

    def _rows(self, count: int, first: int, measure: Measure) -> Iterator[Row]:
        sampler = self.sampler
        for start in range(first, count, self.batch):
            stop = min(start + self.batch, count)
            ends = [sampler.points(range(2 * start + k, 2 * stop, 2)) for k in (0, 1)]
            for value in measure(*ends):
                yield {"value": float(value)}

    @cached_property
    def sampler(self) -> Sampler:
        """Draws the ends."""
        return Sampler(self.G, GenerateConfig(self.truncation, label=self.label, space=self.space))

    @property
    def spherical(self) -> bool:
        """Noise lies on a sphere, and so do the ways between two of it."""
        return self.space == "z"

    def _speeds(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return speeds(self._draw, self._distance, a, b, self.spherical)

    def _lengths(self, a: np.ndarray, b: np.ndarray, pieces: int) -> np.ndarray:
        return lengths(self._draw, self._distance, a, b, pieces, self.spherical)

    def _draw(self, points: np.ndarray) -> Tensor:
        with torch.inference_mode():
            images = draw(self.G, self.sampler.at(points))
            return images if images.shape[-1] <= SIDE else torch.nn.functional.adaptive_avg_pool2d(images, SIDE)

    def _distance(self, a: Tensor, b: Tensor) -> Tensor:
        """Differences of PPL lie below what single precision leaves of 1 - SSIM; networks are of single precision."""
        if self.perceptual.name == StructuralLoss.name:
            a, b = a.double(), b.double()
        with torch.inference_mode():
            found: Tensor = self.perceptual(a, b)
            return found


def path_length(run: ReportRun, paths: Paths, count: int) -> float:
    """PPL of a space over `count` paths."""
    rows = run.rows(f"path-length-{paths.space}", count, lambda first: paths.speed_rows(count, first), paths.batch)
    return trimmed_mean(rows["value"])


def whole_length(run: ReportRun, paths: Paths, count: int, pieces: int) -> float:
    """Mean length of `count` whole paths in `pieces`."""

    def make(first: int) -> Iterator[Row]:
        return paths.length_rows(count, first, pieces)

    rows = run.rows(f"whole-length-{paths.space}", count, make, paths.batch)
    return float(rows["value"].mean())
