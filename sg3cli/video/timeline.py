"""The exact list of a video's frames and when each is shown, also where the file's own times say it badly.

Usually a packet's time tells its frame. Where times repeat, start again (files that were joined), are not there, or
are made up from the order of decoding (AVI), every packet is decoded once: the decoder's order is the order of
display, and a frame is known by its place in it.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, overload

import av
import numpy as np

from sg3cli.errors import InputError
from sg3cli.video.container import MAX_MISSING, decoded, decoder_of, main_video, open_media, packets
from sg3cli.video.info import Shift, Timeline

# Codecs of which every packet is one frame in these containers, so that counting packets counts frames. VP8 has
# packets that show nothing, AVI hides the display order: those are counted by decoding.
ONE_FRAME_CODECS = {
    "h264",
    "hevc",
    "av1",
    "libdav1d",
    "vp9",
    "mjpeg",
    "prores",
    "ffv1",
    "dnxhd",
    "png",
    "rawvideo",
    "mpeg4",
}
ONE_FRAME_CONTAINERS = {"mov", "matroska", "nut", "mpegts"}
CLOCKS = {"mpegts", "mpeg"}  # whose times are those of a broadcaster's clock: a leap of it is no pause
LEAP = 10  # seconds between two packets that such a clock leaps
UNKNOWN, WIDTH = -(1 << 63), 6  # a time that is not there, and the numbers in a row
FINEST = 1000  # parts of a unit of time into which equal times are spread


MOST_HOLD = 4  # of the longest step between frames: what the last frame may last by a track's stated end alone
LONGEST_HOLD = 1 << 31  # and by one that, but for the milliseconds of an MP4's header, is the sum of its packets


class Row(NamedTuple):
    """A packet: its times in units of its stream, and where it lies in the file (-1: not known)."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    discard: bool
    place: int


class Rows(Sequence[Row]):
    """Rows in 8 bytes a number: a film has half a million packets."""

    def __init__(self) -> None:
        self._numbers = array("q")

    def append(self, row: Row) -> None:
        """Add a packet."""
        self._numbers.extend(UNKNOWN if number is None else int(number) for number in row)

    def __len__(self) -> int:
        return len(self._numbers) // WIDTH

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """One row, or several."""
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = index % len(self) * WIDTH
        return _row(*self._numbers[at : at + WIDTH])

    def __iter__(self) -> Iterator[Row]:
        numbers = iter(self._numbers)
        return itertools.starmap(_row, zip(*[numbers] * WIDTH, strict=True))


def _row(pts: int, dts: int, duration: int, key: int, discard: int, place: int) -> Row:
    return Row(
        None if pts == UNKNOWN else pts, None if dts == UNKNOWN else dts, duration, bool(key), bool(discard), place
    )  # fmt: skip


@dataclass(frozen=True)
class Track:
    """The packets of a stream in their order, and the numbers of those with which its times start again."""

    index: int
    kind: str
    time_base: Fraction
    rows: Sequence[Row]
    breaks: list[int]

    def goes_back(self) -> Fraction:
        """Seconds of the longest step back in its times of decoding."""
        times = [row.dts if row.dts is not None else row.pts for row in self.rows]
        known = [time for time in times if time is not None]
        return max((a - b for a, b in pairwise(known)), default=0) * self.time_base

    def span(self, first: int, last: int) -> tuple[Fraction, Fraction] | None:
        """Seconds at which what the packets `first` to `last` show begins and ends; None when they do not say."""
        rows = [row for row in self.rows[first:last] if not row.discard] or self.rows[first:last]
        times = [(row.pts if row.pts is not None else row.dts, row.duration) for row in rows]
        known = [(time, duration) for time, duration in times if time is not None]
        if not known:
            return None
        step = int(np.median(np.diff(sorted(time for time, _ in known)))) if len(known) > 1 else 0
        ends = [time + (duration or step) for time, duration in known]
        return min(time for time, _ in known) * self.time_base, max(ends) * self.time_base


def tracks_of(container: Any, path: Path) -> dict[int, Track]:
    """Every packet of picture, sound and subtitles, read once."""
    streams = [s for s in container.streams if s.type in ("video", "audio", "subtitle") and s.codec_context is not None]
    rows: dict[int, Rows] = {stream.index: Rows() for stream in streams}
    place = -1
    for packet in packets(container, streams, path) if streams else ():
        if packet.size:
            place = packet.pos if packet.pos is not None else place
            rows[packet.stream.index].append(
                Row(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, packet.is_discard, place)
            )
    leaps = container.format.name.split(",")[0] in CLOCKS
    return {
        s.index: Track(s.index, s.type, Fraction(s.time_base), rows[s.index], _breaks(rows[s.index], s, leaps))
        for s in streams
    }


def _breaks(rows: Sequence[Row], stream: Any, leaps: bool) -> list[int]:
    """Numbers of the packets whose time of decoding is before that of the one before, or a leap after it."""
    found, last, base = [], None, Fraction(stream.time_base)
    decoding = stream.type == "video" or any(row.dts is not None for row in rows)  # images go back in time of display
    for number, row in enumerate(rows):
        time = row.dts if decoding else row.pts
        if time is None:
            continue
        # Sound may be late by a few milliseconds and that is no restart; of images any step back is one.
        slack = 0 if stream.type == "video" else max(row.duration, int(Fraction(1, 20) / base))
        if last is not None and (time < last - slack or (leaps and (time - last) * base > LEAP)):
            found.append(number)
        last = time
    return [] if _rise(rows, found) else found


def _rise(rows: Sequence[Row], breaks: list[int]) -> bool:
    """Whether what each part shows comes after what the part before shows, by less than a leap of the clock.

    Then nothing starts again: an edit list takes pieces of a stream, and each begins with images that are not shown.
    """
    ends = [0, *breaks, len(rows)]
    parts = [[row.pts for row in rows[a:b] if row.pts is not None and not row.discard] for a, b in pairwise(ends)]
    parts = [part for part in parts if part]
    return any(row.discard for row in rows) and all(max(a) < min(b) for a, b in pairwise(parts))


# ---- what starts again -----------------------------------------------------------------------------------------------


def shifts_of(tracks: dict[int, Track], video: int, path: Path) -> tuple[Shift, ...]:
    """By how much the times of each stream move after each restart, so that they go on and stay together.

    Raises `InputError` where it cannot be told which sound belongs to which part.
    """
    restarts = tracks[video].breaks
    starts = {index: _starts(track, tracks[video]) for index, track in tracks.items() if track.rows}
    if not restarts:
        return ()
    ends: dict[int, Fraction] = {}  # where each stream has come to, moved
    shifts: list[Shift] = []
    moved = Fraction(0)
    for part in range(len(restarts) + 1):
        spans = {
            index: span
            for index, numbers in starts.items()
            if (span := tracks[index].span(numbers[part], numbers[part + 1])) and tracks[index].kind != "subtitle"
        }
        gaps = [ends[index] - begin for index, (begin, _) in spans.items() if index in ends]
        moved = max(gaps, default=moved)
        for index, (_, end) in spans.items():
            ends[index] = end + moved
        if part:
            shifts += [Shift(index, numbers[part], moved) for index, numbers in starts.items()]
    _check_order(tracks, starts, shifts, path)
    return tuple(shifts)


def _starts(track: Track, video: Track) -> list[int]:
    """Numbers of the packets with which the parts of a stream begin, and that of its end.

    By its own restarts where it has as many as the video, else by where its packets lie in the file.
    """
    if len(track.breaks) == len(video.breaks):
        return [0, *track.breaks, len(track.rows)]
    places = np.maximum.accumulate([row.place for row in track.rows])
    bounds = [video.rows[number].place for number in video.breaks]
    return [0, *(int(np.searchsorted(places, bound)) for bound in bounds), len(track.rows)]


def _check_order(tracks: dict[int, Track], starts: dict[int, list[int]], shifts: list[Shift], path: Path) -> None:
    """The moved times of no stream go back, or it was not understood what belongs together."""
    for index, numbers in starts.items():
        own = [Fraction(0), *(shift.seconds for shift in shifts if shift.stream == index)]
        track, last = tracks[index], None
        if track.kind == "audio" and not set(track.breaks) <= set(numbers):
            raise _not_understood(track, path)
        for (first, end), seconds in zip(pairwise(numbers), own, strict=True):
            span = track.span(first, end)
            slack = max((row.duration for row in track.rows[first:end]), default=0) * track.time_base
            if span and last is not None and span[0] + seconds < last - slack:
                raise _not_understood(track, path)
            last = span[1] + seconds if span else last


def _not_understood(track: Track, path: Path) -> InputError:
    return InputError(
        f"{path}: the time stamps of its {track.kind} (stream {track.index}) start again otherwise than its video's",
        "it was joined of files that do not fit: join them with `ffmpeg -f concat`, or edit each alone",
    )


# ---- the list of frames ----------------------------------------------------------------------------------------------


def timeline_of(container: Any, stream: Any, track: Track, shifts: tuple[Shift, ...], path: Path) -> Timeline:
    """When every frame is shown: from the packets where one packet is one frame and its time tells it."""
    rows, name = track.rows, container.format.name.split(",")[0]
    one_each = name in ONE_FRAME_CONTAINERS and stream.codec.name in ONE_FRAME_CODECS
    if not one_each or track.breaks or not _tell_frames(rows, stream):
        return _by_decoding(track, shifts, one_each, path)
    shown = {row.pts: row.duration for row in rows if not row.discard and row.pts is not None}
    first_key = next((row.pts for row in rows if row.key and row.pts is not None), min(shown, default=0))
    dropped = sum(pts < first_key for pts in shown)
    if dropped > MAX_MISSING:
        shown = {pts: duration for pts, duration in shown.items() if pts >= first_key}
    else:
        dropped = 0  # few enough to show the first image in their place
    if not shown:
        return _by_decoding(track, shifts, one_each, path)
    pts = np.array(sorted(shown), np.int64)
    length, stated = sum(row.duration for row in rows), int(stream.duration or 0)
    if stated and abs(length - stated) * Fraction(stream.time_base) <= Fraction(1, 1000):
        durations = display_durations(pts, shown[int(pts[-1])], stream, length, LONGEST_HOLD)  # to the unit
    else:
        durations = display_durations(pts, shown[int(pts[-1])], stream, stated)
    return Timeline(pts, durations, dropped=dropped)


def _tell_frames(rows: Sequence[Row], stream: Any) -> bool:
    """Whether the packets' times are there, differ, and are those of display.

    A stream whose images are reordered and whose times are in order of decoding has none of display (Matroska with
    AVI's headers, MP4 without its table of offsets).
    """
    shown = [row for row in rows if not row.discard]
    pts = [row.pts for row in shown if row.pts is not None]
    if len(set(pts)) < len(shown):
        return False
    if not _has_display_times(stream):
        return False
    return not stream.codec_context.has_b_frames or pts != sorted(pts)


def _has_display_times(stream: Any) -> bool:
    """AVI has times of decoding only, and Matroska where its streams have AVI's headers (a tag of four letters)."""
    name = stream.container.format.name.split(",")[0]
    return name != "avi" and not (name == "matroska" and stream.codec_context.codec_tag.strip("\0"))


def _by_decoding(track: Track, shifts: tuple[Shift, ...], one_each: bool, path: Path) -> Timeline:
    """The frames in the order in which they are decoded, with their packets' times as far as these can be true."""
    with open_media(path) as container:
        stream = main_video(container, path, index=track.index)
        numbers = list(_numbers(container, stream, track, path))
        times, rate = _times(numbers, track, shifts, _has_display_times(stream)), _rate(stream)
    if not numbers:
        raise InputError(f"{path}: not one frame could be decoded", "the file is damaged or cut off; copy it again")
    pts, scale = spread(times, rate * track.time_base)
    last = track.rows[numbers[-1]].duration if numbers[-1] is not None else 0
    durations = display_durations(pts, last * scale, stream, stream.duration or 0 if not shifts and scale == 1 else 0)
    lost = sum(not row.discard for row in track.rows) - len(numbers) if one_each else 0
    return Timeline(pts, durations, False, max(0, lost), scale, tuple(track.breaks))


def _numbers(container: Any, stream: Any, track: Track, path: Path) -> Iterator[int | None]:
    """For every frame the number of the packet that it was in, as far as the decoder tells."""

    def numbered() -> Iterator[Any]:
        number = 0
        for packet in packets(container, stream, path):
            if packet.size:
                packet.pts, number = number, number + 1
            yield packet

    for frame in in_parts(numbered(), stream, track.breaks):
        known = frame.pts is not None and 0 <= frame.pts < len(track.rows)
        yield int(frame.pts) if known else None


def in_parts(stream_packets: Iterable[Any], stream: Any, breaks: Sequence[int]) -> Iterator[Any]:
    """The frames of the packets, each part that begins at one of these packets decoded to its end before the next."""
    decoder, last = decoder_of(stream), iter(stream_packets)
    if not breaks:
        yield from decoded(last, decoder)
        return
    bounds = set(breaks)
    context = decoder or stream.codec_context
    number = 0
    waiting: list[Any] = []

    def until_break() -> Iterator[Any]:
        nonlocal number
        yield from waiting
        waiting.clear()
        for packet in last:
            number += bool(packet.size)
            if packet.size and number - 1 in bounds:
                waiting.append(packet)
                return
            yield packet

    while True:
        yield from decoded(until_break(), decoder)
        if not waiting:
            return
        yield from drained(context)


def drained(context: Any) -> Iterator[Any]:
    """What is left inside a decoder, which takes packets again afterwards."""
    with suppress(av.FFmpegError, MemoryError):
        yield from context.decode(None)
    context.flush_buffers()


def _times(numbers: Sequence[int | None], track: Track, shifts: tuple[Shift, ...], own_ones: bool) -> list[int | None]:
    """The time of each frame in order of display: its packet's own, or the k-th time of decoding for the k-th frame.

    Own times that go back from one frame to the next were made up, as are those of containers that have none.
    """
    moved = [_units(shifts, track, number) for number in range(len(track.rows))]

    def times(name: str) -> list[int | None]:
        raw = [getattr(track.rows[n], name) if n is not None else None for n in numbers]
        return [
            None if time is None or n is None else time + moved[n] for n, time in zip(numbers, raw, strict=True)
        ]  # fmt: skip

    own = times("pts")
    known = [time for time in own if time is not None]
    if own_ones and known == sorted(known):
        return own
    by_decoding = sorted(time for time in times("dts") if time is not None)
    if len(by_decoding) == len(own):
        return [*by_decoding]
    return [*sorted(known), *[None] * (len(own) - len(known))]


def _units(shifts: tuple[Shift, ...], track: Track, number: int) -> int:
    """By how many units of its stream a packet is moved."""
    seconds = [shift.seconds for shift in shifts if shift.stream == track.index and number >= shift.first]
    return round(seconds[-1] / track.time_base) if seconds else 0


def _rate(stream: Any) -> Fraction:
    return Fraction(stream.average_rate or stream.guessed_rate or 25)


def spread(times: Sequence[int | None], rate: Fraction) -> tuple[np.ndarray, int]:
    """Times that differ and rise, `[T]` int64, and into how many parts a unit was cut for that.

    `rate` is that of the frames in one unit. Where every time is at most a unit off that rate, the rate says them
    exactly; else frames of one time share the time until the next.
    """
    step = 1 / rate if rate > 0 else Fraction(1)
    filled = _filled(times, step)
    if all(a < b for a, b in pairwise(filled)):
        return np.array(filled, np.int64), 1
    even = [filled[0] + k * step for k in range(len(filled))]
    if step.denominator <= FINEST and all(abs(a - b) <= 1 for a, b in zip(even, filled, strict=True)):
        return np.array([int(time * step.denominator) for time in even], np.int64), step.denominator
    groups: list[tuple[int, int]] = []  # time, how many
    for time in filled:
        if groups and time <= groups[-1][0]:
            groups[-1] = (groups[-1][0], groups[-1][1] + 1)
        else:
            groups.append((time, 1))
    scale = max(count for _, count in groups)
    following = [time for time, _ in groups[1:]] + [groups[-1][0] + max(1, round(step * groups[-1][1]))]
    pts = [
        time * scale + k * ((after - time) * scale // count)
        for (time, count), after in zip(groups, following, strict=True)
        for k in range(count)
    ]
    return np.array(pts, np.int64), scale


def _filled(times: Sequence[int | None], step: Fraction) -> list[int]:
    """The times, those that are not known a step after the one before."""
    first = next((k for k, time in enumerate(times) if time is not None), None)
    filled: list[int] = []
    at = Fraction(0) if first is None else (times[first] or 0) - first * step
    for time in times:
        at = Fraction(time) if time is not None else at
        filled.append(round(at))
        at += step
    return filled


def nominal_duration(stream: Any) -> int:
    """Units of the stream's time base for which a frame is shown at its stated rate."""
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    return max(1, round(1 / (rate * stream.time_base)))


def display_durations(pts: np.ndarray, last: int, stream: Any, stated: int, most: int = MOST_HOLD) -> np.ndarray:
    """Time to the next frame. For the last one what the file says, else the median, else the nominal duration.

    The length that is `stated` for the track (0: none) comes before the packet's `last`, which FFmpeg takes from the
    order of decoding, unless the last frame would be shown for more than `most` of the longest steps.
    """
    steps = np.diff(pts)
    rest = (stream.start_time or 0) + stated - int(pts[-1])
    if len(steps) and 0 < rest <= most * int(steps.max()):
        last = rest
    if last <= 0:
        last = int(np.median(steps)) if len(steps) else nominal_duration(stream)
    return np.append(steps, last).astype(np.int64)
