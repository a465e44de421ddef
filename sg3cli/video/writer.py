"""Frames out: encoded with the timestamps they came with, beside the untouched packets of sound and subtitles."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.codec.context import OptionType
from av.video.reformatter import VideoReformatter

from sg3cli.color import BT709, BT709_LIMITED, FULL, LIMITED, RGB_FULL, UNSPECIFIED, ColorTags, resolve
from sg3cli.config import EncodeConfig
from sg3cli.errors import InputError, UsageError
from sg3cli.video.output import Output
from sg3cli.video.probe import DRAWN, VideoInfo, open_media, packets
from sg3cli.video.reader import EXACT, Frame

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
ANY_SIZE = {"ffv1", "libvpx-vp9"}  # encoders that take odd sizes with subsampled chroma
CONTAINER_TAGS = {
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "duration",
}  # of the file, not the film


class VideoWriter:
    """Writes frames to `out` (a path, or `-` for Matroska on standard output).

    Pixels become BT.709, limited range, converted and tagged; timestamps, the last frame's duration, sound, subtitles,
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
        self._container: Any = None
        self._tags = _container_tags(source, metadata)
        self._pix_fmt = self._choose_pix_fmt()
        self._output = Output(out, source.path, self.encode.format)
        self._durations: dict[int, int] = {}  # of frames inside the encoder
        self._reformatter = VideoReformatter()
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
        packets = self._guard(self._stream.encode, None if frame is None else self._timed_picture(frame))
        for packet in packets:
            # Not every encoder hands the duration on, and the last frame's is all that says when it ends.
            packet.duration = self._durations.pop(packet.pts, packet.duration)
        return list(packets)

    def _timed_picture(self, frame: Frame) -> Any:
        width, height = self.size
        if frame.rgb.shape != (height, width, 3):
            raise ValueError(f"frame of shape {frame.rgb.shape}, expected {(height, width, 3)}")
        picture = self._picture(frame.rgb)
        picture.pts, picture.time_base, picture.duration = frame.pts, frame.time_base, frame.duration
        self._durations[frame.pts] = frame.duration
        return picture

    # ---- the encoder alone, for pieces of a film (see `segments`)

    @property
    def container(self) -> str:
        """FFmpeg's name of the output's format."""
        return self._output.format

    @property
    def extradata(self) -> bytes:
        """What the open encoder says about its stream as a whole (parameter sets)."""
        return bytes(self._stream.codec_context.extradata or b"")

    def open_encoder(self) -> None:
        """Open the encoder with the settings that the film's container asks for, and no file."""
        self._container = av.open(io.BytesIO(), "w", format=self._output.format)
        self._stream = self._video_stream()

    def close_encoder(self) -> None:
        """Free it."""
        self._container.close()

    # ---- the file

    def _open(self) -> None:
        options = {}
        if self._output.format in ("mp4", "mov"):
            flags = "+faststart" if not self._output.piped else "+frag_keyframe+empty_moov+default_base_moof"
            flags += "" if set(self._tags) <= MP4_TAGS else "+use_metadata_tags"
            options = {"movflags": flags, **_track_timescale(self.source.time_base)}
        elif self._output.format in ("matroska", "webm"):
            # Sound may begin before zero (AAC priming); by default the muxer would shift everything for its sake.
            # And it would number the file at random, so that no two of the same film were equal.
            options = {"avoid_negative_ts": "disabled", "fflags": "+bitexact"}
        try:
            self._container = av.open(self._output.target, "w", format=self._output.format, container_options=options)
        except av.FFmpegError as error:
            raise self._output.failure(error) from error
        except ValueError as error:
            raise UsageError(
                f"there is no container format {self._output.format!r}", "try mp4, mov, mkv or webm"
            ) from error
        self._container.metadata.update(self._tags)
        self._stream = self._video_stream()
        self._copied = SourcePackets(self.source, self._container, self._stack)
        self.notices += self._copied.notices

    def _video_stream(self) -> Any:
        """The output's video stream with its encoder open, so that a bad setting shows before any work is done."""
        encode, source = self.encode, self.source
        try:
            stream = self._container.add_stream(encode.codec, rate=source.average_rate)
        except av.codec.codec.UnknownCodecError as error:
            raise UsageError(f"there is no encoder {encode.codec!r}", "try libx264, libx265 or libvpx-vp9") from error
        except ValueError as error:  # PyAV asks the muxer whether the codec may go in
            raise UsageError(
                f"{self._output.format} cannot hold {encode.codec} video", "use .mkv, or libvpx-vp9 for .webm"
            ) from error
        context = stream.codec_context
        context.width, context.height = self.size
        context.pix_fmt = self._pix_fmt
        context.time_base = stream.time_base = source.time_base
        if self.size == (source.width, source.height):
            context.sample_aspect_ratio = source.sample_aspect_ratio
        tags = self._color_tags()
        context.colorspace, context.color_range = tags.matrix, tags.range
        context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        context.thread_count = 0
        context.options = self._codec_options(context)
        try:
            context.open()
        except av.FFmpegError as error:
            raise UsageError(
                f"{encode.codec} cannot be opened with {self._pix_fmt}, {context.options} ({error.strerror})",
                "check --codec, --crf, --preset and --pix-fmt",
            ) from error
        return stream

    def _codec_options(self, context: Any) -> dict[str, str]:
        """crf and preset under the names and in the form that this encoder knows."""
        encode, known = self.encode, {option.name: option for option in context.supported_options.private}
        options = {}
        for name in ("crf", "cq"):
            if name in known:
                options[name] = (
                    f"{encode.crf:g}" if known[name].type == av.codec.context.OptionType.FLOAT else f"{encode.crf:.0f}"
                )
                break
        else:
            if encode.crf != EncodeConfig.crf:
                self._notice(f"{encode.codec} has no quality by crf; its default is used")
        words = "preset" in known and known["preset"].type == OptionType.STRING
        choices = [choice.name for choice in known["preset"].choices] if "preset" in known else []
        if words or encode.preset in choices or ("preset" in known and encode.preset.isdigit()):
            options["preset"] = encode.preset
        elif encode.preset != EncodeConfig.preset:
            self._notice(f"{encode.codec} has no preset {encode.preset!r}; its default is used")
        if encode.codec.startswith("libvpx"):
            options |= {"b": "0", "row-mt": "1"}  # constant quality, as --crf means elsewhere
        return options

    def _choose_pix_fmt(self) -> str:
        """The wanted pixel format, or its 4:4:4 relative where a size that is not even could not be kept."""
        wanted, codec = self.encode.pix_fmt, self.encode.codec
        try:
            shape = av.VideoFormat(wanted)
            formats = [f.name for f in av.codec.Codec(codec, "w").video_formats or ()]
        except av.codec.codec.UnknownCodecError as error:
            raise UsageError(f"there is no encoder {codec!r}", "try libx264, libx265 or libvpx-vp9") from error
        except ValueError as error:
            raise UsageError(f"there is no pixel format {wanted!r}", "yuv420p plays everywhere") from error
        if formats and wanted not in formats:
            raise UsageError(f"{codec} cannot write {wanted}", f"it writes {', '.join(formats[:8])}")
        width, height = self.size
        fits = shape.chroma_width(width) * 2 != width + 1 and shape.chroma_height(height) * 2 != height + 1
        if fits or codec in ANY_SIZE:
            return wanted
        full = wanted.replace("420", "444").replace("422", "444")
        if full == wanted or full not in formats:
            raise UsageError(f"{codec} cannot write the odd size {width}x{height}", "use libx264 or ffv1")
        self._notice(f"the size {width}x{height} is odd: written as {full} instead of {wanted}, to keep it")
        return full

    def _picture(self, rgb: np.ndarray) -> Any:
        """RGB `[H, W, 3]` -> a frame for the encoder, converted and tagged by the same four numbers."""
        tags = self._color_tags()
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24"),
            format=self._pix_fmt,
            src_color_range=FULL,
            dst_colorspace=BT709 if tags.matrix == BT709 else None,
            dst_color_range=tags.range,
            dst_color_trc=tags.transfer,
            dst_color_primaries=tags.primaries,
            interpolation=EXACT,
            threads=1,
        )

    def _color_tags(self) -> ColorTags:
        if av.VideoFormat(self._pix_fmt).is_rgb:
            return RGB_FULL
        return replace(BT709_LIMITED, range=FULL) if self._pix_fmt.startswith("yuvj") else BT709_LIMITED

    def write_packet(self, packet: Any) -> None:
        """Write a packet that this writer's encoder, or another of the same settings, has made."""
        packet.stream, packet.time_base = self._stream, self._stream.codec_context.time_base
        self.count += 1
        self._check_exact(packet)
        self._copy_until(float(packet.dts * packet.time_base))
        self._guard(self._container.mux, packet)

    def _copy_until(self, seconds: float | None) -> None:
        """Copy the source's other packets up to this time, None: all the rest."""
        for packet in self._copied.until(seconds):
            try:
                self._guard(self._container.mux, packet)
            except InputError as error:
                if not isinstance(error.__cause__, ValueError):  # FFmpeg's "invalid data" and "invalid argument"
                    raise
                raise InputError(
                    f"the sound or subtitles of {self.source.path} are damaged and cannot be copied",
                    "remux the source first, or try .mkv as the output",
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
        self._copy_until(None)
        self._guard(self._container.close)
        self._stack.close()
        self._guard(self._output.commit)

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


class SourcePackets:
    """The packets of the source's sound and subtitles, each handed out when the video has come to its time.

    They are copied as they are. Only MP4's timed text becomes plain text (SubRip) in Matroska, which has no MP4 form.
    A film without a source (`drawn`) has none.
    """

    def __init__(self, source: VideoInfo, container: Any, stack: ExitStack) -> None:
        self.notices: list[str] = []
        self._streams: dict[int, Any] = {}
        self._plain: set[int] = set()  # streams whose packets lose MP4's length prefix and styles
        self._next: Any = None
        if source.stream == DRAWN:
            return
        origin = stack.enter_context(open_media(source.path))
        for stream in origin.streams:
            if stream.type in ("audio", "subtitle"):
                self._add(stream, container)
            elif stream.type == "attachment" and container.format.name == "matroska":
                container.add_attachment(stream.name or "attachment", stream.mimetype or "", stream.data)
            elif stream.index != source.stream:
                self._leave_out(stream, bool(origin.chapters()))
        container.set_chapters(origin.chapters())
        kept = [origin.streams[index] for index in self._streams]
        self._packets = (p for p in (packets(origin, kept, source.path) if kept else ()) if p.size)
        self._next = next(self._packets, None)

    def _add(self, stream: Any, container: Any) -> None:
        name = stream.codec_context.name if stream.codec_context else "unknown"
        try:
            if name == "mov_text" and container.format.name == "matroska":
                copy = container.add_mux_stream("subrip")
                self._plain.add(stream.index)
            else:
                copy = container.add_stream_from_template(stream)
        except (ValueError, av.FFmpegError) as error:
            what = f"{container.format.name} cannot hold the source's {name} {stream.type} (stream {stream.index})"
            if stream.type == "audio":
                raise UsageError(what, "write to .mkv, which holds it unchanged") from error
            self.notices.append(f"{what}: it is left out; .mkv keeps it")
            return
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition
        self._streams[stream.index] = copy

    def _leave_out(self, stream: Any, chapters: bool) -> None:
        if stream.type == "data" and chapters and stream.codec_context is None:
            return  # how an MP4 stores its chapters, which are copied as such
        name = stream.codec_context.name if stream.codec_context else "unknown"
        self.notices.append(f"stream {stream.index} ({stream.type}, {name}) of the source is left out")

    def until(self, seconds: float | None) -> Iterator[Any]:
        """The packets up to this time of decoding, or (None) all that are left."""
        while self._next is not None:
            packet = self._next
            stamp = packet.dts if packet.dts is not None else packet.pts
            if seconds is not None and stamp is not None and float(stamp * packet.time_base) > seconds:
                return
            if packet.stream.index in self._plain:
                packet = _plain_text(packet)
            packet.stream = self._streams[self._next.stream.index]
            if packet.size:
                yield packet
            self._next = next(self._packets, None)


def _plain_text(packet: Any) -> Any:
    """A packet of MP4 timed text (3GPP TS 26.245: length, text, styles) -> the text alone."""
    data = bytes(packet)
    text = av.Packet(data[2 : 2 + int.from_bytes(data[:2], "big")])
    text.pts, text.dts, text.duration, text.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    return text


def _changes(source: VideoInfo) -> list[str]:
    """What the output shows otherwise than the source, whatever the settings."""
    notices = []
    if source.orientation != (False, False, False):
        notices.append(f"the source is stored rotated by {source.rotation} degrees; the output is stored upright")
    height_width = (source.height, source.width)
    colors = resolve(source.color, *(height_width if source.orientation[0] else height_width[::-1]), source.pix_fmt)
    if (colors.matrix, colors.range) != (BT709, LIMITED):
        tags = colors.to_dict()
        guess = " (a guess: it has no tag)" if source.color.matrix == UNSPECIFIED and colors.matrix else ""
        notices.append(
            f"colours are converted from {tags['matrix_name']} {tags['range_name']}{guess} to BT.709 limited"
        )
    return notices


def _container_tags(source: VideoInfo, metadata: dict[str, str] | None) -> dict[str, str]:
    kept = {key.lower(): value for key, value in source.metadata.items() if key.lower() not in CONTAINER_TAGS}
    return kept | {key.lower(): str(value) for key, value in (metadata or {}).items()}


def _track_timescale(time_base: Fraction) -> dict[str, str]:
    """Makes the MP4 muxer count in the source's units, so that even the integers stay equal."""
    return {"video_track_timescale": str(time_base.denominator)} if time_base.numerator == 1 else {}
