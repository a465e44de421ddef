"""Sound that is encoded anew, for containers that cannot hold the source's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from sg3cli.video.muxing import UNNAMED_LAYOUTS

BLOCK = 4096  # samples at once
SLACK = 0.05  # seconds by which times may be off the count of the samples: containers round
BITRATE = 96_000  # of AAC, for each channel
RATES = {"aac": (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350), "flac": ()}


class SoundEncoder:
    """Packets of a source's sound track in, packets of `codec` (aac, flac) for a new `stream` of the container out.

    Samples are counted from the first one's time; where the source's times leave a gap there is silence.
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
        self._rate, self._size = rate, context.frame_size or BLOCK
        self._shape = (context.format.name, layout, rate)
        self._resampler = av.AudioResampler(context.format, layout, rate)
        self._fifo = av.AudioFifo()
        self._moved = 0
        self._begin: int | None = None  # the first sample's time, in samples
        self._taken = self._given = 0  # samples that came in, and that went to the encoder

    def encoded(self, packet: Any, moved: int) -> Iterator[Any]:
        """What is ready after this packet of the source, whose times are moved by so many units of its stream."""
        self._moved = moved
        with suppress(av.FFmpegError):
            for frame in packet.decode():
                yield from self._through(frame)

    def rest(self) -> Iterator[Any]:
        """What is left inside."""
        with suppress(av.FFmpegError):
            for frame in self._source.decode(None):
                yield from self._through(frame)
        for piece in self._resampler.resample(None):
            self._take(piece)
        yield from self._ready(last=True)
        yield from self._tied(self.stream.encode(None))

    def _through(self, frame: Any) -> Iterator[Any]:
        if frame.pts is not None:
            seconds = frame.pts * frame.time_base + self._moved * Fraction(self._source.time_base)
            at = round(seconds * self._rate)
            self._begin = at if self._begin is None else self._begin
            gap = at - self._begin - self._taken
            if gap < -self._rate * SLACK:
                return  # this time has been heard already
            if gap > self._rate * SLACK:
                yield from self._silence(gap)
        for piece in self._resampler.resample(frame):
            self._take(piece)
        yield from self._ready()

    def _silence(self, samples: int) -> Iterator[Any]:
        """What is ready when so many samples of silence come in."""
        for start in range(0, samples, BLOCK):
            piece = av.AudioFrame(*self._shape[:2], samples=min(BLOCK, samples - start))
            piece.sample_rate = self._rate
            for plane in piece.planes:
                plane.update(bytes(plane.buffer_size))
            self._take(piece)
            yield from self._ready()

    def _take(self, piece: Any) -> None:
        piece.pts = None  # times are counted here
        self._fifo.write(piece)
        self._taken += piece.samples

    def _ready(self, last: bool = False) -> Iterator[Any]:
        """Packets of the samples that fill one, or (`last`) of all."""
        while (piece := self._fifo.read(self._size, partial=last)) is not None:
            piece.pts, piece.time_base = (self._begin or 0) + self._given, Fraction(1, self._rate)
            self._given += piece.samples
            yield from self._tied(self.stream.encode(piece))

    def _tied(self, made: Iterable[Any]) -> Iterator[Any]:
        for packet in made:
            packet.stream = self.stream
            yield packet
