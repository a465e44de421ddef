"""Whether a container takes a stream: tried, with its own packets, in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import av

COPYABLE = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}  # what outputs can be
# Layouts of sound that says how many channels it has and not which (the order in which FFmpeg assumes them).
UNNAMED_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


class Sink(io.RawIOBase):
    """A file in memory that counts and forgets: muxers may seek in it, and read back nothing but zeros."""

    def __init__(self) -> None:
        super().__init__()
        self._at = self._size = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Take the bytes."""
        self._at += len(data)
        self._size = max(self._size, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go somewhere."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Where it is."""
        return self._at


def works(kind: str, stream: Any, heads: Sequence[Any], layout: str = "") -> bool:
    """Whether the container `kind` takes the header, the first packets and the trailer of a stream of the source."""
    container = av.open(Sink(), "w", format=kind)
    try:
        copy = add_copy(container, stream, layout)
        container.start_encoding()
        for packet in copies(heads, copy):
            container.mux(packet)
        container.close()
    except (ValueError, av.FFmpegError):
        return False
    return True


def add_copy(container: Any, stream: Any, layout: str | None = "") -> Any:
    """A stream of the output for the packets of one of the source's, with another channel `layout` if that is given."""
    copy = container.add_stream_from_template(stream)
    if layout:
        copy.codec_context.layout = layout
    return copy


def copies(heads: Sequence[Any], stream: Any) -> list[Any]:
    """The packets once more, for a stream of an output; those without times in a row."""
    made, last = [], None
    for head in heads:
        packet = av.Packet(bytes(head))
        stamp = head.dts if head.dts is not None else head.pts
        stamp = stamp if stamp is not None else (0 if last is None else last + max(1, head.duration or 1))
        last = stamp if last is None else max(stamp, last + 1)
        packet.dts, packet.pts = last, max(last, head.pts if head.pts is not None else last)
        packet.duration, packet.time_base, packet.is_keyframe = head.duration or 0, head.time_base, head.is_keyframe
        packet.stream = stream
        made.append(packet)
    return made
