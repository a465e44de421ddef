"""The training set: labelled renders of synthetic people in the `synthface` format, held decoded in memory.

A data set is a folder with `images.bin` (concatenated JPEG), `index.npy` (int64 offset, length) and `labels.npz`
(`columns`, `labels`, `identity`, `landmarks68`). 20,000 images of 128 px are one gigabyte as uint8, less than a
loader process per core would cost in copies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sg3cli.errors import InputError
from sg3cli.files import atomic_path
from sg3cli.levels import tensor_to_signed

HELD_OUT = 250  # people, the last ones by identity number: never trained on


@dataclass(frozen=True)
class FaceSet:
    """images [N,R,R,3] uint8 RGB, labels [N,K] float32, landmarks [N,68,2] in pixels, identity [N] int64 from 0."""

    images: np.ndarray
    labels: np.ndarray
    columns: tuple[str, ...]
    landmarks: np.ndarray
    identity: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def column(self, name: str) -> np.ndarray:
        """One label over all images, [N] float32."""
        return self.labels[:, self.columns.index(name)]

    def subset(self, keep: np.ndarray) -> FaceSet:
        """The images where `keep` [N] bool is true."""
        return FaceSet(self.images[keep], self.labels[keep], self.columns, self.landmarks[keep], self.identity[keep])

    def split(self, held_out: int | None = None) -> tuple[FaceSet, FaceSet]:
        """(train, test) by person, so that no face of the test set was seen under another light.

        `held_out`: people of the test set; None: `HELD_OUT`, a quarter of them at most.
        """
        people = int(self.identity.max()) + 1
        test = self.identity >= people - (min(HELD_OUT, people // 4) if held_out is None else held_out)
        return self.subset(~test), self.subset(test)

    def batch(self, rows: np.ndarray) -> torch.Tensor:
        """[B,3,R,R] float32 in [-1, 1]."""
        pixels = torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2)
        return tensor_to_signed(pixels.contiguous())


def load_faces(folder: Path, decoded: Path | None = None) -> FaceSet:
    """Read a `synthface` data set; `decoded` (.npy) caches the decoded pixels across runs.

    Raises InputError that names the missing or unreadable part.
    """
    labels = _labels(folder)
    images = np.load(decoded, mmap_mode="r") if decoded and decoded.is_file() else _decode(folder)
    if decoded and not decoded.is_file():
        with atomic_path(decoded) as temporary, temporary.open("wb") as file:
            np.save(file, images)
    return replace(labels, images=images)


def load_test(folder: Path, held_out: int | None = None) -> FaceSet:
    """The test set of `split` alone: of the other images none is decoded. Raises `InputError`."""
    labels = _labels(folder)
    rows = replace(labels, images=np.arange(len(labels.labels))).split(held_out)[1]
    return replace(rows, images=_decode(folder, rows.images))


def _labels(folder: Path) -> FaceSet:
    """A data set without its images."""
    for part in ("images.bin", "index.npy", "labels.npz"):
        if not (folder / part).is_file():
            raise InputError(f"{folder} is not a training set: {part} is missing", "see `sg3 train --help`")
    table = np.load(folder / "labels.npz", allow_pickle=False)
    identity = np.unique(table["identity"], return_inverse=True)[1]
    names = [str(c) for c in table["columns"]]
    keep = [k for k, name in enumerate(names) if name != "identity"]  # a number, not a property of the face
    columns = tuple(names[k] for k in keep)
    return FaceSet(np.empty(0, np.uint8), table["labels"][:, keep], columns, table["landmarks68"], identity)


def _decode(folder: Path, rows: np.ndarray | None = None) -> np.ndarray:
    """[N,R,R,3] pixels of all images, or of `rows`."""
    import cv2

    index = np.load(folder / "index.npy")
    blob = np.fromfile(folder / "images.bin", np.uint8)
    images = None
    wanted = np.arange(len(index)) if rows is None else rows
    for place, row in enumerate(wanted):
        offset, length = index[row]
        bgr = cv2.imdecode(blob[offset : offset + length], cv2.IMREAD_COLOR)
        if bgr is None:
            raise InputError(f"picture {row} of {folder} does not decode", "render the data set again")
        if images is None:
            images = np.empty((len(wanted), *bgr.shape), np.uint8)
        images[place] = bgr[:, :, ::-1]
    if images is None:
        raise InputError(f"{folder} holds no picture", "render it with `python -m synthface dataset`")
    return images


class Batches:
    """Endless shuffled row numbers, reproducible from `seed` and the step alone (so a run can resume anywhere)."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self.count, self.batch, self.seed = count, batch, seed

    def rows(self, step: int) -> np.ndarray:
        """Row numbers [batch] of one step; every epoch is a permutation of the set."""
        first = step * self.batch
        places = np.arange(first, first + self.batch)
        return np.array([self._permutation(int(p // self.count))[p % self.count] for p in places])

    def _permutation(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.seed, epoch)).permutation(self.count)
        return self._order
