"""The finished file is read again before it gets its name: what a muxer dropped must not be found by the user."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from sg3cli.errors import InputError
from sg3cli.video import image_sequence
from sg3cli.video.source_packets import Copied

SLACK = Fraction(3, 2000)  # seconds: what containers that count milliseconds may round


@dataclass
class Written:
    """What was handed to the muxer of the video: packets, and the time from the first to the last image's end."""

    time_base: Fraction
    packets: int = 0
    first: int | None = None
    last: int = 0
    end: int = 0
    first_dts: int = 0

    def add(self, packet: Any) -> None:
        """Count a packet."""
        self.first_dts = packet.dts if not self.packets else self.first_dts
        self.packets += 1
        self.first = packet.pts if self.first is None else min(self.first, packet.pts)
        self.last = max(self.last, packet.pts)
        self.end = max(self.end, packet.pts + (packet.duration or 0))

    @property
    def length(self) -> int:
        """From the first image to the last one's end."""
        return self.end - (self.first or 0)


def check(path: Path, written: Written, copied: Collection[Copied], name: str) -> None:
    """Raise `InputError` unless the file at `path` holds every packet that was written, when it should be shown.

    The images from the last key frame on are decoded.
    """
    try:
        with av.open(str(path)) as container:
            others = {stream.number: stream for stream in copied}
            counts: dict[int, int] = dict.fromkeys((stream.index for stream in container.streams), 0)
            sizes = dict(counts)
            video = container.streams.video[0]
            times: list[tuple[int, int]] = []
            tail: list[Any] = []
            for packet in container.demux():
                if not packet.size:
                    continue
                counts[packet.stream.index] += 1
                sizes[packet.stream.index] += packet.size
                if packet.stream.index == video.index:
                    times.append((packet.pts, packet.duration or 0))
                    tail = [packet] if packet.is_keyframe else [*tail, packet]
            _compare("video", len(times), written.packets, name)
            for index, stream in others.items():
                if sizes.get(index) != stream.size:  # MP4 cuts plain samples into other packets
                    _compare(stream.name, counts.get(index, 0), stream.written, name)
            _compare_times(times, _stated_end(container, video), Fraction(video.time_base), written, name)
            shown = sum(1 for packet in [*tail, None] for _ in video.decode(packet))
            if shown < len(tail):
                raise _not_whole(name, f"only {shown} of its last {len(tail)} pictures can be decoded")
    except (av.FFmpegError, OSError, IndexError) as error:
        raise _not_whole(name, f"it cannot be read again ({error})") from error


def check_images(pattern: Path, written: Written, name: str) -> None:
    """The same for images in files of their own: there is one for every frame, and none is empty."""
    files = image_sequence.written(str(pattern))
    _compare("pictures", sum(path.stat().st_size > 0 for path in files), written.packets, name)


def _compare(what: str, found: int, meant: int, name: str) -> None:
    if found != meant:
        raise _not_whole(name, f"it holds {found} of {meant} packets of {what}")


def _stated_end(container: Any, video: Any) -> Fraction:
    """Seconds at which the track ends by its header, or (not in MP4) the whole file, in which sound may last longer."""
    if container.format.name.startswith("mov") and video.duration:
        return Fraction((video.duration + (video.start_time or 0)) * video.time_base)
    return Fraction(container.duration or 0, av.time_base)


def _compare_times(times: list[tuple[int, int]], stated: Fraction, base: Fraction, written: Written, name: str) -> None:
    """First and last image are shown when they should be, and the last for as long."""
    slack = SLACK + 2 * base
    pts = [time for time, _ in times]
    begin, last = min(pts) * base, max(pts) * base
    meant = ((written.first or 0) * written.time_base, written.last * written.time_base)
    if abs(begin - meant[0]) > slack or abs(last - meant[1]) > slack:
        raise _not_whole(
            name,
            f"its pictures are shown from {float(begin):.3f} to {float(last):.3f} s "
            f"and not from {float(meant[0]):.3f} to {float(meant[1]):.3f} s",
        )
    end = written.end * written.time_base
    if stated < end - slack:
        raise _not_whole(name, f"it ends at {float(stated):.3f} s and not at {float(end):.3f} s")


def _not_whole(name: str, why: str) -> InputError:
    return InputError(
        f"{name} was written and is not what was meant: {why}",
        "the file was dropped, an earlier one of that name is untouched; try another container, as .mkv or .mov",
    )
