"""Examples for the transfer network: a source, two drawings, and what the source should become.

Pairs of renders say what an edit looks like on the source. The two drawings are, by chance, those of the model, those
that a tuned model would make (the source, softened, with the model's change), or the truth reduced and softened: what a
user has lies between. Photographs have no truth: their drawing is moved and lit by a known amount, and so is the
source, so that the network follows on real skin and hair too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sg3cli.compositing.optical_flow import GRID, at_grid, motion_between
from sg3cli.files import atomic_path
from sg3cli.levels import tensor_to_uint8
from sg3cli.nets.restyle import average_image, restyle_codes
from sg3cli.training.people128.pair_data import Pairs, PictureSet, made_ahead
from sg3cli.training.people128.pair_net import PairNet

SIZE = 2 * GRID


class Example(NamedTuple):
    """One batch: source and truth [N,3,2n,2n], plain and edited [N,3,n,n] in [-1,1], flow [N,2,n,n] in shares."""

    source: Tensor
    truth: Tensor
    plain: Tensor
    edited: Tensor
    flow: Tensor


class Drawings(NamedTuple):
    """What the model draws for each pair, `[M, n, n, 3]` uint8."""

    plain: np.ndarray
    edited: np.ndarray


@torch.no_grad()
def draw_pairs(net: PairNet, pictures: PictureSet, pairs: Pairs, file: Path) -> Drawings:
    """The drawings of the first picture of each pair, and of the same edited; kept in `file`."""
    if not file.is_file():
        start, size = average_image(net.G, net.encoder.config.input_size), net.G.img_resolution
        plain, edited = np.empty((2, len(pairs), size, size, 3), np.uint8)
        for k in range(0, len(pairs), 12):
            part = slice(k, k + 12)
            firsts, where = np.unique(pairs.rows[part, 0], return_inverse=True)
            ws = restyle_codes(net.encoder, net.G, pictures.tensor(firsts, size), 3, start)
            drawn = net.G.synthesis(ws)[where]
            changed = net.G.synthesis(net.edited(ws[where], torch.from_numpy(pairs.delta[part])))
            plain[part], edited[part] = (tensor_to_uint8(y).permute(0, 2, 3, 1).cpu().numpy() for y in (drawn, changed))
        with atomic_path(file) as temporary, Path(temporary).open("wb") as stream:
            np.savez(stream, plain=plain, edited=edited)
    with np.load(file) as stored:
        return Drawings(stored["plain"], stored["edited"])


@dataclass(frozen=True)
class ExampleConfig:
    """Shares of the kinds of drawings, and how they are softened."""

    count: int = 6
    photos: float = 0.15
    tuned: float = 0.3  # the source softened, with the model's change
    true: float = 0.1
    soft: float = 0.15  # the truth softened; the rest are the model's own
    sigma: tuple[float, float] = (0.4, 2.0)  # pixels of the drawing
    seed: int = 0


class ExampleSource:
    """Batches that follow from the seed and the step alone."""

    def __init__(
        self,
        pictures: PictureSet,
        pairs: Pairs,
        drawings: Drawings,
        photos: PictureSet,
        photo_rows: np.ndarray,
        photo_drawings: np.ndarray,
        config: ExampleConfig,
    ) -> None:
        self.pictures, self.pairs, self.drawings, self.config = pictures, pairs, drawings, config
        self.photos, self.photo_rows, self.photo_drawings = photos, photo_rows, photo_drawings
        self.cumulative = np.cumsum(pairs.share / pairs.share.sum())

    def batch(self, step: int) -> Example:
        """The examples of one step."""
        rng = np.random.default_rng((self.config.seed, step))
        return stacked([self._example(rng) for _ in range(self.config.count)])

    def stream(self, first: int) -> Iterator[Example]:
        """Batches from step `first` on without end, some made beforehand."""
        return made_ahead(self.batch, first)

    def _example(self, rng: np.random.Generator) -> list[np.ndarray]:
        real = rng.random() < self.config.photos
        return augmented(self._photo(rng) if real else self._pair(rng), rng)

    def _pair(self, rng: np.random.Generator) -> list[np.ndarray]:
        k = min(int(np.searchsorted(self.cumulative, rng.random())), len(self.pairs) - 1)
        source, truth = (sized(self.pictures.picture(int(row)), SIZE) for row in self.pairs.rows[k])
        plain, edited = (at_grid(images[k]).astype(np.float32) for images in self.drawings)
        return [source, truth, *drawings_of(source, truth, (plain, edited), rng, self.config)]

    def _photo(self, rng: np.random.Generator) -> list[np.ndarray]:
        k = int(rng.integers(len(self.photo_rows)))
        source = sized(self.photos.picture(int(self.photo_rows[k])), SIZE)
        plain = at_grid(self.photo_drawings[k]).astype(np.float32)
        if rng.random() < 0.5:
            plain = softened(sized(source, GRID), rng.uniform(*self.config.sigma))
        motion, gain = random_motion(rng), random_gain(rng)
        return [source, moved(source, motion, gain), plain, moved(plain, motion, gain)]


def drawings_of(
    source: np.ndarray,
    truth: np.ndarray,
    drawn: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    config: ExampleConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """(plain, edited) `[n, n, 3]` float32 of a kind drawn at random."""
    kind, sigma = rng.random(), rng.uniform(*config.sigma)
    a, b = sized(source, GRID), sized(truth, GRID)
    if kind < config.true:
        return a, b
    if kind < config.true + config.soft:
        return softened(a, sigma), softened(b, sigma)
    if kind < config.true + config.soft + config.tuned:
        like = rng.random()
        plain = (1 - like) * drawn[0] + like * softened(a, sigma)
        return plain, np.clip(plain + drawn[1] - drawn[0], 0, 255)
    return drawn


def stacked(examples: list[list[np.ndarray]]) -> Example:
    """Examples (source, truth, plain, edited; levels) as a batch, with the flow of their drawings."""
    flow = np.stack([motion_between(*(np.rint(image).astype(np.uint8) for image in e[2:])) for e in examples])
    source, truth, plain, edited = (to_tensor(np.stack([e[k] for e in examples])) for k in range(4))
    return Example(source, truth, plain, edited, torch.from_numpy(flow).permute(0, 3, 1, 2).contiguous())


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
    """One example mirrored, lit and reduced in quality at random, the same in all its pictures."""
    mirror, gamma = rng.random() < 0.5, np.exp(0.2 * rng.standard_normal())
    gain = np.exp(0.15 * rng.standard_normal() + 0.06 * rng.standard_normal(3))
    blur = rng.random() < 0.3
    sigma = rng.uniform(0.5, 1.6)
    result = []
    for k, image in enumerate(images):
        image = 255 * (np.clip(image, 0, 255) / 255) ** gamma * gain
        image = softened(image, sigma) if blur and k < 2 else image  # soft footage, drawn as it was
        image = image[:, ::-1] if mirror else image
        result.append(np.ascontiguousarray(image.clip(0, 255), np.float32))
    return result


def random_motion(rng: np.random.Generator) -> np.ndarray:
    """A smooth motion `[2n, 2n, 2]` in shares of the side: a few bumps, falling to 0 at the edge."""
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    total = np.zeros((SIZE, SIZE, 2))
    for _ in range(int(rng.integers(1, 5))):
        centre, width = rng.uniform(0.25, 0.75, 2), rng.uniform(0.05, 0.25)
        bump = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * width**2))
        total += bump[..., None] * rng.normal(0, 0.2 * width, 2)
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) / 0.1
    return (total * edge.clip(0, 1)[..., None]).astype(np.float32)


def random_gain(rng: np.random.Generator) -> np.ndarray:
    """A smooth gain `[2n, 2n, 3]` around 1, somewhere on the picture."""
    import cv2

    coarse = rng.normal(0, 0.12, (5, 5, 1)) + rng.normal(0, 0.05, (5, 5, 3))
    coarse[[0, -1]] = coarse[:, [0, -1]] = 0
    return np.exp(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC) * (rng.random() < 0.6))


def moved(image: np.ndarray, motion: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """`image [R, R, 3]` at x + motion, times the gain there."""
    import cv2

    size = len(image)
    motion, gain = (
        m if len(m) == size else cv2.resize(m, (size, size), interpolation=cv2.INTER_AREA) for m in (motion, gain)
    )
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    at = (x + size * motion[..., 0].astype(np.float32), y + size * motion[..., 1].astype(np.float32))
    result: np.ndarray = cv2.remap(image, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101) * gain
    return result.clip(0, 255)
