"""Frames out: encoded with the timestamps they came with, beside the untouched packets of sound and subtitles."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.frame import PictureType

from sg3cli.errors import InputError, UsageError
from sg3cli.settings import EncodeConfig
from sg3cli.video.encoder_settings import choose, color_notices
from sg3cli.video.frame_messages import FrameMessages
from sg3cli.video.info import VideoInfo
from sg3cli.video.muxing import Sink, name_wave_headers
from sg3cli.video.output_file import Output
from sg3cli.video.pixel_conversion import FromRgb
from sg3cli.video.read_back import Written, check, check_images
from sg3cli.video.reader import Frame
from sg3cli.video.source_packets import Copied, SourcePackets

# What an MP4 can say without the `mdta` extension; anything else needs it to survive.
MP4_TAGS = {
    "title",
    "artist",
    "album",
    "comment",
    "genre",
    "copyright",
    "date",
    "description",
    "encoder",
    "creation_time",
}
CONTAINER_TAGS = {
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "duration",
}  # of the file, not the video


MOST_RATE = 255  # frames a second of a time code, which counts them in a byte


class VideoWriter:
    """Writes frames to `out` (a path, or `-` for Matroska on standard output).

    Pixels that are still those of the source are written as it stores them, others are converted to its colours; HDR
    and RGB become BT.709, limited range. Timestamps, the last frame's duration, sound, subtitles,
    chapters and tags are those of the source (`source`, a reader's `info`). `size` (width, height) is given when the
    frames are not of the source's size. `metadata` adds container tags. Nothing appears under the name `out` before
    `with` ends well. `notices` lists what differs from the source. Errors: `UsageError` for a codec, preset or format
    that cannot be; `InputError` for a place that cannot be written.
    """

    def __init__(
        self,
        out: str | Path,
        source: VideoInfo,
        encode: EncodeConfig | None = None,
        size: tuple[int, int] | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        self.source, self.encode = source, encode or EncodeConfig()
        self.size = size or (source.width, source.height)
        self.notices = _changes(source)
        self.count = 0
        self.before_publish: Callable[[Path], None] | None = None  # is told the file that is about to get its name
        self.sign: Callable[[Path, Path], None] | None = None  # writes the finished file anew, with its credentials
        self._container: Any = None
        self._started = False  # the header is written
        self._held: Any = None  # the packet that is to be written next
        self._given = 0  # frames to the encoder
        self._tags = _container_tags(source, metadata)
        self._output = Output(out, source.path, self.encode.format)
        self.notices += self._output.notices
        if "timecode" in self._tags and self._output.format in ("mp4", "mov") and source.average_rate > MOST_RATE:
            del self._tags["timecode"]  # the muxer would refuse at the very end
            self.notices.append(
                f"a time code cannot count {float(source.average_rate):g} frames a second; it is left out"
            )
        self._encoder = choose(self.encode, source, self.size, self._output.image)
        self.notices += [*color_notices(source, self._encoder.colors), *self._encoder.notices]
        if self._output.single and source.frames > 1:
            raise UsageError(
                f"{self._output.name} is one picture, the source has {source.frames}",
                "number them, as in frames/%04d.png, or name a video",
            )
        self._durations: dict[int, int] = {}  # of frames inside the encoder
        self._messages = FrameMessages(source, self.size, self._encoder.name, self._notice)
        self._lead = int(source.lead / source.time_base)  # units by which all is earlier than in the source
        self._written = Written(source.time_base)
        self._from_rgb = FromRgb(self._encoder.pix_fmt, self._encoder.colors, self._encoder.chroma)
        self._stack = ExitStack()  # what is open besides the output: the source, for its packets

    def __enter__(self) -> VideoWriter:
        try:
            self._open()
        except BaseException:
            self._abort()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self._abort()
            return
        try:
            self._finish()
        except BaseException:
            self._abort()
            raise

    def write(self, frame: Frame) -> None:
        """Encode one frame; frames come in display order."""
        for packet in self.encoded(frame):
            self.write_packet(packet)

    def encoded(self, frame: Frame | None) -> list[Any]:
        """The packets that are ready after this frame, their durations exact; after None, all that are left."""
        packets = self._guard(self._stream.encode, None if frame is None else self._timed_image(frame))
        self._given += frame is not None
        for packet in packets:
            if frame is None and self._given <= 2:
                packet.dts = packet.pts  # x265 says something random of one or two images
            # Not every encoder hands the duration on, and the last frame's is all that says when it ends.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
        return [self._messages.spoken(packet) for packet in packets]

    def _timed_image(self, frame: Frame) -> Any:
        width, height = self.size
        if frame.rgb.shape != (height, width, 3):
            raise ValueError(f"frame of shape {frame.rgb.shape}, expected {(height, width, 3)}")
        image = self._from_rgb(frame.rgb, frame.stored)
        image.pict_type = PictureType.NONE  # a decoded image's would be a command to the encoder
        image.pts, image.time_base, image.duration = frame.pts - self._lead, frame.time_base, frame.duration
        self._durations[image.pts] = frame.duration
        self._messages.take(frame, image.pts)
        return image

    def rehearse(self) -> None:
        """Write an output of one black image into the void, with header, the other streams' first packets and trailer.

        What it cannot hold shows before hours of work, not after them.
        """
        try:
            if self._output.image is not None:
                self._open()
                return
            self._open(Sink())
            width, height = self.size
            source, black = self.source, np.zeros((height, width, 3), np.uint8)
            step = max(1, round(1 / (source.average_rate * source.time_base)))
            frame = Frame(0, source.start_pts, source.time_base, black, step, source.start_pts)
            for packet in [*self.encoded(frame), *self.encoded(None)]:
                packet.stream = self._stream
                self._mux(packet)
            for packet, copied in self._copied.heads():
                self._mux(packet, copied)
            self._guard(self._container.close)
        finally:
            self._abort()

    # ---- the encoder alone, for chunks of a video (see `segments`)

    @property
    def container(self) -> str:
        """FFmpeg's name of the output's format."""
        return self._output.format

    @property
    def can_be_joined(self) -> bool:
        """Whether packets of several encoders make this output: not where it is streamed, nor images."""
        return not self._output.piped and self._output.image is None

    @property
    def extradata(self) -> bytes:
        """What the open encoder says about its stream as a whole (parameter sets)."""
        return bytes(self._stream.codec_context.extradata or b"")

    def open_encoder(self) -> None:
        """Open the encoder with the settings that the video's container asks for, and no file."""
        self._container = av.open(io.BytesIO(), "w", format=self._output.format)
        self._stream = self._video_stream()

    def close_encoder(self) -> None:
        """Free it."""
        self._container.close()

    # ---- the file

    def _open(self, instead: Sink | None = None) -> None:
        """Open the output, or the file that is given `instead` of it."""
        options = {}
        if self._output.format in ("mp4", "mov"):
            flags = "" if instead else "+faststart"
            flags = flags if not self._output.piped else "+frag_keyframe+empty_moov+default_base_moof"
            flags += "" if set(self._tags) <= MP4_TAGS else "+use_metadata_tags"
            options = {**({"movflags": flags} if flags else {}), **_track_timescale(self.source)}
        elif self._output.format in ("matroska", "webm"):
            # Sound may begin before zero (AAC priming); by default the muxer would shift everything for its sake.
            # And it would number the file at random, so that no two of the same video were equal.
            options = {"avoid_negative_ts": "disabled", "fflags": "+bitexact"}
        elif self._output.single:
            options = {"update": "1"}
        try:
            if not instead:
                self._output.prepare()
            target = instead or self._output.target
            self._container = av.open(target, "w", format=self._output.format, container_options=options)
        except (av.FFmpegError, OSError) as error:
            raise self._output.failure(error) from error
        except ValueError as error:
            raise UsageError(
                f"there is no container format {self._output.format!r}", "try mp4, mov, mkv or webm"
            ) from error
        self._container.metadata.update(self._tags)
        self._stream = self._video_stream()
        self._copied = SourcePackets(self.source, self._container, self._stack, self.encode, self._output.piped)
        self.notices += self._copied.notices

    def _video_stream(self) -> Any:
        """The output's video stream with its encoder open, so that a bad setting shows before any work is done."""
        encoder, source = self._encoder, self.source
        try:
            stream = self._container.add_stream(encoder.name, rate=source.average_rate)
        except ValueError as error:  # PyAV asks the muxer whether the codec may go in
            raise UsageError(
                f"{self._output.format} cannot hold {encoder.name} video", "use .mkv, or libvpx-vp9 for .webm"
            ) from error
        context = stream.codec_context
        context.width, context.height = self.size
        context.pix_fmt = encoder.pix_fmt
        context.time_base = stream.time_base = source.time_base
        if self.size == (source.width, source.height):
            context.sample_aspect_ratio = source.sample_aspect_ratio
        tags = encoder.tags
        context.colorspace, context.color_range = tags.matrix, tags.range
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        context.thread_count = 0
        context.options = encoder.options
        try:
            context.open()
        except av.FFmpegError as error:
            raise UsageError(
                f"{encoder.name} cannot be opened with {encoder.pix_fmt}, {encoder.options} ({error.strerror})",
                "check --codec, --crf, --preset and --pix-fmt",
            ) from error
        return stream

    def write_packet(self, packet: Any) -> None:
        """Write a packet that this writer's encoder, or another of the same settings, has made."""
        packet.stream, packet.time_base = self._stream, self._stream.codec_context.time_base
        self.count += 1
        self._check_exact(packet)
        self._written.add(packet)
        held, self._held = self._held, packet
        if held is not None:
            self._put(held)

    def _put(self, packet: Any) -> None:
        """Write an image's packet, after what comes beside it until then."""
        self._copy_until(float(packet.dts * packet.time_base))
        self._mux(packet)

    def _put_last(self) -> None:
        """Write the packet that is last in the order of decoding.

        MP4 measures a track in that order: what this packet lasts decides whether all images fit into it.
        """
        if self._held is None:
            return
        if self._output.format in ("mp4", "mov"):
            needed = self._written.length - (self._held.dts - self._written.first_dts)
            self._held.duration = max(self._held.duration, needed)
        self._put(self._held)

    def _copy_until(self, seconds: float | None) -> None:
        """Copy the source's other packets up to this time, None: all the rest."""
        for packet, copied in self._copied.until(seconds):
            self._mux(packet, copied)
            copied.written += bool(packet.size)
            copied.size += packet.size

    def _mux(self, packet: Any, copied: Copied | None = None) -> None:
        """Hand a packet to the muxer; of the image, or of a stream that is `copied`."""
        if not self._started:
            self._start()
        try:
            self._guard(self._container.mux, packet)
        except InputError as error:
            # FFmpeg's "invalid data" and "invalid argument" are about the packet, others about the place.
            if copied is None or not isinstance(error.__cause__, ValueError):
                raise
            raise self._copied.failure(copied, error.__cause__) from error

    def _start(self) -> None:
        """Write the header; without the source's time code where that does not fit the rate."""
        self._started = True
        try:
            self._container.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            kept = ", ".join(["video", *(copied.name for copied in self._copied.streams.values())])
            raise UsageError(
                f"{self._output.format} does not take {kept} together ({why})",
                "try another container, as .mkv or .mov; --audio none leaves the sound out",
            ) from error

    def _check_exact(self, packet: Any) -> None:
        """Matroska counts milliseconds: say so once when that moves a frame."""
        base = packet.time_base
        if self._output.format in ("matroska", "webm") and packet.pts * base.numerator * 1000 % base.denominator:
            self._notice(f"{self._output.format} rounds timestamps to 1 ms; .mp4 and .mov keep them exact")

    def _guard(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Run an action of the muxer or encoder; its failure is one of the output."""
        try:
            return action(*arguments)
        except BrokenPipeError:
            raise  # whoever reads our output has gone: for the caller to end quietly
        except (av.FFmpegError, OSError) as error:
            raise self._output.failure(error) from error

    def _finish(self) -> None:
        for packet in self.encoded(None):
            self.write_packet(packet)
        if not self.count:
            raise InputError(f"not one frame was written to {self._output.name}", "the range or the input is empty")
        self._put_last()
        self._copy_until(None)
        waves = self._copied.wave_headers()
        self._guard(self._container.close)
        self._stack.close()
        if any(waves) and self._output.finished is not None:
            name_wave_headers(self._output.finished, waves)
        for notice in self._copied.closing_notices():
            self._notice(notice)
        if self._output.finished is not None:
            if self.sign is not None:
                self._guard(self._output.rewrite, self.sign)
            self._read_back(self._output.finished)
        if self.before_publish is not None and self._output.finished is not None:
            self.before_publish(self._output.finished)
        self._guard(self._output.commit)

    def _read_back(self, finished: Path) -> None:
        if self._output.image is None:
            check(finished, self._written, self._copied.streams.values(), self._output.name)
        else:
            check_images(finished, self._written, self._output.name)

    def _abort(self) -> None:
        """Leave nothing behind; the muxer must not finish a file that is not whole."""
        self._output.discard()
        self._stack.close()
        if self._container is not None:
            with suppress(av.FFmpegError, OSError, ValueError):
                self._container.close()
        self._output.discard()  # closing may have made the file again

    def _notice(self, text: str) -> None:
        if text not in self.notices:
            self.notices.append(text)


def _changes(source: VideoInfo) -> list[str]:
    """What the output shows otherwise than the source, whatever the settings."""
    changes = []
    if source.lead:
        begin = float(source.start_pts * source.time_base)
        changes.append(
            f"the times of the source begin at {begin:.2f} s; the output begins at {begin - float(source.lead):.2f} s"
        )
    if source.orientation != (False, False, False):
        changes.append(f"the source is stored rotated by {source.rotation} degrees; the output is stored upright")
    return changes


def _container_tags(source: VideoInfo, metadata: dict[str, str] | None) -> dict[str, str]:
    kept = {key.lower(): value for key, value in source.metadata.items() if key.lower() not in CONTAINER_TAGS}
    return kept | {key.lower(): str(value) for key, value in (metadata or {}).items()}


def _track_timescale(source: VideoInfo) -> dict[str, str]:
    """Makes the MP4 muxer count in the source's units, so that even the integers stay equal.

    Its headers say in milliseconds when a track starts, unless that is not exact.
    """
    units, base = str(source.time_base.denominator), source.time_base
    if base.numerator != 1:
        return {}
    whole = ((source.start_pts * base - source.lead) * 1000).denominator == 1
    return {"video_track_timescale": units} | ({} if whole else {"movie_timescale": units})
