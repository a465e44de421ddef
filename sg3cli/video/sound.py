"""Sound that is encoded anew, for containers that cannot hold the source's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from sg3cli.video.muxing import UNNAMED_LAYOUTS

BITRATE = 96_000  # of AAC, for each channel
RATES = {"aac": (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350), "flac": ()}


class SoundEncoder:
    """Packets of a source's sound track in, packets of `codec` (aac, flac) for a new `stream` of the container out.

    A sound's time is that of its packets; what does not decode is silence of its length.
    """

    def __init__(self, container: Any, source: Any, codec: str) -> None:
        self._source = source
        rates = RATES[codec]
        rate = source.rate if not rates or source.rate in rates else min(rates, key=lambda r: (r < source.rate, r))
        layout = source.codec_context.layout.name
        if layout.endswith("channels"):
            layout = UNNAMED_LAYOUTS.get(source.channels, "stereo")
        self.stream = container.add_stream(codec, rate=rate, layout=layout)
        context = self.stream.codec_context
        if codec == "aac":
            context.bit_rate = BITRATE * source.channels
        else:
            deep = source.codec_context.format is not None and source.codec_context.format.bytes > 2
            context.format = "s32" if deep else "s16"
        context.time_base = Fraction(1, rate)
        context.open()
        self._base = Fraction(1, rate)
        self._resampler = av.AudioResampler(context.format, layout, rate, frame_size=context.frame_size or None)
        self._moved = 0

    def encoded(self, packet: Any, moved: int) -> Iterator[Any]:
        """What is ready after this packet of the source, whose times are moved by so many units of its stream."""
        self._moved = moved
        with suppress(av.FFmpegError):
            yield from self._through(packet.decode())

    def rest(self) -> Iterator[Any]:
        """What is left inside."""
        with suppress(av.FFmpegError):
            yield from self._through(self._source.decode(None))
        yield from self._packets(self._resampler.resample(None))
        yield from self._tied(self.stream.encode(None))

    def _through(self, frames: Iterable[Any]) -> Iterator[Any]:
        for frame in frames:
            if frame.pts is not None:
                frame.pts += round(self._moved * self._source.time_base / frame.time_base)
            yield from self._packets(self._resampler.resample(frame))

    def _packets(self, frames: Iterable[Any]) -> Iterator[Any]:
        for frame in frames:
            yield from self._tied(self.stream.encode(frame))

    def _tied(self, made: Iterable[Any]) -> Iterator[Any]:
        for packet in made:
            packet.stream = self.stream
            yield packet
