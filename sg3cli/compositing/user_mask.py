"""The user's mask: a video, an image, or a folder of images of the source's size; white may change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sg3cli.drawing.images import read_image
from sg3cli.errors import InputError
from sg3cli.video import Frame, VideoReader, image_sequence
from sg3cli.video.image_sequence import is_image_sequence

SLACK = 4 / 255  # levels so near to black or white are meant to be it: lossy codecs blur them


class UserMask:
    """What may change of each frame: `mask.at(index)` is `[height, width]` float32, 0..1.

    One image holds for all frames; a folder's images are taken in their natural order. Raises `InputError`
    when the file cannot be read, is of another size, or has fewer frames than the `frames` of the source.
    """

    def __init__(self, path: Path, width: int, height: int, frames: int) -> None:
        self.path, self.shape = path, (height, width)
        self._reader: VideoReader | None = None
        self._pending: Iterator[Frame] | None = None
        self._next = 0
        self.images = images_of(path)
        if self.images:
            count = frames if len(self.images) == 1 else len(self.images)
            self.at(0)  # an unreadable image, or one of another size, is found before any work
        else:
            self._reader = VideoReader(path)
            count = len(self._reader)
            self._check(self._reader.info.height, self._reader.info.width)
        if count < frames:
            raise InputError(f"the mask {path} has {count} frames, the video {frames}", "give one for every frame")

    def close(self) -> None:
        """Give up what is open."""
        if self._reader is not None:
            self._reader.close()

    def at(self, index: int) -> np.ndarray:
        """The mask of frame `index`."""
        if self.images:
            rgb = _read(self.images[index if len(self.images) > 1 else 0])
            self._check(*rgb.shape[:2])
        else:
            rgb = self._frame(index).rgb
        brightness = rgb.astype(np.float32).mean(axis=2) / 255
        result: np.ndarray = np.clip((brightness - SLACK) / (1 - 2 * SLACK), 0, 1).astype(np.float32)
        return result

    def _frame(self, index: int) -> Frame:
        """A frame of the video: the next one without seeking."""
        assert self._reader is not None
        if self._pending is None or index != self._next:
            self._pending = self._reader.frames(index)
        self._next = index + 1
        return next(self._pending)

    def _check(self, height: int, width: int) -> None:
        if (height, width) != self.shape:
            wanted = f"{self.shape[1]}x{self.shape[0]}"
            raise InputError(f"the mask {self.path} is {width}x{height}, the video {wanted}", f"scale it to {wanted}")


def images_of(path: Path) -> list[Path]:
    """The images a mask consists of; empty for a video."""
    if not is_image_sequence(path):
        return []
    try:
        return image_sequence.images_of(path)
    except InputError as error:
        hint = "a mask is a video, a picture, or a folder of pictures"
        raise InputError(f"no pictures are in {path}", hint) from error


def _read(path: Path) -> np.ndarray:
    try:
        return read_image(path)
    except InputError as error:
        raise InputError(f"cannot read the mask {path}", "give a picture, a folder of pictures, or a video") from error
