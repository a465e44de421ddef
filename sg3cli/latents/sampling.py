"""Codes from noise: seeds, truncation, and closed paths through W.

A seed is that of the published StyleGAN tools, `numpy.random.RandomState(seed).randn(z_dim)`, so that theirs can be
looked up here. What a seed gives does not depend on what else is asked for. A walk is a closed, periodic cubic spline
through the seeds' codes in W: it starts and ends at the first seed and meets each at even distances of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sg3cli.errors import UsageError
from sg3cli.latents.edits import Edit, apply_edits
from sg3cli.settings import RenderConfig

if TYPE_CHECKING:
    from sg3cli.nets.generator import Generator


@dataclass(frozen=True)
class GenerateConfig:
    """What is drawn from the seeds, and how it is turned, shifted and scaled: as the image is seen to move."""

    truncation: float = 1.0  # psi: 1 leaves the codes alone, 0 makes all of them the average
    cutoff: int | None = None  # so many codes are truncated, counted from the input; None: all
    label: int | None = None  # class, of a conditional model
    rotate: float = 0.0  # degrees counter-clockwise
    translate: tuple[float, float] = (0.0, 0.0)  # right and down, in image widths
    scale: float = 1.0
    fps: float = 25.0  # of a walk
    batch: int = RenderConfig.batch

    def transform(self) -> np.ndarray:
        """`[3, 3]` for the Fourier input, which wants the inverse of the motion."""
        from sg3cli.geometry import similarity

        return np.linalg.inv(similarity(*self.translate, self.rotate, self.scale))


class Sampler:
    """Draws images `[N, N, 3]` uint8 from a generator. Raises `UsageError` for what the generator has not."""

    def __init__(
        self,
        G: Generator,
        config: GenerateConfig,
        edits: Sequence[Edit] = (),
        directions: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.G, self.config = G, config
        self.edits, self.directions = edits, directions or {}
        self.transform = config.transform()
        _check_class(config.label, G.config.c_dim)
        if config.cutoff is not None and config.cutoff > G.num_ws:
            raise UsageError(f"--truncation-cutoff is {config.cutoff}", f"this model has {G.num_ws} codes")
        for edit in edits:
            edit.rows(G.num_ws)

    def codes(self, seeds: Sequence[int]) -> np.ndarray:
        """`[n, num_ws, w_dim]` float32. One seed at a time, so that its code is the same to the bit in any company."""
        import torch

        mapping, config = self.G.mapping, self.config
        label = None
        if config.label is not None:
            label = torch.zeros(1, self.G.config.c_dim, device=mapping.w_avg.device)
            label[0, config.label] = 1
        with torch.inference_mode():
            drawn = [torch.from_numpy(latent(seed, self.G.config.z_dim)).to(mapping.w_avg) for seed in seeds]
            ws = [mapping(z[None], label, psi=config.truncation, cutoff=config.cutoff) for z in drawn]
            return torch.cat(ws).cpu().numpy()

    def images(self, seeds: Sequence[int]) -> Iterator[np.ndarray]:
        """One image per seed; a batch in memory."""
        for start in range(0, len(seeds), self.config.batch):
            ws = self.codes(seeds[start : start + self.config.batch])
            yield from self._render(ws, np.zeros(len(ws)))

    def walk(self, seeds: Sequence[int], frames: int, cells: int = 1) -> Iterator[np.ndarray]:
        """`cells` images per frame of a walk of `frames`; those after the first are ahead by even shares of it."""
        path = closed_path(self.codes(seeds))
        moments = ((frame, cell) for frame in range(frames) for cell in range(cells))
        while some := list(islice(moments, self.config.batch)):
            frame, cell = np.array(some).T
            yield from self._render(path(frame / frames + cell / cells), frame / self.config.fps)

    def _render(self, ws: np.ndarray, times: np.ndarray) -> Iterator[np.ndarray]:
        from sg3cli.latents.rendering import render_crops

        ws = apply_edits(ws, times, self.edits, self.directions)
        return render_crops(self.G, ws, np.repeat(self.transform[None], len(ws), axis=0), self.config.batch)


def latent(seed: int, z_dim: int) -> np.ndarray:
    """The noise `[z_dim]` of a seed."""
    return np.random.RandomState(seed).randn(z_dim)


def closed_path(points: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The periodic cubic spline through `points [K, ...]`: at k/K it is point k, and it has period 1."""
    from scipy.interpolate import CubicSpline

    places = np.arange(len(points) + 1)
    spline = CubicSpline(places, np.concatenate([points, points[:1]]), bc_type="periodic")
    return lambda share: spline(share * len(points) % len(points)).astype(np.float32)


def _check_class(label: int | None, classes: int) -> None:
    if classes == 0 and label is not None:
        raise UsageError(f"--class is {label}, but this model has no classes", "leave --class out")
    if classes > 0 and (label is None or not 0 <= label < classes):
        what = "this model draws one of several classes" if label is None else f"there is no class {label}"
        raise UsageError(what, f"give --class with a number from 0 to {classes - 1}")
