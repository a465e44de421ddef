"""Whether a container takes a stream: tried, with its own packets, in memory."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import av

COPYABLE = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}  # what outputs can be
WAVE_TAGS = {  # of sound under a WAV file's header: its number there, bits a sample
    "pcm_alaw": (6, 8),
    "pcm_mulaw": (7, 8),
    "adpcm_ms": (2, 4),
    "adpcm_ima_wav": (0x11, 4),
    "wmav1": (0x160, 16),
    "wmav2": (0x161, 16),
    "wmapro": (0x162, 16),
    "wmalossless": (0x163, 16),
}
MP2_NAME = b"A_MPEG/L2"
MOST_HEAD = 1 << 20  # bytes before the first image of a Matroska file
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
        copy = add_copy(container, stream, heads, layout)
        container.start_encoding()
        for packet in copies(heads, copy):
            container.mux(packet)
        container.close()
    except (ValueError, av.FFmpegError):
        with suppress(ValueError, av.FFmpegError):
            container.close()
        return False
    return True


def add_copy(container: Any, stream: Any, heads: Sequence[Any], layout: str = "") -> Any:
    """A stream of the output for the packets of one of the source's, with another channel `layout` if that is given."""
    if needs_wave_header(container.format.name, stream):
        return _with_wave_header(container, stream, heads)
    copy = container.add_stream_from_template(stream)
    if layout:
        copy.codec_context.layout = layout
    return copy


# ---- sound that Matroska holds under the header of a WAV file --------------------------------------------------------


def needs_wave_header(kind: str, stream: Any) -> bool:
    """Whether Matroska holds this sound as `A_MS/ACM`, which FFmpeg's muxer writes and PyAV does not ask it for."""
    return kind == "matroska" and stream.codec_context.name in WAVE_TAGS


def _with_wave_header(container: Any, stream: Any, heads: Sequence[Any]) -> Any:
    """A stream that is MP2 by its name, which `name_wave_headers` changes, and has a WAV file's header as its own."""
    source = stream.codec_context
    copy = container.add_stream_from_template(_mp2().streams.audio[0])
    context, extra = copy.codec_context, bytes(source.extradata or b"")
    tag, bits = WAVE_TAGS[source.name]
    align = stream.channels if bits == 8 else max((packet.size for packet in heads), default=0)
    second = (source.bit_rate or 0) // 8
    header = struct.pack("<HHIIHHH", tag, stream.channels, stream.rate, second, align, bits, len(extra))
    context.extradata = header + extra
    context.sample_rate = stream.rate
    context.layout = UNNAMED_LAYOUTS.get(stream.channels, "stereo")
    return copy


@cache
def _mp2() -> Any:
    """A short MP2 file, open: a stream to be made into others needs one that was read."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp2") as out:  # a format that has no place for a delay
        sound = out.add_stream("mp2", rate=48000, layout="mono")
        silence = av.AudioFrame(format="s16", layout="mono", samples=1152 * 8)
        silence.sample_rate = 48000
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        for packet in [*sound.encode(silence), *sound.encode(None)]:
            out.mux(packet)
    file.seek(0)
    return av.open(file, format="mp3")  # FFmpeg's name for all of MPEG's layers


def name_wave_headers(path: Path, which: Sequence[bool]) -> None:
    """Write `A_MS/ACM` in place of MP2's name: of the tracks that have it, in their order, those that `which` says.

    A text in Matroska may end with zeros.
    """
    with path.open("r+b") as file:
        head, at = file.read(MOST_HEAD), 0
        for change in which:
            at = head.index(b"\x86\x89" + MP2_NAME, at) + 2
            if change:
                file.seek(at)
                file.write(b"A_MS/ACM".ljust(len(MP2_NAME), b"\0"))


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
