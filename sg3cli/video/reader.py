"""Frames in: upright RGB images with their exact timestamps, decoded a few frames ahead in a thread."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from sg3cli.errors import InputError, UsageError
from sg3cli.video.captions import SPEAKING, captions_of
from sg3cli.video.color import HLG
from sg3cli.video.color_profile import ColorProfile
from sg3cli.video.container import MAX_MISSING, check_head, main_video, open_media, packets
from sg3cli.video.image_reader import examine_stills, profile_to_convert, stills
from sg3cli.video.image_sequence import is_image_sequence
from sg3cli.video.info import VideoInfo, side_data
from sg3cli.video.pixel_conversion import Stored, ToRgb, deinterlaced, may_be_interlaced
from sg3cli.video.prefetch import Prefetch
from sg3cli.video.presentation import active_format_of, projection_of, stereo_of
from sg3cli.video.probe import examine
from sg3cli.video.timeline import in_parts

QUEUE_FRAMES = 4
HEAD = 1 << 23  # bytes of standard input by which it is recognised
AHEAD_PIXELS = 1 << 26


@dataclass(frozen=True)
class Frame:
    """One image. `rgb` is `[H, W, 3]` uint8, upright; `pts` and `duration` count units of `time_base` seconds.

    `stored` is what the file holds of it; an edited frame (`replace(frame, rgb=...)`) keeps it, for the writer.
    """

    index: int
    pts: int
    time_base: Fraction
    rgb: np.ndarray
    duration: int
    start_pts: int = 0
    stored: Stored | None = field(default=None, repr=False, compare=False)
    captions: bytes = field(default=b"", repr=False)  # closed captions, see `captions`
    active_format: int | None = field(default=None, repr=False)  # the part that matters, see `presentation`

    @property
    def time(self) -> float:
        """Seconds since the first frame of the stream."""
        return float((self.pts - self.start_pts) * self.time_base)


class VideoReader:
    """The frames of a video, in display order: `for frame in reader`, or `reader.frames(start=k)`.

    `path` may be `-`: standard input is first copied to a temporary file, because a stage may read it more than once.
    It may be an image, a folder of images or a pattern (see `sequence`), shown at `rate` frames a second; of a
    file of several videos that of number `track`, by default the one that players show.
    `notices` says in plain sentences what is not as it was in the file (frames repeated in place of damaged ones, HDR
    or 10-bit values narrowed). Errors are `InputError`.
    """

    def __init__(
        self, path: str | Path, depth: int = QUEUE_FRAMES, rate: str | None = None, track: int | None = None
    ) -> None:
        self._spool = spool() if str(path) == "-" else None
        self._files: list[Path] = []
        try:
            if self._spool is None and is_image_sequence(Path(path)):
                self.info, self.timeline, self._files = examine_stills(Path(path), rate)
            else:
                self.info, self.timeline = examine(Path(self._spool.name) if self._spool else path, track)
        except BaseException:
            self.close()
            raise
        # Few images ahead where they are large: 8192x8192 takes 300 MB.
        self._depth = max(1, min(depth, AHEAD_PIXELS // (self.info.width * self.info.height)))
        self._fields = may_be_interlaced(self.info)
        self.interlaced = 0  # frames that are
        self._otherwise = 0  # frames that are stereo 3D or spherical otherwise than the first
        self.repeated = 0  # frames that could not be decoded and show the one before
        self.notices: list[str] = _reading_notices(self.info)
        if self.timeline.dropped:
            where = " before the first key frame" if self.timeline.seekable else ""
            self._notice(f"{self.timeline.dropped} frames{where} cannot be decoded and are left out")

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary copy of standard input, if there is one."""
        if self._spool is not None:
            self._spool.close()

    def __len__(self) -> int:
        return self.info.frames

    @property
    def pts(self) -> np.ndarray:
        """`[T]` int64: the pts of every frame."""
        return self.timeline.pts

    @property
    def times(self) -> np.ndarray:
        """`[T]` float64: seconds since the first frame."""
        return (self.pts - self.pts[0]) * float(self.info.time_base)

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def frames(self, start: int = 0) -> Iterator[Frame]:
        """The frames from index `start` on, the same as a full pass would give."""
        if not 0 <= start <= len(self):
            raise IndexError(f"frame {start} of {len(self)}")
        yield from Prefetch(lambda: self._produce(start), self._depth)

    def _produce(self, start: int) -> Iterator[Frame]:
        """Frames from `start`; a frame that did not decode shows the image before it, or the first one there is."""
        info, timeline, to_rgb = self.info, self.timeline, ToRgb(self.info)
        held, missing, self.repeated, self.interlaced, self._otherwise = None, 0, 0, 0, 0
        waiting: list[int] = []
        for index, image in self._matched(start):
            missing = missing + 1 if image is None else 0
            if missing > MAX_MISSING:
                raise self._damaged(index)
            held = image if image is not None else held
            if index < start:
                continue
            waiting.append(index)
            self.repeated += image is None
            if held is None:
                continue
            rgb, stored = to_rgb(held, self._profile(index))
            captions, active_format = self._beside(image)
            for i in waiting:
                pts, duration = int(timeline.pts[i]), int(timeline.durations[i])
                said = captions if i == index else b""
                yield Frame(i, pts, info.time_base, rgb, duration, info.start_pts, stored, said, active_format)
            waiting.clear()
        if waiting:
            raise self._damaged(waiting[0])
        self._announce(to_rgb)

    def _beside(self, image: Any) -> tuple[bytes, int | None]:
        """Closed captions and active format of a decoded image, where its codec can say them in each."""
        if image is None or self.info.codec not in SPEAKING:
            return b"", None
        data = side_data(image)
        said = stereo_of(data) or self.info.stereo, projection_of(data) or self.info.projection  # it holds on
        self._otherwise += said != (self.info.stereo, self.info.projection)
        return captions_of(image), active_format_of(data)

    def _profile(self, index: int) -> ColorProfile | None:
        """Of an image in a file of its own: the colour profile that is to be converted."""
        return profile_to_convert(self._files[index]) if self._files and self.info.notes else None

    def _matched(self, start: int) -> Iterator[tuple[int, Any]]:
        """(index, image) for every index of the timeline from a key frame at or before `start`; None: no image."""
        pts = self.timeline.pts
        if start == len(pts):
            return
        index = -1
        for stamp, image in self._images(start):
            if index < 0:
                index = 0 if start == 0 else max(0, int(np.searchsorted(pts, stamp)))
            while index < len(pts) and pts[index] < stamp:
                yield index, None
                index += 1
            if index < len(pts) and pts[index] == stamp:
                yield index, image
                index += 1
        for rest in range(max(index, 0), len(pts)):
            yield rest, None

    def _images(self, start: int) -> Iterator[tuple[int, Any]]:
        """(pts, decoded image), beginning at the latest key frame from which frame `start` comes out right."""
        if self._files:
            yield from stills(self._files, self.timeline, start)
            return
        # Deinterlacing looks at the image before as well.
        target = int(self.timeline.pts[max(0, start - self._fields)])
        second = round(1 / self.info.time_base)
        for back in (0, 2, 10) if start and self.timeline.seekable else ():
            with open_media(self.info.path) as container:
                stream = main_video(container, self.info.path, index=self.info.stream)
                container.seek(target - back * second, stream=stream)
                images = self._decode(container, stream, key_before=target)
                first = next(images, None)
                if first is not None and first[0] <= target:
                    yield first
                    yield from images
                    return
        with open_media(self.info.path) as container:
            yield from self._decode(container, main_video(container, self.info.path, index=self.info.stream))

    def _decode(self, container: Any, stream: Any, key_before: int | None = None) -> Iterator[tuple[int, Any]]:
        """(pts, image) from here on; nothing when the first packet is no key frame at or before `key_before`."""
        stream_packets = packets(container, stream, self.info.path)
        if key_before is not None:
            first = next(stream_packets, None)
            if first is None or not first.is_keyframe or first.pts is None or first.pts > key_before:
                return
            stream_packets = chain([first], stream_packets)
        plain = in_parts(stream_packets, stream, self.timeline.breaks)
        images: Iterator[tuple[int, Any]] = zip(self.timeline.pts.tolist(), plain, strict=False)
        if self.timeline.seekable:
            images = ((int(image.pts), image) for image in plain if image.pts is not None)
        yield from deinterlaced(self._counted(images)) if self._fields else images

    def _counted(self, images: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        for stamp, image in images:
            self.interlaced += bool(image.interlaced_frame)
            yield stamp, image

    def _damaged(self, index: int) -> InputError:
        seconds = float((self.timeline.pts[index] - self.timeline.pts[0]) * self.info.time_base)
        return InputError(
            f"{self.info.path} is damaged: no picture could be decoded near {seconds:.2f} s",
            "copy it again, or re-encode it with a player that shows it",
        )

    def _announce(self, to_rgb: ToRgb) -> None:
        if self.repeated:
            self._notice(f"{self.repeated} damaged frames show the picture before them")
        if self.interlaced and not self.info.interlaced:
            self._notice(f"{self.interlaced} frames of the source are interlaced; these are deinterlaced (bwdif)")
        if self._otherwise:
            self._notice(
                f"{self._otherwise} frames are said to be stereo 3D or spherical otherwise than the first; "
                "what the first says is taken for all"
            )
        if to_rgb.recolored:
            self._notice(f"{to_rgb.recolored} frames have other colour tags than the first; each is read by its own")
        if to_rgb.scaled:
            self._notice(f"{to_rgb.scaled} frames of another size were scaled to {self.info.width}x{self.info.height}")

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)


def _reading_notices(info: VideoInfo) -> list[str]:
    notices = list(info.notes)
    if info.color.hdr:
        curve = "HLG" if info.color.transfer == HLG else "PQ"
        notices.append(f"the source is HDR ({curve}); it is tone-mapped to standard range, BT.709")
    elif info.bit_depth > 8:
        notices.append(f"the source has {info.bit_depth} bits a channel; what is edited has 8")
    if info.interlaced:
        notices.append("the source is interlaced; each of its frames is deinterlaced (bwdif)")
    return notices


def spool(stream: BinaryIO | None = None, folder: Path | None = None) -> Any:
    """Copy standard input (or `stream`) to a named temporary file that disappears when closed; `.name` is its path.

    What does not begin as media do is refused early: it might never end.
    """
    stream = stream or sys.stdin.buffer
    if stream.isatty():
        raise UsageError("`-` reads a video from standard input, which is a terminal", "pipe a file into it")
    file = tempfile.NamedTemporaryFile(prefix=".sg3-stdin-", suffix=".media", dir=folder)  # noqa: SIM115 (closed by the caller)
    try:
        file.write(stream.read(HEAD))
        file.flush()
        if file.tell() == HEAD:
            check_head(Path(file.name))
        shutil.copyfileobj(stream, file, 1 << 20)
        file.flush()
    except OSError as error:
        file.close()
        raise InputError(
            f"standard input could not be stored in {folder or tempfile.gettempdir()} ({error.strerror})",
            "make room there, or name a file instead of `-`" if folder else "set TMPDIR to a disk with room",
        ) from error
    except BaseException:
        file.close()
        raise
    return file
