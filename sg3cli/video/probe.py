"""What a media file holds: opening it with errors a user can act on, and the exact list of its frames' timestamps."""

from __future__ import annotations

import hashlib
import os
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from sg3cli.errors import InputError
from sg3cli.video.color import BT709_LIMITED
from sg3cli.video.container import DRAWN, MAX_MISSING, decoded, decoder_of, is_cover, main_video, open_media, packets
from sg3cli.video.image_sequence import is_image_sequence
from sg3cli.video.info import AudioInfo, SubtitleInfo, Timeline, VideoInfo, describe_image, orientation_of

# Codecs of which every packet is one frame in these containers, so that counting packets counts frames. VP8 has
# packets that show nothing, AVI hides the display order: those are counted by decoding.
ONE_FRAME_CODECS = {"h264", "hevc", "av1", "vp9", "mjpeg", "prores", "ffv1", "dnxhd", "png", "rawvideo", "mpeg4"}
ONE_FRAME_CONTAINERS = {"mov", "matroska", "nut", "mpegts"}


def probe(path: str | Path, rate: str | None = None) -> VideoInfo:
    """Read the facts of the video at `path`; errors (`InputError`) name what is wrong with the file.

    `rate` is that of images that have files of their own (see `sequence`), in frames a second.
    """
    if is_image_sequence(Path(path)):
        from sg3cli.video.image_reader import examine_stills  # which needs this module

        return examine_stills(Path(path), rate)[0]
    return examine(path)[0]


def drawn(width: int, height: int, rate: Fraction, frames: int) -> VideoInfo:
    """Facts of a video that is drawn, not read: frame k has pts `k * rate.denominator` of `1 / rate.numerator` s."""
    return VideoInfo(
        path=Path(os.devnull),
        format="",
        codec="",
        pix_fmt="",
        bit_depth=8,
        width=width,
        height=height,
        time_base=Fraction(1, rate.numerator),
        average_rate=rate,
        start_pts=0,
        duration=float(frames / rate),
        frames=frames,
        variable_rate=False,
        rotation=0,
        orientation=(False, False, False),
        color=BT709_LIMITED,
        sample_aspect_ratio=Fraction(1),
        interlaced=False,
        stream=DRAWN,
    )


def examine(path: str | Path) -> tuple[VideoInfo, Timeline]:
    """Facts and timeline of the first video stream. Reads every packet once, decodes one frame."""
    path = Path(path)
    with open_media(path) as container:
        stream = main_video(container, path)
        first = _first_frame(container, stream, path)
    with open_media(path) as container:
        stream = main_video(container, path)
        timeline = _timeline(container, stream, path)
        return _describe(container, stream, first, timeline, path), timeline


def _first_frame(container: Any, stream: Any, path: Path) -> Any:
    for frame in decoded(packets(container, stream, path), decoder_of(stream)):
        return frame
    raise InputError(f"{path}: not one frame could be decoded", "the file is damaged or cut off; copy it again")


def _timeline(container: Any, stream: Any, path: Path) -> Timeline:
    """Timestamps of all frames, from the packets where one packet is one frame, else by decoding."""
    rows = [
        (packet.pts, packet.duration or 0, packet.is_keyframe, packet.is_discard)
        for packet in packets(container, stream, path)
        if packet.size
    ]
    _check_complete(container, stream, rows, path)
    by_packets = container.format.name.split(",")[0] in ONE_FRAME_CONTAINERS and stream.codec.name in ONE_FRAME_CODECS
    if not by_packets or any(pts is None for pts, *_ in rows):
        return _decoded_timeline(path)
    shown = {pts: duration for pts, duration, _, discard in rows if not discard}
    first_key = next((pts for pts, _, key, _ in rows if key), rows[0][0])
    dropped = sum(pts < first_key for pts in shown)
    if dropped > MAX_MISSING:
        shown = {pts: duration for pts, duration in shown.items() if pts >= first_key}
    else:
        dropped = 0  # few enough to show the first image in their place
    if not shown:
        return _decoded_timeline(path)
    pts = np.array(sorted(shown), np.int64)
    return Timeline(pts, _display_durations(pts, shown[int(pts[-1])], stream), dropped=dropped)


def _decoded_timeline(path: Path) -> Timeline:
    with open_media(path) as container:
        stream = main_video(container, path)
        last, pts = None, []
        for frame in decoded(packets(container, stream, path), decoder_of(stream)):
            last = frame_timestamp(frame, last, stream)
            pts.append(last)
        unique = np.unique(np.array(pts, np.int64))
        return Timeline(unique, _display_durations(unique, int(frame.duration or 0), stream), seekable=False)


def frame_timestamp(frame: Any, previous: int | None, stream: Any) -> int:
    """The frame's pts; where the file gives none (raw streams), one frame after `previous`."""
    if frame.pts is not None:
        return int(frame.pts)
    return 0 if previous is None else previous + _nominal_duration(stream)


def _nominal_duration(stream: Any) -> int:
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return max(1, round(1 / (rate * stream.time_base)))


def _display_durations(pts: np.ndarray, last: int, stream: Any) -> np.ndarray:
    """Time to the next frame. For the last one what the file says, else the median, else the nominal duration.

    The track's stated end comes before the packet's `last`, which FFmpeg takes from the order of decoding.
    """
    steps = np.diff(pts)
    stated = (stream.start_time or 0) + (stream.duration or 0) - int(pts[-1])
    if len(steps) and 0 < stated <= 4 * int(steps.max()):
        last = stated
    if last <= 0:
        last = int(np.median(steps)) if len(steps) else _nominal_duration(stream)
    return np.append(steps, last).astype(np.int64)


def _check_complete(container: Any, stream: Any, rows: list[Any], path: Path) -> None:
    """A file whose index or header promises more than is there was cut off: say so instead of editing a part."""
    if not rows:
        raise InputError(f"{path} holds no frames", "the file is damaged or cut off; copy it again")
    name = container.format.name.split(",")[0]
    if name == "mov" and len(stream.index_entries):
        ends = [entry.pos + entry.size for entry in stream.index_entries]
        size = path.stat().st_size
        if _index_end(path) > size:
            raise _cut_off(path, "its index ends before it should")
        missing = sum(end > size for end in ends)
        if missing:
            raise _cut_off(path, f"{missing} of {len(ends)} frames are missing")
    if name == "matroska" and container.duration and rows[-1][0] is not None:
        end = float((rows[-1][0] + rows[-1][1]) * stream.time_base)
        declared = container.duration / av.time_base
        if declared - end > _slack(declared) and not _others_reach(container, path, declared):
            raise _cut_off(path, f"it ends at {end:.1f} s of {declared:.1f} s")


def _index_end(path: Path) -> int:
    """Where an MP4's own headers say that its index (moov) ends, 0 if there is none."""
    at, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while at < size:
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
            if length == 1:
                length = int.from_bytes(file.read(8), "big")
            if kind == b"moov":
                return at + length
            if length < 8:
                break
            at += length
    return 0


def _others_reach(container: Any, path: Path, seconds: float) -> bool:
    """Whether another stream (sound that outlasts the image) fills the declared duration."""
    with open_media(path) as again:
        others = [s for s in again.streams if s.type in ("audio", "subtitle")]
        ends = [
            float((p.pts + (p.duration or 0)) * p.time_base)
            for p in (packets(again, others, path) if others else ())
            if p.pts is not None
        ]
    return bool(ends) and seconds - max(ends) <= _slack(seconds)


def _slack(seconds: float) -> float:
    """By how much a header may overstate the duration without the file being cut off."""
    return max(0.25, 0.02 * seconds)


def _cut_off(path: Path, detail: str) -> InputError:
    return InputError(f"{path} is cut off: {detail}", "copy it again, or cut it cleanly with `ffmpeg -c copy` first")


def _describe(container: Any, stream: Any, first: Any, timeline: Timeline, path: Path) -> VideoInfo:
    pts, durations = timeline.pts, timeline.durations
    span = int(pts[-1] - pts[0] + durations[-1])
    return VideoInfo(
        path=path,
        format=container.format.name,
        codec=stream.codec.name,
        time_base=Fraction(stream.time_base),
        average_rate=_average_rate(stream, len(pts), span * Fraction(stream.time_base)),
        start_pts=int(pts[0]),
        duration=float(span * stream.time_base),
        frames=len(pts),
        # A coarse time base (1/1000 in Matroska) makes the steps of a constant rate differ by one unit.
        variable_rate=len(pts) > 2 and int(np.ptp(durations[:-1])) > 1,
        sample_aspect_ratio=_aspect(stream, swap=orientation_of(first)[0]),
        stream=stream.index,
        metadata=dict(container.metadata),
        **describe_image(first),
        **_other_streams(container, stream),
    )


def _average_rate(stream: Any, frames: int, seconds: Fraction) -> Fraction:
    """Frames a second: as stated, else counted; in numbers that fit the libraries, however odd the times are."""
    rate = Fraction(stream.average_rate or (frames / seconds).limit_denominator(1_000_000))
    return rate if 0 < rate < 1 << 31 else Fraction(25)


def _aspect(stream: Any, swap: bool) -> Fraction:
    ratio = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    return 1 / ratio if swap else ratio


def _other_streams(container: Any, video: Any) -> dict[str, Any]:
    audio, subtitles, others = [], [], []
    for stream in container.streams:
        name = stream.codec_context.name if stream.codec_context else "unknown"
        language = stream.metadata.get("language", "und")
        if stream.type == "audio" and stream.codec_context:
            audio.append(AudioInfo(stream.index, name, stream.rate, stream.channels, language))
        elif stream.type == "subtitle":
            subtitles.append(SubtitleInfo(stream.index, name, language))
        elif stream.index != video.index:
            others.append(f"{'cover' if is_cover(stream) else stream.type} {name}")
    return {"audio": tuple(audio), "subtitles": tuple(subtitles), "others": tuple(others)}


def frame_pts(path: str | Path) -> list[int]:
    """The pts of every frame of the first video stream in display order, by decoding all of them."""
    path = Path(path)
    with open_media(path) as container:
        stream = main_video(container, path)
        stamps: list[int] = []
        for frame in decoded(packets(container, stream, path), decoder_of(stream)):
            stamps.append(frame_timestamp(frame, stamps[-1] if stamps else None, stream))
        return stamps


def packet_digest(path: str | Path, kind: str = "audio") -> list[str]:
    """SHA-256 of every packet of the streams of `kind` (audio, subtitle, video), one stream after the other."""
    path = Path(path)
    with open_media(path) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        digests: dict[int, list[str]] = {stream.index: [] for stream in streams}
        for packet in packets(container, streams, path) if streams else ():
            if packet.size:
                digests[packet.stream.index].append(hashlib.sha256(bytes(packet)).hexdigest())
    return [digest for per_stream in digests.values() for digest in per_stream]
