"""Examples for the transfer network: a source, two drawings, what motion and light make of them, and the truth.

Pairs of renders, and of photographs that were given a render's age (`photo_ageing`), say what an edit looks like on
the source. The two drawings are, by chance, those of the model, those that a tuned model would make (the source,
softened, with the model's change), or the truth reduced and softened: what a user has lies between. Photographs under
other edits have no truth: the network adds nothing to what motion and light make of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sg3cli.compositing.drawing_noise import without_noise
from sg3cli.compositing.learned_maps import on_source
from sg3cli.compositing.motion_maps import motion_maps
from sg3cli.compositing.optical_flow import GRID, at_grid
from sg3cli.compositing.registration import laid
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.training.people128.pair_data import Pairs, PictureSet, made_ahead
from sg3cli.training.people128.transfer_drawings import Drawings

SIZE = 2 * GRID
GRAIN = 5.0  # levels of noise at most


class Example(NamedTuple):
    """One batch in [-1,1]: source, truth and base [N,3,2n,2n], plain and edited [N,3,n,n]."""

    source: Tensor
    truth: Tensor
    base: Tensor
    plain: Tensor
    edited: Tensor


class PairSource(NamedTuple):
    """Pairs of one set with their drawings; `share` of all examples. Without `known` the second picture is no truth.

    `drawn`: the share of the drawn change that belongs to the truth; with less than 1 a network learns to show more
    than is drawn.
    """

    pictures: PictureSet
    pairs: Pairs
    drawings: Drawings
    share: float
    known: bool = True
    drawn: float = 1.0


@dataclass(frozen=True)
class ExampleConfig:
    """How many examples a step has, the shares of the kinds of drawings, and how they are softened."""

    count: int = 6
    tuned: float = 0.35  # the source softened, with the model's change
    left: tuple[float, float] = (0.5, 1.05)  # of that change: tuning costs a part of an edit
    # The truth itself, and that softened; the rest are the model's own. With a twentieth and a tenth, what was added to
    # the drawings of a sharp model made them worse.
    true: float = 0.3
    soft: float = 0.2
    sigma: tuple[float, float] = (0.4, 2.0)  # pixels of the drawing
    seed: int = 0


class ExampleSource:
    """Batches that follow from the seed and the step alone."""

    def __init__(self, sources: Sequence[PairSource], config: ExampleConfig, mesh: DrawnMesh | None) -> None:
        self.sources, self.config, self.mesh = sources, config, mesh
        self.of_sources = _cumulative(np.array([source.share for source in sources]))
        self.of_pairs = [_cumulative(source.pairs.share) for source in sources]

    def batch(self, step: int) -> Example:
        """The examples of one step."""
        rng = np.random.default_rng((self.config.seed, step))
        return stacked([augmented(self._example(rng), rng) for _ in range(self.config.count)])

    def stream(self, first: int) -> Iterator[Example]:
        """Batches from step `first` on without end, some made beforehand."""
        return made_ahead(self.batch, first)

    def _example(self, rng: np.random.Generator) -> list[np.ndarray]:
        n = int(np.searchsorted(self.of_sources, rng.random()))
        pictures, pairs, drawings, _, known, shown = self.sources[n]
        k = int(np.searchsorted(self.of_pairs[n], rng.random()))
        source, truth = (sized(pictures.picture(int(row)), SIZE) for row in pairs.rows[k])
        drawn = drawings.plain[k], weaker(drawings.plain[k], drawings.edited[k], shown)
        plain, edited = drawings_of(source, truth if known else None, drawn, rng, self.config)
        plain, edited, base = on_face(source, plain, edited, self.mesh)
        return [source, truth if known else base, base, plain, edited]


def _cumulative(shares: np.ndarray) -> np.ndarray:
    total = np.cumsum(shares, dtype=np.float64) / np.sum(shares, dtype=np.float64)
    total[-1] = 1.0
    return total


def both_ways(pairs: Pairs) -> Pairs:
    """Each pair, and the same back again."""
    rows, delta = (np.concatenate(both) for both in ((pairs.rows, pairs.rows[:, ::-1]), (pairs.delta, -pairs.delta)))
    return Pairs(rows, delta, np.concatenate([pairs.share, pairs.share]))


def on_face(
    source: np.ndarray, plain: np.ndarray, edited: np.ndarray, mesh: DrawnMesh | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Drawings `[n, n, 3]` laid onto the face of `source [2n, 2n, 3]`, and R0 `[2n, 2n, 3]`, what motion and light make
    of them; levels, float32."""
    whole, p, q = (np.rint(image).clip(0, 255).astype(np.uint8) for image in (source, plain, edited))
    p, q, points = laid(mesh, whole, p, q, (GRID, GRID))
    maps = motion_maps(p, q, (GRID, GRID), points, whole)
    q = without_noise(whole, p, q, maps)
    return p.astype(np.float32), q, on_source(whole, p, q, maps).astype(np.float32)


def drawings_of(
    source: np.ndarray,
    truth: np.ndarray | None,
    drawn: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    config: ExampleConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """(plain, edited) `[n, n, 3]` float32 of a kind drawn at random; without a truth none that needs it."""
    kind, sigma = rng.random(), rng.uniform(*config.sigma)
    p, q = (at_grid(image).astype(np.float32) for image in drawn)
    if truth is not None and kind < config.true + config.soft:
        a, b = sized(source, GRID), sized(truth, GRID)
        return (a, b) if kind < config.true else (softened(a, sigma), softened(b, sigma))
    if kind < config.true + config.soft + config.tuned:
        like = rng.uniform(0.3, 1.0)
        plain = (1 - like) * p + like * softened(sized(source, GRID), 0.7 * sigma)
        return plain, np.clip(plain + rng.uniform(*config.left) * (q - p), 0, 255)
    return p, q


def weaker(plain: np.ndarray, edited: np.ndarray, share: float) -> np.ndarray:
    """A drawing `edited [n, n, 3]` with a share of what differs from `plain`; itself with 1."""
    if share == 1:
        return edited
    return (1 - share) * plain.astype(np.float32) + share * edited


def stacked(examples: list[list[np.ndarray]]) -> Example:
    """Examples (source, truth, base, plain, edited; levels) as a batch."""
    return Example(*(to_tensor(np.stack([e[k] for e in examples])) for k in range(len(Example._fields))))


def to_tensor(levels: np.ndarray) -> Tensor:
    """[N,R,R,3] levels -> [N,3,R,R] float32 in [-1,1]."""
    return torch.from_numpy(np.ascontiguousarray(levels, np.float32)).permute(0, 3, 1, 2).contiguous() / 127.5 - 1


def sized(image: np.ndarray, size: int) -> np.ndarray:
    """A square picture as float32 levels of `size` pixels a side."""
    import cv2

    image = image.astype(np.float32)
    return image if len(image) == size else cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def softened(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blurred by `sigma` pixels."""
    import cv2

    result: np.ndarray = cv2.GaussianBlur(image, (0, 0), sigma)
    return result


def augmented(images: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One example mirrored, lit, made soft and grainy at random, the same in all its pictures; drawings are of clean
    footage."""
    mirror, gamma = rng.random() < 0.5, np.exp(0.2 * rng.standard_normal())
    gain = np.exp(0.15 * rng.standard_normal() + 0.05 * rng.standard_normal(3))
    soft, sigma = rng.random() < 0.35, rng.uniform(0.5, 1.8)
    grain = rng.normal(0, rng.uniform(0, GRAIN) * (rng.random() < 0.5), (SIZE, SIZE))
    grain = softened(grain.astype(np.float32), rng.uniform(0.3, 1.0))[..., None]
    result = []
    for image in images:
        image = 255 * (np.clip(image, 0, 255) / 255) ** gamma * gain
        if len(image) == SIZE:
            image = (softened(image, sigma) if soft else image) + grain
        image = image[:, ::-1] if mirror else image
        result.append(np.ascontiguousarray(image.clip(0, 255), np.float32))
    return result
