"""Source and edited video as two small films of the same frames and times that a page carries inside itself.

Both are encoded anew without sound, at the largest of a few sizes at which they fit into what room there is.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from sg3cli.console import Console
from sg3cli.evaluation.paired_frames import check_shapes, lasts, pairs
from sg3cli.settings import EncodeConfig
from sg3cli.video import Frame, VideoReader, VideoWriter, drawn

LADDER = ((960, 25.0), (720, 26.0), (640, 27.0), (480, 28.0), (360, 30.0), (256, 33.0))  # longest side, quality
SPARING = 0.012  # bits a pixel that a video of little motion takes at the first quality: below, no try is worth it
LEAST = 12_000  # bytes: below there is no room for a video
SOME = 0.9  # of the room: what a video is cut to when it does not fit at any size

Pixels = tuple[np.ndarray, np.ndarray | None]  # of the source, and of the edited video if there is one
Keep = Callable[[int, Pixels], None]  # is told a frame that is wanted, by its number


@dataclass(frozen=True)
class Footage:
    """A source, read with the settings `reading`, and what was made of it."""

    source: Path
    edited: Path | None = None
    reading: dict[str, Any] = field(default_factory=dict)

    def frames(self) -> Generator[tuple[Frame, np.ndarray | None]]:
        """Each frame of the source with the edited one at its time, of the same size; ends with the shorter video.

        Raises `InputError` where one cannot be laid on the other.
        """
        with VideoReader(self.source, **self.reading) as before:
            if self.edited is None:
                yield from ((frame, None) for frame in before)
                return
            with VideoReader(self.edited) as after:
                check_shapes(before.info, after.info)
                yield from ((pair.source, pair.edited.rgb) for pair in pairs(before, after))


@dataclass(frozen=True)
class SmallVideos:
    """Two MP4 files, the second one only if there is an edited video, and what they show."""

    source: bytes
    edited: bytes | None
    size: tuple[int, int]  # width, height
    frames: int
    seconds: float
    note: str = ""  # how it differs from the footage

    @property
    def step(self) -> float:
        """Seconds that a frame is shown, on average."""
        return self.seconds / max(self.frames, 1)

    @property
    def bytes(self) -> int:
        """Of both."""
        return len(self.source) + len(self.edited or b"")


def data_url(data: bytes, kind: str) -> str:
    """The bytes as an address that holds them itself."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def small_videos(footage: Footage, room: int, console: Console, wanted: set[int], keep: Keep) -> SmallVideos | None:
    """The footage in at most `room` bytes, None when that is too little for any.

    Frames `wanted` are handed to `keep` on the way, each once.
    """
    with VideoReader(footage.source, **footage.reading) as reader:
        info = reader.info
    passing = Passing(footage, console, set(wanted), keep)
    limit, found = None, None
    rungs = [rung for rung in LADDER if estimate(info.width, info.height, info.frames, rung) <= room] or [LADDER[-1]]
    for side, quality in rungs if room >= LEAST else []:
        found = encoded(passing, side, quality)
        if found.bytes <= room:
            return found
    while found is not None and found.bytes > room and (limit is None or limit > 1):
        limit = max(1, int(SOME * found.frames * room / found.bytes))
        found = encoded(passing, *LADDER[-1], limit)
    if passing.wanted:  # what a video that was cut, or none, has not come by
        for _ in passing.frames():
            pass
    return found if found is not None and found.bytes <= room else None


@dataclass(frozen=True)
class Passing:
    """Footage that is gone through, perhaps more than once, and hands out the frames that are `wanted`."""

    footage: Footage
    console: Console
    wanted: set[int]  # those that were not come by yet
    keep: Keep

    def frames(self, limit: int | None = None) -> Iterator[tuple[Frame, np.ndarray | None]]:
        """The first `limit` frames, None: all."""
        for frame, edited in islice(self.footage.frames(), limit):
            if frame.index in self.wanted:
                self.wanted.discard(frame.index)
                self.keep(frame.index, (frame.rgb, edited))
            yield frame, edited


def estimate(width: int, height: int, frames: int, rung: tuple[int, float]) -> float:
    """Bytes of both videos at least."""
    w, h = fitted_size(width, height, rung[0])
    return 2 * frames * w * h * SPARING * 2 ** ((LADDER[0][1] - rung[1]) / 6) / 8


def fitted_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Even (width, height) whose longer one is at most `side`; nothing is enlarged."""
    scale = min(1.0, side / max(width, height))
    return max(2, 2 * round(scale * width / 2)), max(2, 2 * round(scale * height / 2))


def encoded(passing: Passing, side: int, quality: float, limit: int | None = None) -> SmallVideos:
    """Both videos, or the first `limit` frames of them, with the longer side and the quality given."""
    footage = passing.footage
    with VideoReader(footage.source, **footage.reading) as reader:
        info, total = reader.info, len(reader)
    size = fitted_size(info.width, info.height, side)
    plain = replace(drawn(*size, info.average_rate, total), time_base=info.time_base, duration=info.duration)
    encode = EncodeConfig(crf=quality, preset="fast", pix_fmt="yuv420p", audio="none", segment=0.0)
    count, end = 0, 0.0
    with tempfile.TemporaryDirectory(prefix="sg3-") as place, ExitStack() as stack:
        paths = [Path(place) / f"{name}.mp4" for name in ("source", "edited")][: 1 if footage.edited is None else 2]
        writers = [stack.enter_context(VideoWriter(path, plain, encode)) for path in paths]
        for frame, edited in passing.console.progress(passing.frames(limit), limit or total, "report"):
            for writer, rgb in zip(writers, (frame.rgb, edited), strict=False):
                writer.write(at_zero(frame, shrunk(rgb, size)))
            count, end = count + 1, frame.time + lasts(frame)
        stack.close()  # finishes the files
        data = [path.read_bytes() for path in paths]
    cut = f"the first {end:.1f} s of {info.duration:.1f} s" if count < total else ""
    smaller = f"at {size[0]}x{size[1]} of {info.width}x{info.height}" if size[0] < info.width - 1 else ""
    note = ", ".join(["without sound", *filter(None, (smaller, cut))])
    return SmallVideos(data[0], data[1] if len(data) > 1 else None, size, count, end, note)


def at_zero(frame: Frame, rgb: np.ndarray) -> Frame:
    """The frame in a video that begins at 0, with these pixels."""
    pts = frame.pts - frame.start_pts
    return Frame(frame.index, pts, Fraction(frame.time_base), rgb, frame.duration)


def shrunk(rgb: np.ndarray | None, size: tuple[int, int]) -> np.ndarray:
    assert rgb is not None
    if (rgb.shape[1], rgb.shape[0]) == size:
        return rgb
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
