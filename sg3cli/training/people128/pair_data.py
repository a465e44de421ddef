"""Pairs of renders that differ in known attributes, and photographs, decoded batch by batch.

A set is a folder in the `synthface` format: `images.bin` (concatenated JPEG), `index.npy` (offset, length) and
`labels.npz` (`columns`, `labels`, `identity`, `landmarks68`, `size`). Sets of pairs have `group` and `altered` too: the
first picture of a group is the unaltered one. Photographs have other columns, NaN where a value is not known.

Every batch follows from the seed and its step alone, so a run that was killed continues with the batches it would have
seen. A thread decodes the next batches while a step is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from sg3cli.errors import InputError
from sg3cli.training.data.degradation import degrade
from sg3cli.training.data.new_faces import bent, exchanged, like_pose, lit

# iBUG 68: where each landmark goes when left and right change places
MIRRORED_68 = np.array(
    [
        *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
        45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
        54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
    ]
)  # fmt: skip


class Attribute(NamedTuple):
    """`unit`: the change of the mean of `columns` that strength 1 means; `mirrored`: changes sign with left and right;
    `share`: how much more often than others its pairs are drawn."""

    columns: tuple[str, ...]
    unit: float
    mirrored: bool = False
    share: float = 1.0


ATTRIBUTES: dict[str, Attribute] = {
    "age": Attribute(("age",), 20.0, share=2.5),
    "smile": Attribute(("smile",), 0.5, share=2.0),
    "mouth_open": Attribute(("mouth_open",), 0.3, share=1.5),
    "eyes_closed": Attribute(("eye_closed_left", "eye_closed_right"), 0.5, share=3.0),
    "brow_raise": Attribute(("brow_raise",), 0.5, share=1.5),
    "yaw": Attribute(("yaw",), 15.0, mirrored=True),
    "pitch": Attribute(("pitch",), 10.0),
    "glasses": Attribute(("glasses",), 1.0),
    "beard": Attribute(("beard",), 0.5),
    "makeup": Attribute(("makeup",), 0.5),
}
CHANGED = 0.02  # units: a smaller difference of an attribute is none
BEND = 0.014  # of the side, of the random warps
LIGHT = 0.2  # of the random light, in natural logarithms
HELD_OUT_GROUPS = 86
HELD_OUT_PEOPLE = 0.12  # of the photographed people, the last by number


class PictureSet:
    """One folder. Pictures stay compressed on disk; `picture(row)` decodes one."""

    def __init__(self, folder: Path) -> None:
        for part in ("images.bin", "index.npy", "labels.npz"):
            if not (folder / part).is_file():
                raise InputError(f"{folder} is not a training set: {part} is missing", "see `sg3 train --help`")
        table = np.load(folder / "labels.npz", allow_pickle=False)
        self.folder = folder
        self.index = np.load(folder / "index.npy")
        self.blob = np.memmap(folder / "images.bin", np.uint8, mode="r")
        self.columns = tuple(str(c) for c in table["columns"])
        self.labels = np.asarray(table["labels"], np.float32)
        self.identity = np.asarray(table["identity"], np.int64)
        self.landmarks = np.asarray(table["landmarks68"], np.float32) / float(table["size"])  # shares of the side
        self.group = np.asarray(table["group"], np.int64) if "group" in table else None
        self.altered = np.asarray(table["altered"], bool) if "altered" in table else None

    def __len__(self) -> int:
        return len(self.index)

    def column(self, name: str) -> np.ndarray:
        """One label over all pictures, [N] float32; NaN where the set does not have it."""
        if name not in self.columns:
            return np.full(len(self), np.nan, np.float32)
        return self.labels[:, self.columns.index(name)]

    @cached_property
    def attributes(self) -> np.ndarray:
        """[N,K] float32: the values of `ATTRIBUTES` in their units, NaN where unknown."""
        columns = [np.mean([self.column(c) for c in a.columns], axis=0) / a.unit for a in ATTRIBUTES.values()]
        return np.stack(columns, 1).astype(np.float32)

    def picture(self, row: int) -> np.ndarray:
        """[R,R,3] uint8 RGB. Raises InputError."""
        import cv2

        offset, length = (int(v) for v in self.index[row])
        bgr = cv2.imdecode(np.asarray(self.blob[offset : offset + length]), cv2.IMREAD_COLOR)
        if bgr is None:
            raise InputError(f"picture {row} of {self.folder} does not decode", "make the data set again")
        return np.ascontiguousarray(bgr[:, :, ::-1])

    def tensor(self, rows: Sequence[int] | np.ndarray, size: int) -> Tensor:
        """Pictures as they are, reduced to `size`: [N,3,size,size] float32 in [-1,1]."""
        return _to_tensor(np.stack([_resized(self.picture(int(row)), size) for row in rows]))


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs of pictures of one set: rows [M,2] int64, delta [M,K] change in units, share [M] how often."""

    rows: np.ndarray
    delta: np.ndarray
    share: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def alone(self) -> Pairs:
        """The pairs in which a single attribute changes."""
        keep = (self.delta != 0).sum(1) == 1
        return Pairs(self.rows[keep], self.delta[keep], self.share[keep])


def make_pairs(pictures: PictureSet, groups: np.ndarray) -> Pairs:
    """Each altered picture of the `groups` with the unaltered one of its group, (unaltered, altered)."""
    if pictures.group is None or pictures.altered is None:
        raise InputError(f"{pictures.folder} holds no pairs", "make them with `python -m synthface edits`")
    first = {int(g): row for row, g in enumerate(pictures.group) if not pictures.altered[row]}
    wanted = set(groups.tolist())
    rows = np.array(
        [(first[int(g)], r) for r, g in enumerate(pictures.group) if pictures.altered[r] and int(g) in wanted], np.int64
    ).reshape(-1, 2)
    delta = pictures.attributes[rows[:, 1]] - pictures.attributes[rows[:, 0]]
    changed = np.abs(delta) > CHANGED
    keep = changed.any(1)
    shares = np.array([a.share for a in ATTRIBUTES.values()], np.float32)
    return Pairs(rows[keep], np.where(changed, delta, 0).astype(np.float32)[keep], (changed * shares).max(1)[keep])


def split_groups(pictures: PictureSet, held_out: int = HELD_OUT_GROUPS) -> tuple[np.ndarray, np.ndarray]:
    """(training, held out) group numbers: the last ones are held out."""
    if pictures.group is None:
        raise InputError(f"{pictures.folder} holds no pairs", "make them with `python -m synthface edits`")
    groups = np.unique(pictures.group)
    cut = len(groups) - held_out
    return groups[:cut], groups[cut:]


def first_held_out_person(identity: np.ndarray, share: float = HELD_OUT_PEOPLE) -> int:
    """The identity number from which on people are held out, so that other sets of the same people agree."""
    people = np.unique(identity)
    return int(people[len(people) - round(share * len(people))])


class Batch(NamedTuple):
    """One step's pictures, all [*,3,R,R] in [-1,1]. `seen`: what the encoder is given for `a` and `photos`, with the
    faults of a camera. `delta` [P,K]: what changes from a to b. Landmarks [*,68,2] in pixels."""

    a: Tensor
    b: Tensor
    photos: Tensor
    seen: Tensor
    delta: Tensor
    landmarks_a: Tensor
    landmarks_b: Tensor
    landmarks_photos: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The batch on a device."""
        return Batch(*(t.to(device, non_blocking=True) for t in self))


@dataclass(frozen=True)
class BatchConfig:
    """What a batch is made of; shares are probabilities for each picture."""

    pairs_per_step: int = 6
    photos_per_step: int = 3
    size: int = 128
    moved: float = 0.4  # a small turn, shift and change of scale, pictures of a pair alike
    turn_degrees: float = 4.0
    shift: float = 0.02  # of the side
    scale: float = 0.04
    degraded: float = 0.3  # of what the encoder sees
    exchanged: float = 0.0  # photographs that get another one's face (`data.new_faces`)
    bent: float = 0.0  # photographs under a smooth random warp
    lit: float = 0.0  # photographs in other light
    seed: int = 0


T = TypeVar("T")


def made_ahead(make: Callable[[int], T], first: int, workers: int = 1) -> Iterator[T]:
    """`make(step)` for the steps from `first` on without end, some made beforehand on so many threads."""
    ahead = workers + 2
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(make, first + k) for k in range(ahead)]
        step = first + ahead
        try:
            while True:
                done = waiting.pop(0)
                waiting.append(pool.submit(make, step))
                step += 1
                yield done.result()
        finally:
            for job in waiting:
                job.cancel()


class BatchSource:
    """Batches by step from several sets of pairs and of photographs.

    pairs: (set, pairs, share of the pairs); photos: (set, rows that may be used). Of photographs a source is drawn by
    the square root of its size, then one of its pictures.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[PictureSet, Pairs, float]],
        photos: Sequence[tuple[PictureSet, np.ndarray]],
        config: BatchConfig,
    ) -> None:
        self.pairs, self.photos, self.config = list(pairs), list(photos), config
        self._pair_cumulative = [np.cumsum(p.share / p.share.sum()) for _, p, _ in self.pairs]
        self._set_shares = np.cumsum([share for *_, share in self.pairs]) / sum(share for *_, share in self.pairs)
        self._photo_rows, self._photo_cumulative = _balanced(self.photos)

    def batch(self, step: int) -> Batch:
        """The batch of one step."""
        c, rng = self.config, np.random.default_rng((self.config.seed, step))
        first, second, real = _Shown(c.size), _Shown(c.size), _Shown(c.size)
        delta = []
        for _ in range(c.pairs_per_step):
            pictures, rows, change = self._draw_pair(rng)
            augment = Augment.draw(rng, c)
            delta.append(change * np.where(augment.mirror & MIRRORED_ATTRIBUTES, -1, 1))
            first.add(pictures, rows[0], augment)
            second.add(pictures, rows[1], augment)
        for _ in range(c.photos_per_step):
            k, row = self._photo_rows[int(np.searchsorted(self._photo_cumulative, rng.random()))]
            real.add_changed(*self._new_face(rng, k, row), Augment.draw(rng, c))
        faults = torch.Generator().manual_seed(int(rng.integers(2**62)))
        a, photos = first.stacked(), real.stacked()
        seen = degrade(torch.cat([a, photos]), faults, c.degraded)
        changes = torch.from_numpy(np.array(delta, np.float32).reshape(-1, len(ATTRIBUTES)))
        return Batch(a, second.stacked(), photos, seen, changes, first.points(), second.points(), real.points())

    def stream(self, first: int, workers: int = 1) -> Iterator[Batch]:
        """Batches from step `first` on without end, some decoded beforehand; the same for any number of workers."""
        return made_ahead(self.batch, first, workers)

    def _new_face(self, rng: np.random.Generator, k: int, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Photograph and landmarks (shares) of one row, made somebody else as the shares of the configuration say."""
        c, pictures = self.config, self.photos[k][0]
        image, points = pictures.picture(row), pictures.landmarks[row]
        exchange, bend, light = rng.random(3) < (c.exchanged, c.bent, c.lit)
        if exchange:
            rows = self.photos[k][1]
            yaw, pitch = pictures.column("yaw")[rows], pictures.column("pitch")[rows]
            others = like_pose(yaw, pitch, int(np.searchsorted(rows, row)), pictures.identity[rows])
            if len(others):
                other = int(rows[rng.choice(others)])
                image, points = exchanged(
                    image, points, pictures.picture(other), pictures.landmarks[other], rng.random()
                )
        if bend:
            image, points = bent(image, points, rng, BEND)
        return lit(image, rng, LIGHT) if light else image, points

    def _draw_pair(self, rng: np.random.Generator) -> tuple[PictureSet, tuple[int, int], np.ndarray]:
        k = int(np.searchsorted(self._set_shares, rng.random()))
        pictures, pairs, _ = self.pairs[k]
        m = min(int(np.searchsorted(self._pair_cumulative[k], rng.random())), len(pairs) - 1)
        first, second = (int(r) for r in pairs.rows[m])
        if rng.random() < 0.5:
            return pictures, (second, first), -pairs.delta[m]
        return pictures, (first, second), pairs.delta[m]


MIRRORED_ATTRIBUTES = np.array([a.mirrored for a in ATTRIBUTES.values()])


@dataclass(frozen=True)
class Augment:
    """One change of a picture (or of both of a pair): mirror, colours, and a small movement as a 2x3 matrix."""

    mirror: bool
    gain: np.ndarray  # [3]
    offset: np.ndarray  # [3], in [-1,1] colours
    turn: float  # radians
    zoom: float
    shift: np.ndarray  # [2], shares of the side

    @classmethod
    def draw(cls, rng: np.random.Generator, c: BatchConfig) -> Augment:
        """Random, always the same number of draws."""
        mirror, moved = rng.random() < 0.5, rng.random() < c.moved
        gain = np.exp(0.12 * rng.standard_normal() + 0.04 * rng.standard_normal(3))
        offset = 0.06 * rng.standard_normal() + 0.03 * rng.standard_normal(3)
        turn, zoom, x, y = rng.standard_normal(4).clip(-2, 2) * moved
        shift = c.shift * np.array([x, y])
        return cls(bool(mirror), gain, offset, math.radians(c.turn_degrees / 2) * turn, 1 + c.scale / 2 * zoom, shift)

    def apply(self, image: np.ndarray, landmarks: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """image [S,S,3] uint8, landmarks [68,2] in shares -> ([size,size,3] float32 in [-1,1], landmarks in pixels)."""
        if self.mirror:
            image = np.ascontiguousarray(image[:, ::-1])
            landmarks = (landmarks * [-1, 1] + [1, 0])[MIRRORED_68]
        if self.turn or self.zoom != 1 or self.shift.any():
            image, landmarks = self._moved(image, landmarks)
        colours = _resized(image, size).astype(np.float32) / 127.5 - 1
        colours = (colours * self.gain + self.offset).clip(-1, 1).astype(np.float32)
        return colours, (landmarks * size).astype(np.float32)

    def _moved(self, image: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import cv2

        c, s = self.zoom * math.cos(self.turn), self.zoom * math.sin(self.turn)
        linear = np.array([[c, -s], [s, c]])
        offset = np.array([0.5, 0.5]) - linear @ [0.5, 0.5] + self.shift
        side = image.shape[0]
        # cv2 counts pixel centres from 0, shares count them from half a pixel
        pixels = np.c_[linear, linear @ [0.5, 0.5] + side * offset - 0.5]
        image = cv2.warpAffine(image, pixels, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        return image, landmarks @ linear.T + offset


class _Shown:
    """Augmented pictures with their landmarks, on the way into a batch."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[np.ndarray] = []
        self.landmarks: list[np.ndarray] = []

    def add(self, pictures: PictureSet, row: int, augment: Augment) -> None:
        self.add_changed(pictures.picture(row), pictures.landmarks[row], augment)

    def add_changed(self, image: np.ndarray, landmarks: np.ndarray, augment: Augment) -> None:
        image, landmarks = augment.apply(image, landmarks, self.size)
        self.images.append(image)
        self.landmarks.append(landmarks)

    def stacked(self) -> Tensor:
        """[N,3,R,R]."""
        if not self.images:
            return torch.zeros(0, 3, self.size, self.size)
        return torch.from_numpy(np.stack(self.images)).permute(0, 3, 1, 2).contiguous()

    def points(self) -> Tensor:
        """[N,68,2] in pixels."""
        return torch.from_numpy(np.stack(self.landmarks)) if self.landmarks else torch.zeros(0, 68, 2)


def _balanced(photos: Sequence[tuple[PictureSet, np.ndarray]]) -> tuple[list[tuple[int, int]], np.ndarray]:
    """All usable photographs as (set, row) and their cumulated probability."""
    places, sources = [], []
    for k, (pictures, rows) in enumerate(photos):
        source = np.nan_to_num(pictures.column("source"), nan=-1).astype(int)
        places += [(k, int(row)) for row in rows]
        sources += [(int(source[row])) for row in rows]
    if not places:
        return [], np.empty(0)
    _, where, counts = np.unique(sources, return_inverse=True, return_counts=True)
    probability = (np.sqrt(counts) / counts)[where]
    cumulative = np.cumsum(probability / probability.sum())
    cumulative[-1] = 1.0
    return places, cumulative


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    import cv2

    return image if image.shape[0] == size else cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def _to_tensor(images: np.ndarray) -> Tensor:
    """[N,R,R,3] uint8 -> [N,3,R,R] float32 in [-1,1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def photo_rows(pictures: PictureSet, first_held_out: int) -> tuple[np.ndarray, np.ndarray]:
    """(training, held out) rows of photographs by person."""
    held = pictures.identity >= first_held_out
    return np.flatnonzero(~held), np.flatnonzero(held)


def attribute_index(names: Mapping[str, Attribute] = ATTRIBUTES) -> dict[str, int]:
    """{attribute: its number}."""
    return {name: k for k, name in enumerate(names)}
