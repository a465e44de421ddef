"""Images to train on: a folder (with sub-folders), a zip, or a `synthface` data set.

What is refused, dropped or converted:

* a damaged or truncated image is dropped, named, and counted;
* nothing to train on (empty folder, empty zip, all dropped) is an InputError, and so is a zip that cannot be read;
* images that are not square, or of another size than the first, are an InputError that names one and counts them:
  `sg3 train prepare` crops them. With a resolution asked for, larger square ones are reduced to it;
* grey becomes RGB, 16 bits are scaled to 8, CMYK is converted, the transparent is laid on black, JPEGs are turned
  upright.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sg3cli.drawing.images import decode
from sg3cli.errors import InputError
from sg3cli.levels import tensor_to_signed
from sg3cli.video.image_sequence import SUFFIXES, natural_key

HELD = 2 << 30  # bytes of decoded images that are kept in memory; more are decoded when they are asked for
NAMED = 10  # dropped images that are named on screen
Read = Callable[[int], bytes]


class Dropped(NamedTuple):
    """An image that is left out."""

    name: str
    why: str


class Images:
    """`resolution`, `names` [N], `dropped`; `batch(rows)` decodes."""

    def __init__(
        self, names: Sequence[str], images: Callable[[int], np.ndarray], resolution: int, dropped: Sequence[Dropped]
    ) -> None:
        self.names, self.dropped, self.resolution = tuple(names), tuple(dropped), resolution
        self._images = images

    def __len__(self) -> int:
        return len(self.names)

    def image(self, row: int) -> np.ndarray:
        """[R,R,3] uint8 RGB."""
        return self._images(int(row))

    def batch(self, rows: np.ndarray, mirror: np.ndarray | None = None) -> Tensor:
        """[B,3,R,R] float32 in [-1, 1]; left and right change places where `mirror` [B] is true."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            images = np.stack(list(pool.map(self.image, rows)))
        if mirror is not None:
            images = np.where(mirror[:, None, None, None], images[:, :, ::-1], images)
        return tensor_to_signed(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())


def open_images(path: Path, resolution: int | None, say: Callable[[str], None]) -> Images:
    """Decode every image of `path` once, to know that it can be; see the module for what is refused.

    resolution: size to reduce to; None takes the images as they are. Raises InputError.
    """
    names, read = listed(path)
    if not names:
        raise InputError(f"{path} holds no pictures", f"pictures end in {', '.join(SUFFIXES)}")
    dropped: list[Dropped] = []
    good: list[int] = []
    held: np.ndarray | None = None
    for k, image in enumerate(_decoded(read, len(names))):
        if isinstance(image, str):
            dropped.append(Dropped(names[k], image))
            continue
        side = resolution or (held.shape[1] if held is not None else image.shape[0])
        _check_size(path, names[k], image, side, exact=resolution is None)
        if held is None:
            held = np.empty((len(names) if len(names) * side * side * 3 <= HELD else 1, side, side, 3), np.uint8)
        if len(held) == len(names):
            held[len(good)] = _reduced(image, side)
        good.append(k)
    _report(path, dropped, len(names), say)
    if held is None:
        raise InputError(f"no picture of {path} can be read; the first: {dropped[0].name}: {dropped[0].why}", "")
    kept, side = held, held.shape[1]

    def image_of(row: int) -> np.ndarray:
        if len(kept) == len(names):
            return kept[row]
        again = read_image(read, good[row])
        if isinstance(again, str):
            raise InputError(f"{names[good[row]]} could be read before, and now: {again}", "is the disk still there?")
        return _reduced(again, side)

    return Images([names[k] for k in good], image_of, side, dropped)


def _check_size(path: Path, name: str, image: np.ndarray, side: int, exact: bool) -> None:
    height, width = image.shape[:2]
    fits = height == side if exact else height >= side
    if height != width or not fits:
        wanted = f"{side}x{side}" if exact else f"square and at least {side} pixels wide"
        raise InputError(
            f"{name} in {path} is {width}x{height}, not {wanted}",
            "sg3 train prepare crops pictures to one size; --resolution reduces square ones",
        )


def _reduced(image: np.ndarray, side: int) -> np.ndarray:
    import cv2

    return image if len(image) == side else cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def _report(path: Path, dropped: Sequence[Dropped], count: int, say: Callable[[str], None]) -> None:
    for name, why in dropped[:NAMED]:
        say(f"dropped {name}: {why}")
    if dropped:
        say(f"{len(dropped)} of {count} pictures of {path} are left out")


# ---- where the bytes come from


def listed(path: Path) -> tuple[list[str], Read]:
    """Names and a reader of a folder, a zip or a `synthface` set."""
    if path.is_file() and path.suffix.lower() == ".zip":
        return _zip(path)
    if is_data_set(path):
        return _synthface(path)
    if not path.is_dir():
        missing = "there is no such file or folder" if not path.exists() else "it is neither a folder nor a zip"
        raise InputError(f"cannot train on {path}: {missing}", "give a folder of pictures, a zip, or a data set")
    files = [p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file() and not p.name.startswith(".")]
    files.sort(key=lambda p: (str(p.parent), natural_key(p)))
    return [str(p.relative_to(path)) for p in files], lambda k: files[k].read_bytes()


def is_data_set(path: Path) -> bool:
    """Whether a folder is a `synthface` set, not loose images."""
    return (path / "images.bin").is_file() and (path / "index.npy").is_file()


def _synthface(path: Path) -> tuple[list[str], Read]:
    index = np.load(path / "index.npy", allow_pickle=False)

    def read(k: int) -> bytes:
        with open(path / "images.bin", "rb") as file:
            file.seek(int(index[k, 0]))
            return file.read(int(index[k, 1]))

    return [f"picture {k}" for k in range(len(index))], read


def _zip(path: Path) -> tuple[list[str], Read]:
    with _opened(path) as archive:
        entries = [e for e in archive.infolist() if Path(e.filename).suffix.lower() in SUFFIXES and not e.is_dir()]
    if locked := [e.filename for e in entries if e.flag_bits & 1]:
        raise InputError(f"{path} is encrypted (such as {locked[0]})", "unpack it first")
    names = sorted((e.filename for e in entries), key=lambda name: (str(Path(name).parent), natural_key(Path(name))))

    def read(k: int) -> bytes:
        with _opened(path) as archive:
            return archive.read(names[k])

    return names, read


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} is no zip that can be read: {error}", "make it again") from error
    with archive:
        yield archive


def read_image(read: Read, k: int) -> np.ndarray | str:
    """The image, or why there is none."""
    try:
        data = read(k)
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        return f"cannot be read ({error})"
    except Exception as error:  # noqa: BLE001 (zlib.error and what other packers raise: a bad entry is one bad image)
        return f"cannot be unpacked ({error})"
    image = decode(data)
    return "damaged, cut short, or no picture" if image is None else image


def _decoded(read: Read, count: int) -> Iterator[np.ndarray | str]:
    """All images in order, a few ahead on threads."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for first in range(0, count, 64):
            yield from pool.map(lambda k: read_image(read, k), range(first, min(first + 64, count)))
