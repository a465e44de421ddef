"""Frame identity where a file's own times are bad: every image goes in and out once, in its order."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip, number_of
from hypothesis import given
from hypothesis import strategies as st
from odd_media import CLOCK, REORDERED, count, decode_times_only, joined, timed, transport, under_avi_headers

from sg3cli.errors import InputError, UsageError
from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter
from sg3cli.video.timeline import shifts_of, spread, tracks_of

FAST = EncodeConfig(preset="ultrafast")
WRAP = CLOCK / 90000
MS = Fraction(1, 1000)
SOUND = {"audio": ["aac"]}
FILMS = {"codec": "mpeg2video", "options": {"bf": "2"}}

# name -> how it is made, images, packets of sound, seconds, what is said
KINDS: dict[str, tuple[Callable[[Path], Path], int, int, float, str]] = {
    "wraps.ts": (lambda p: transport(p, WRAP - 1.6, 15, **SOUND), 15, 30, 0.6, "begin at -1.60 s; the output"),
    "wraps-later.ts": (lambda p: transport(p, WRAP - 0.3, 15, **SOUND), 15, 30, 0.6, "the output begins at 0.00 s"),
    "below.ts": (lambda p: transport(p, WRAP - 5, 15), 15, 0, 0.6, "begin at -5.00 s"),
    "hours.ts": (lambda p: transport(p, 94000, **SOUND), 10, 20, 0.4, "begin at 94000.00 s; the output begins at 0.02"),
    "hours.mpg": (lambda p: transport(p, 20000, **FILMS), 10, 0, 0.4, "the output begins at 0.00"),
    "joined.ts": (lambda p: joined(p, [{}, {}]), 20, 0, 0.8, "start again (2 parts)"),
    "joined-sound.ts": (lambda p: joined(p, [SOUND] * 2), 20, 40, 0.8267, "start again (2 parts)"),
    "three.ts": (lambda p: joined(p, [{"frames": 5}, {"frames": 7}, {"frames": 1}]), 13, 0, 0.52, "(3 parts)"),
    "three-sound.ts": (lambda p: joined(p, [SOUND] * 3), 30, 60, 1.2533, "(3 parts)"),
    "leaps.ts": (lambda p: joined(p, [SOUND, SOUND | {"offset": 3600}]), 20, 40, 0.8267, "start again"),
    "earlier.ts": (lambda p: joined(p, [SOUND | {"offset": 100}, SOUND]), 20, 40, 0.8267, "start again"),
    "silent-first.ts": (lambda p: joined(p, [{}, SOUND]), 20, 20, 0.8, "start again"),
    "silent-then.ts": (lambda p: joined(p, [SOUND, {}]), 20, 20, 0.8, "start again"),
    "two-rates.ts": (lambda p: joined(p, [{"rate": 25}, {"rate": 50}]), 20, 0, 0.6, "start again"),
    "joined.mpg": (lambda p: joined(p, [FILMS] * 2), 20, 0, 0.8, "start again"),
    "joined.vob": (lambda p: joined(p, [FILMS | {"audio": ["mp2"]}] * 2), 20, 34, 0.808, "start again"),
    "fast.mkv": (lambda p: timed(p, [k // 4 for k in range(40)], MS, rate=4000), 40, 0, 0.01, "share their times"),
    "bursts.mkv": (lambda p: timed(p, [0, 0, 0, 5, 5, 6, 20, 20, 20, 20], MS), 10, 0, 0.18, "share their times"),
    "pairs.mkv": (lambda p: timed(p, [0, 40, 40, 80, 120, 120, 160], MS), 7, 0, 0.2, "share their times"),
    "skips.avi": (lambda p: timed(p, [0, 1, 5, 6, 9], Fraction(1, 25), "mjpeg"), 5, 0, 0.4, ""),
    "h264.avi": (lambda p: make_clip(p, frames=20, options=REORDERED), 20, 0, 0.8, ""),
    "skips-h264.avi": (
        lambda p: make_clip(p, frames=10, pts=[0, 1, 2, 3, 7, 8, 9, 10, 11, 12], options=REORDERED), 10, 0, 0.52, "",
    ),
    "avi-headers.mkv": (under_avi_headers, 20, 0, 0.8, ""),
    "no-offsets.mp4": (decode_times_only, 20, 0, 0.8, ""),
    "no-offsets.mkv": (decode_times_only, 20, 0, 0.8, ""),
    "no-offsets-hevc.mov": (
        lambda p: decode_times_only(p, codec="libx265", options={"x265-params": "bframes=3:log-level=none"}),
        20, 0, 0.8, "",
    ),
}  # fmt: skip


def through(source: Path, out: Path) -> tuple[list[int], list[str], float]:
    """Numbers of the images read, what was said, seconds from the first to the last image's end."""
    with VideoReader(source) as reader, VideoWriter(out, reader.info, FAST) as writer:
        json.dumps(reader.info.to_dict())
        numbers = [number_of(frame.rgb) for frame in reader if not writer.write(frame)]
        assert np.all(np.diff(reader.pts) > 0)
    return numbers, reader.notices + writer.notices, reader.info.duration


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("name", KINDS)
def test_every_image_goes_in_and_out_once(tmp_path: Path, name: str, suffix: str) -> None:
    make, frames, packets, seconds, said = KINDS[name]
    source, out = make(tmp_path / name), tmp_path / f"out{suffix}"
    numbers, notices, duration = through(source, out)
    assert numbers == list(range(frames)) and duration == pytest.approx(seconds, abs=1e-3)
    found = count(out)
    assert (found["video"], found["frames"], found.get("audio", 0)) == (frames, frames, packets)
    assert said in " ".join(notices) and (said or not any("time" in notice for notice in notices))
    with VideoReader(out) as again:  # equal milliseconds in Matroska are told apart once more
        assert [number_of(frame.rgb) for frame in again] == numbers
        assert again.info.duration == pytest.approx(seconds, abs=4e-3)
        assert 0 <= again.info.start_pts * again.info.time_base < 2
    with av.open(str(out)) as container:
        assert container.duration / av.time_base < seconds + 2.1  # no edit list of hours


@pytest.mark.parametrize("name", ["joined-sound.ts", "fast.mkv", "h264.avi", "no-offsets.mp4", "joined.mpg"])
def test_any_start_gives_the_frames_of_a_full_pass(tmp_path: Path, name: str) -> None:
    reader = VideoReader(KINDS[name][0](tmp_path / name))
    full = list(reader)
    for start in (1, 9, 10, 11, len(full) - 1, len(full)):
        part = list(reader.frames(start))
        assert [(f.index, f.pts) for f in part] == [(f.index, f.pts) for f in full[start:]]
        assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(part, full[start:], strict=True))


def moments(path: Path) -> tuple[list[float], list[float]]:
    """Seconds of every packet of picture and sound."""
    with av.open(str(path)) as container:
        times = {stream.type: [] for stream in container.streams}
        for packet in container.demux():
            if packet.size:
                times[packet.stream.type].append(float(packet.pts * packet.time_base))
    return sorted(times["video"]), times["audio"]


@pytest.mark.parametrize("name", ["joined-sound.ts", "leaps.ts", "wraps.ts", "hours.ts", "silent-first.ts"])
def test_sound_stays_with_its_pictures(tmp_path: Path, name: str) -> None:
    source = KINDS[name][0](tmp_path / name)
    through(source, tmp_path / "out.mp4")
    video, audio = moments(tmp_path / "out.mp4")
    assert audio == sorted(audio)
    # Each part of ten images begins with sound that is 1024 samples early, as its encoder made it.
    plain_video, plain_audio = moments(transport(tmp_path / "plain.ts", **SOUND))
    early = plain_video[0] - plain_audio[0]
    first = len(audio) - 20 if name == "silent-first.ts" else 0
    assert video[10 if name == "silent-first.ts" else 0] - audio[first] == pytest.approx(early, abs=2e-3)
    if name in ("joined-sound.ts", "leaps.ts"):
        assert video[10] - audio[20] == pytest.approx(early, abs=2e-3)
        assert np.diff(audio).max() < 0.03 and np.diff(video).max() < 0.08


def test_parts_without_sound_between_others(tmp_path: Path) -> None:
    numbers, _, _ = through(joined(tmp_path / "a.ts", [SOUND, {}, SOUND]), tmp_path / "out.mp4")
    video, audio = moments(tmp_path / "out.mp4")
    assert numbers == list(range(30)) and len(audio) == 40  # told by where they lie in the file
    assert abs(audio[0] - video[0]) < 0.03 and abs(audio[20] - video[20]) < 0.03


def test_sound_that_starts_again_otherwise_than_the_pictures_is_refused_before_any_work(tmp_path: Path) -> None:
    one = transport(tmp_path / "one.ts", frames=100, **SOUND)
    with av.open(str(one)) as container:
        tracks = tracks_of(container, one)
    video, sound = tracks[0], tracks[1]
    rows = [row._replace(dts=row.dts - 90_000, pts=row.pts - 90_000) for row in video.rows]
    twice = replace(video, rows=[*video.rows[:50], *rows[50:]], breaks=[50])
    assert [shift.first for shift in shifts_of({0: twice}, 0, one)] == [50]
    back = [row._replace(dts=row.dts - 90_000, pts=row.pts - 90_000) for row in sound.rows]
    for breaks in ([20, 40], [20, 40, 60]):  # none of them where the video's is
        part = [back[k] if k >= breaks[0] else row for k, row in enumerate(sound.rows)]
        with pytest.raises(InputError, match="time stamps of its audio") as caught:
            shifts_of({0: twice, 1: replace(sound, rows=part, breaks=breaks)}, 0, one)
        assert "concat" in caught.value.hint


def test_sound_that_goes_back_while_the_pictures_go_on(tmp_path: Path) -> None:
    whole = transport(tmp_path / "whole.ts", frames=100, **SOUND)

    def made(name: str, ticks: int) -> Path:
        """Two of the sound's time stamps, which stand one in twenty packets, are earlier."""
        data, found = bytearray(whole.read_bytes()), 0
        for at in range(0, len(data), 188):
            if data[at + 1] & 0x40 and data[at + 2] == 1:  # begins a packet of the second stream
                pes = at + 4 + (data[at + 4] + 1 if data[at + 3] & 0x20 else 0)
                found += 1
                if found in (3, 4):
                    moved = stamp(data[pes + 9 : pes + 14]) - ticks
                    data[pes + 9 : pes + 14] = packed(moved)
        assert found > 5
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    def stamp(field: bytes) -> int:
        return (field[0] >> 1 & 7) << 30 | field[1] << 22 | field[2] >> 1 << 15 | field[3] << 7 | field[4] >> 1

    def packed(time: int) -> bytes:
        high, middle, low = time >> 30 & 7, time >> 15 & 0x7FFF, time & 0x7FFF
        return bytes([0x20 | high << 1 | 1, middle >> 7, (middle << 1 | 1) & 255, low >> 7, (low << 1 | 1) & 255])

    numbers, notices, _ = through(made("a.ts", 9000), tmp_path / "out.mkv")
    assert numbers == list(range(100)) and any("went back in time" in notice for notice in notices)
    assert count(tmp_path / "out.mkv")["audio"] == count(tmp_path / "a.ts")["audio"]
    with pytest.raises(UsageError, match="goes back by"):
        through(made("b.ts", 90_000), tmp_path / "out.mp4")


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.fractions(Fraction(1, 50), Fraction(5)),
    st.integers(-1000, 1000),
)
def test_times_are_told_apart_and_stay_where_they_are(steps: list[int], rate: Fraction, start: int) -> None:
    times = [start + int(total) for total in np.cumsum(steps)]
    pts, scale = spread(times, rate)
    assert len(pts) == len(times) and np.all(np.diff(pts) > 0) and scale >= 1
    assert all(
        abs(Fraction(int(a), scale) - b) <= max(1, len(times) / rate) + 3 for a, b in zip(pts, times, strict=True)
    )
    if len(set(times)) == len(times):
        assert scale == 1 and pts.tolist() == times
