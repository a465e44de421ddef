"""The four latent spaces of a generator, each a small type that turns into the next one: Z -> W -> W+ -> S -> images.

Z is noise, W what the mapping network makes of it, W+ a code of its own for each layer, S (StyleSpace, Wu et al. 2021)
what the layers' affine maps make of that: the four numbers of the Fourier input and one scale for each input channel
of each layer. `W+ -> S` is affine but for the input, whose rotation is normalised. All values are float32 tensors, and
everything can be differentiated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sg3cli.errors import UsageError
from sg3cli.nets.layers import EqualLinear
from sg3cli.nets.synthesis import NO_MARGIN, Sides

if TYPE_CHECKING:
    from sg3cli.nets.generator import Generator

SPACES = ("z", "w", "w+", "s")
SAMPLES = 4096  # seeds that statistics are taken from: a deviation is known to 1.1 %
CHUNK = 256  # of them are held at once


@dataclass(frozen=True)
class Z:
    """Noise `[n, z_dim]`."""

    values: Tensor

    def to_w(self, G: Generator, psi: float = 1.0, label: Tensor | None = None) -> W:
        """Through the mapping network, towards the mean code by `psi` (1: not at all)."""
        return W(G.mapping(self.values, label, psi=psi)[:, 0])

    def to_w_plus(
        self, G: Generator, psi: float = 1.0, cutoff: int | None = None, label: Tensor | None = None
    ) -> WPlus:
        """The same code for every layer; only the first `cutoff` layers' (None: all) are truncated."""
        return WPlus(G.mapping(self.values, label, psi=psi, cutoff=cutoff))


@dataclass(frozen=True)
class W:
    """Codes `[n, w_dim]`."""

    values: Tensor

    def to_w_plus(self, num_ws: int) -> WPlus:
        """Each code for all layers."""
        return WPlus(self.values[:, None].repeat(1, num_ws, 1))


@dataclass(frozen=True)
class WPlus:
    """Codes `[n, num_ws, w_dim]`: the first is the Fourier input's, the others the layers'."""

    values: Tensor

    def to_w(self) -> tuple[W, Tensor]:
        """The nearest code that is the same for all layers, their mean, and how far off it is `[n]` (r.m.s.)."""
        mean = self.values.mean(dim=1)
        return W(mean), (self.values - mean[:, None]).square().mean(dim=(1, 2)).sqrt()

    def to_s(self, G: Generator) -> S:
        """The styles that the layers make of the codes."""
        return S(torch.cat(list(G.synthesis.style_space(self.values).values()), dim=1))


@dataclass(frozen=True)
class S:
    """Styles `[n, channels]`, layer after layer in the order of `GeneratorConfig.style_sizes`."""

    values: Tensor

    def by_layer(self, G: Generator) -> dict[str, Tensor]:
        """`input` and each layer's name -> its part `[n, channels of it]`."""
        sizes = G.config.style_sizes
        return dict(zip(sizes, torch.split(self.values, list(sizes.values()), dim=1), strict=True))

    def images(self, G: Generator, transform: Tensor | None = None, expand: Sides = NO_MARGIN) -> Tensor:
        """Images `[n, 3, R, R]`, about [-1, 1]; `transform` and `expand` as in `Synthesis.forward`."""
        if expand != NO_MARGIN:
            return G.synthesis.expanded(self.by_layer(G), transform, expand)
        return G.synthesis.from_styles(self.by_layer(G), transform)

    def to_w_plus(self, G: Generator, near: WPlus | None = None) -> tuple[WPlus, Tensor]:
        """The codes whose styles are nearest by least squares, and how far off those are `[n]` (r.m.s. of channels).

        Of several equally near the one closest to `near` (None: the mean code) is taken: a layer of fewer channels
        than a code has numbers leaves a choice.
        """
        before = G.mapping.w_avg.expand(len(self.values), G.num_ws, -1) if near is None else near.values
        wanted, rows = self.by_layer(G), []
        for j, (name, (matrix, bias)) in enumerate(affine_maps(G).items()):
            missing = wanted[name] - (before[:, j] @ matrix.T + bias)
            rows.append(before[:, j] + missing @ torch.linalg.pinv(matrix).T)
        found = WPlus(torch.stack(rows, dim=1))
        return found, (found.to_s(G).values - self.values).square().mean(dim=1).sqrt()


def affine_maps(G: Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """(matrix [channels, w_dim], bias [channels]) from a code to its styles; those of the input before they are
    normalised."""
    parts: list[tuple[EqualLinear, float]] = [(G.synthesis.input.affine, 1.0)]
    for layer in G.synthesis.layers():
        parts.append((layer.affine, 1 / math.sqrt(layer.spec.in_channels) if layer.spec.is_torgb else 1.0))
    maps = [(a.weight * (a.weight_gain * scale), a.bias * (a.bias_gain * scale)) for a, scale in parts]
    return dict(zip(G.config.style_sizes, maps, strict=True))


def to_s_direction(G: Generator, vector: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """What a direction of W or W+ `[1 or num_ws, w_dim]` adds to the styles of `layers`: `[channels]`, exactly.

    Raises `UsageError` for layer 0, whose styles do not follow its code in a straight line.
    """
    if 0 in layers:
        raise UsageError("layer 0 does not follow its code in a straight line in S", "leave it out, or use --space w")
    rows = torch.from_numpy(np.broadcast_to(vector, (G.num_ws, G.w_dim)).copy()).float()
    parts = [
        matrix.cpu() @ row if j in layers else torch.zeros(len(matrix))
        for j, (row, (matrix, _)) in enumerate(zip(rows, affine_maps(G).values(), strict=True))
    ]
    return torch.cat(parts).numpy()


def to_w_direction(G: Generator, vector: np.ndarray) -> tuple[np.ndarray, float]:
    """The direction of W+ `[num_ws, w_dim]` nearest to one of S `[channels]`, and the share of it that is lost."""
    parts = torch.split(torch.from_numpy(vector).float(), list(G.config.style_sizes.values()))
    rows, lost = [], 0.0
    for part, (matrix, _) in zip(parts, affine_maps(G).values(), strict=True):
        row = torch.linalg.pinv(matrix.cpu()) @ part
        lost += float((matrix.cpu() @ row - part).square().sum())
        rows.append(row)
    return torch.stack(rows).numpy(), math.sqrt(lost) / max(float(np.linalg.norm(vector)), 1e-12)


# ---- statistics ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Statistics:
    """`mean [d]`, `std [d]` and `covariance [d, d]` (None: not asked for) of a space, float64, of `count` samples."""

    mean: np.ndarray
    std: np.ndarray
    covariance: np.ndarray | None
    count: int


@torch.no_grad()
def statistics(
    G: Generator, space: str = "s", count: int = SAMPLES, psi: float = 1.0, covariance: bool = False
) -> Statistics:
    """Statistics of `space` over the codes of `count` seeds, the same at every call; a chunk of them in memory.

    W+ is taken as the codes of all layers in a row. Raises `UsageError` for an unknown space.
    """
    if space not in SPACES:
        raise UsageError(f"unknown space {space!r}", f"known spaces: {', '.join(SPACES)}")
    total, square = 0.0, 0.0
    centre: np.ndarray | None = None
    for values in _samples(G, space, count, psi):
        centre = values[0] if centre is None else centre  # a sum of squares loses less around a sample
        apart = values - centre
        total = total + apart.sum(0)
        square = square + (apart.T @ apart if covariance else np.square(apart).sum(0))
    assert centre is not None
    offset = np.asarray(total) / count
    spread = np.asarray(square) / count - (np.outer(offset, offset) if covariance else offset**2)
    variance = np.diag(spread) if covariance else spread
    return Statistics(centre + offset, np.sqrt(variance.clip(min=0)), spread if covariance else None, count)


def _samples(G: Generator, space: str, count: int, psi: float) -> Iterator[np.ndarray]:
    """Samples `[<= CHUNK, d]` float64 of a space."""
    rng = np.random.RandomState(0)
    device = G.mapping.w_avg.device
    for first in range(0, count, CHUNK):
        z = Z(torch.from_numpy(rng.randn(min(CHUNK, count - first), G.config.z_dim)).float().to(device))
        label = None
        if G.config.c_dim:
            classes = torch.from_numpy(rng.randint(G.config.c_dim, size=len(z.values))).to(device)
            label = torch.nn.functional.one_hot(classes, G.config.c_dim).float()
        values = z.values
        if space != "z":
            codes = z.to_w(G, psi, label)
            values = codes.values if space == "w" else codes.to_w_plus(G.num_ws).values.flatten(1)
        if space == "s":
            values = codes.to_w_plus(G.num_ws).to_s(G).values
        yield values.double().cpu().numpy()
