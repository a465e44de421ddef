"""Codes from noise: seeds, truncation, and closed paths through a latent space.

A seed is that of the published StyleGAN tools, `numpy.random.RandomState(seed).randn(z_dim)`, so that theirs can be
looked up here. What a seed gives does not depend on what else is asked for. A walk is a closed, periodic cubic spline
through the seeds' points in a space: it starts and ends at the first seed and meets each at even distances of time.

The space also says what a seed's point is. In Z and W it is the published one; in W+ each layer has a code from noise
of its own (the first that of the seed); in S every style is drawn alone from its normal distribution, which is what
the space allows and no code gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sg3cli.errors import UsageError
from sg3cli.latents.codes import Codes
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
    space: str = "w"  # z | w | w+ | s: where seeds are drawn and walks go
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
    ) -> None:
        self.G, self.config, self.edits = G, config, edits
        self.transform = config.transform()
        _check_class(config.label, G.config.c_dim)
        if config.cutoff is not None and config.cutoff > G.num_ws:
            raise UsageError(f"--truncation-cutoff is {config.cutoff}", f"this model has {G.num_ws} codes")
        for edit in edits:
            edit.rows(G.num_ws)

    def codes(self, seeds: Sequence[int]) -> np.ndarray:
        """W+ `[n, num_ws, w_dim]`. One seed at a time, so that its code is the same to the bit in any company."""
        return np.concatenate([self._mapped(latent(seed, self.G.config.z_dim)[None]) for seed in seeds])

    def points(self, seeds: Sequence[int]) -> np.ndarray:
        """Where the seeds are in the space, `[n, ...]` float32; see `at`."""
        config, count = self.G.config, self.G.num_ws
        if self.config.space == "w":
            return self.codes(seeds)
        if self.config.space == "z":
            return np.stack([latent(seed, config.z_dim) for seed in seeds]).astype(np.float32)
        if self.config.space == "w+":
            noise = [np.random.RandomState(seed).randn(count, config.z_dim) for seed in seeds]
            rows = [[self._mapped(z[None])[0, j] for j, z in enumerate(each)] for each in noise]
            return np.array(rows, np.float32)
        channels = sum(config.style_sizes.values())
        return np.stack([latent(seed, channels) for seed in seeds]).astype(np.float32)

    def at(self, points: np.ndarray) -> Codes:
        """Codes of points of the space: `[n, z_dim]` of Z, W+ codes, or of S how many deviations from the mean."""
        if self.config.space == "z":
            return Codes(np.concatenate([self._mapped(z[None]) for z in points]))
        if self.config.space != "s":
            return Codes(points)
        mean = np.repeat(self._mean_code[None], len(points), axis=0)
        kept = np.repeat(np.arange(self.G.num_ws), list(self.G.config.style_sizes.values()))
        cutoff = self.G.num_ws if self.config.cutoff is None else self.config.cutoff
        psi = np.where(kept < cutoff, self.config.truncation, 1.0)
        return Codes(mean, (points * psi * self._style_deviations).astype(np.float32))

    def _mapped(self, z: np.ndarray) -> np.ndarray:
        """Noise `[n, z_dim]` through the mapping network, truncated."""
        import torch

        mapping, config = self.G.mapping, self.config
        label = None
        if config.label is not None:
            label = torch.zeros(len(z), self.G.config.c_dim, device=mapping.w_avg.device)
            label[:, config.label] = 1
        with torch.inference_mode():
            drawn = torch.from_numpy(z).to(mapping.w_avg)
            ws: np.ndarray = mapping(drawn, label, psi=config.truncation, cutoff=config.cutoff).cpu().numpy()
            return ws

    @cached_property
    def _mean_code(self) -> np.ndarray:
        """`[num_ws, w_dim]`."""
        return self.G.mapping.w_avg.cpu().float().expand(self.G.num_ws, -1).numpy()

    @cached_property
    def _style_deviations(self) -> np.ndarray:
        """`[channels]`; those of the input, which places the whole image, are 0."""
        from sg3cli.latents.spaces import statistics

        found = statistics(self.G, "s").std
        found[: self.G.config.style_sizes["input"]] = 0
        return found

    def images(self, seeds: Sequence[int]) -> Iterator[np.ndarray]:
        """One image per seed; a batch in memory."""
        for start in range(0, len(seeds), self.config.batch):
            points = self.points(seeds[start : start + self.config.batch])
            yield from self._render(points, np.zeros(len(points)))

    def walk(self, seeds: Sequence[int], frames: int, cells: int = 1) -> Iterator[np.ndarray]:
        """`cells` images per frame of a walk of `frames`; those after the first are ahead by even shares of it."""
        path = closed_path(self.points(seeds))
        moments = ((frame, cell) for frame in range(frames) for cell in range(cells))
        while some := list(islice(moments, self.config.batch)):
            frame, cell = np.array(some).T
            yield from self._render(path(frame / frames + cell / cells), frame / self.config.fps)

    def _render(self, points: np.ndarray, times: np.ndarray) -> Iterator[np.ndarray]:
        from sg3cli.latents.rendering import render_crops

        codes = apply_edits(self.at(points), times, self.edits)
        return render_crops(self.G, codes, np.repeat(self.transform[None], len(codes), axis=0), self.config.batch)


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
