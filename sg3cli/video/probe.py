"""What a media file holds: opening it with errors a user can act on, and the exact list of its frames' timestamps."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from sg3cli.errors import InputError
from sg3cli.video.color import BT709_LIMITED
from sg3cli.video.container import (
    DRAWN,
    begins_late,
    decoded,
    decoder_of,
    is_cover,
    main_video,
    open_media,
    packets,
)
from sg3cli.video.heif import transparency_notes
from sg3cli.video.image_sequence import is_image_sequence
from sg3cli.video.info import (
    AudioInfo,
    Shift,
    SubtitleInfo,
    Timeline,
    VideoInfo,
    describe_image,
    orientation_of,
    tags_of,
)
from sg3cli.video.pixel_conversion import refuse_matrix
from sg3cli.video.timeline import Row, Track, shifts_of, timeline_of, tracks_of

LATEST = 10  # seconds at which an output may begin; a broadcaster's clock can say 26 hours


def probe(path: str | Path, rate: str | None = None, track: int | None = None) -> VideoInfo:
    """Read the facts of the video at `path`; errors (`InputError`) name what is wrong with the file.

    `rate` is that of images that have files of their own (see `sequence`), in frames a second; `track` the number of
    the video in a file of several, None: the one that players show.
    """
    if is_image_sequence(Path(path)):
        from sg3cli.video.image_reader import examine_stills  # which needs this module

        return examine_stills(Path(path), rate)[0]
    return examine(path, track)[0]


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


def examine(path: str | Path, track: int | None = None) -> tuple[VideoInfo, Timeline]:
    """Facts and timeline of a video stream (see `main_video`). Reads every packet once, decodes one frame."""
    path = Path(path)
    with open_media(path) as container:
        stream, patient = main_video(container, path, track), begins_late(container)
        first = _first_frame(container, stream, path)
    with open_media(path, patient) as container:
        stream = main_video(container, path, track)
        tracks = tracks_of(container, path)
        _check_complete(container, stream, tracks[stream.index].rows, path)
        # Pieces of an MP4's edit list are each track's own; in files that were joined all streams start again.
        alone = container.format.name.startswith("mov")
        joined = {stream.index: tracks[stream.index]} if alone else tracks
        shifts = shifts_of(joined, stream.index, path)
        timeline = timeline_of(container, stream, tracks[stream.index], shifts, path)
        refuse_matrix(tags_of(first), first.format.name, path)
        info = replace(_describe(container, stream, first, timeline, path), shifts=shifts, patient=patient)
        info = replace(info, **_other_streams(container, stream, tracks), notes=_time_notes(info, timeline, shifts))
        return replace(info, lead=_lead(info, tracks)), timeline


def _lead(info: VideoInfo, tracks: dict[int, Track]) -> Fraction:
    """Seconds before which an output has nothing to show: it cannot begin below zero and should not begin in hours.

    In whole units of the video's time.
    """
    begins = info.start_pts * info.time_base
    if begins < 0:
        return begins
    spans = [track.span(0, len(track.rows)) for track in tracks.values() if track.kind == "audio"]
    first = min([begins, *(span[0] for span in spans if span)])
    return first // info.time_base * info.time_base if first > LATEST else Fraction(0)


def _time_notes(info: VideoInfo, timeline: Timeline, shifts: tuple[Shift, ...]) -> tuple[str, ...]:
    """What of the file's own times is not taken as it is, in sentences."""
    notes = [*info.notes, *(transparency_notes([info.path]) if info.format.startswith("mov") else ())]
    if shifts and not info.format.startswith("mov"):  # where it is FFmpeg's fault with pieces of an edit list
        parts = len(timeline.breaks) + 1
        notes.append(f"the source's times start again ({parts} parts): each part goes on where the one before ends")
    if timeline.scale > 1:
        notes.append(
            f"frames of the source share their times, which count {1 / (info.time_base * timeline.scale)} a second; "
            "they are told apart and shown one after the other"
        )
    return tuple(notes)


def _first_frame(container: Any, stream: Any, path: Path) -> Any:
    for frame in decoded(packets(container, stream, path), decoder_of(stream)):
        return frame
    raise InputError(f"{path}: not one frame could be decoded", "the file is damaged or cut off; copy it again")


def _check_complete(container: Any, stream: Any, rows: Sequence[Row], path: Path) -> None:
    """A file whose index or header promises more than is there was cut off: say so instead of editing a part."""
    if not rows:
        raise InputError(f"{path} holds no frames", "the file is damaged or cut off; copy it again")
    name = container.format.name.split(",")[0]
    if name == "mov" and len(stream.index_entries):
        places = [entry.pos + entry.size for entry in stream.index_entries]
        size = path.stat().st_size
        if _index_end(path) > size:
            raise _cut_off(path, "its index ends before it should")
        missing = sum(end > size for end in places)
        if missing:
            raise _cut_off(path, f"{missing} of {len(places)} frames are missing")
    ends = [row.pts + row.duration for row in rows if row.pts is not None]  # the last one to be shown may come earlier
    if name == "matroska" and container.duration and ends:
        end = float(max(ends) * stream.time_base)
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
    span, base = int(pts[-1] - pts[0] + durations[-1]), Fraction(stream.time_base) / timeline.scale
    return VideoInfo(
        path=path,
        format=container.format.name,
        codec=stream.codec.name,
        time_base=base,
        average_rate=_average_rate(stream, len(pts), span * base),
        start_pts=int(pts[0]),
        duration=float(span * base),
        frames=len(pts),
        # A coarse time base (1/1000 in Matroska) makes the steps of a constant rate differ by one unit.
        variable_rate=len(pts) > 2 and int(np.ptp(durations[:-1])) > 1,
        sample_aspect_ratio=_aspect(stream, swap=orientation_of(first)[0]),
        stream=stream.index,
        metadata=dict(container.metadata),
        **describe_image(first),
    )


def _average_rate(stream: Any, frames: int, seconds: Fraction) -> Fraction:
    """Frames a second: as stated in one way or another if that is about what is counted, else as counted.

    In numbers that fit the libraries, however odd the times are.
    """
    counted = frames / seconds
    stated = [Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
    near = [rate for rate in stated if counted / 2 < rate < counted * 2]
    rate = near[0] if near else counted.limit_denominator(1_000_000)
    return rate if 0 < rate < 1 << 31 else Fraction(25)


def _aspect(stream: Any, swap: bool) -> Fraction:
    ratio = Fraction(stream.sample_aspect_ratio or 1) or Fraction(1)
    return 1 / ratio if swap else ratio


def _other_streams(container: Any, video: Any, tracks: dict[int, Track]) -> dict[str, Any]:
    audio, subtitles, others = [], [], []
    for stream in container.streams:
        name = stream.codec_context.name if stream.codec_context else "unknown"
        language = stream.metadata.get("language", "und")
        if stream.type == "audio" and stream.codec_context:
            track = tracks[stream.index]
            back = 0.0 if tracks[video.index].breaks else max(0.0, float(track.goes_back()))
            facts = (stream.rate, stream.channels, language, len(track.rows), back)
            audio.append(AudioInfo(stream.index, name, *facts))
        elif stream.type == "subtitle":
            count = len(tracks[stream.index].rows) if stream.index in tracks else 0
            subtitles.append(SubtitleInfo(stream.index, name, language, count))
        elif stream.index != video.index:
            others.append(f"{'cover' if is_cover(stream) else stream.type} {name}")
    return {"audio": tuple(audio), "subtitles": tuple(subtitles), "others": tuple(others)}


def frame_pts(path: str | Path, track: int | None = None) -> list[int]:
    """The pts of every frame of the video in display order, by decoding all of them."""
    path = Path(path)
    _, timeline = examine(path, track)
    if not timeline.seekable:  # made by decoding
        return [int(pts) for pts in timeline.pts]
    with open_media(path) as container:
        stream = main_video(container, path, track)
        return [int(frame.pts) for frame in decoded(packets(container, stream, path), decoder_of(stream))]


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
