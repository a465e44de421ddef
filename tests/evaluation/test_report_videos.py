"""The small videos of a report: every frame, at its time, of both, in as much room as there is."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip, number_of, numbered, vfr_pts

from sg3cli.console import Console
from sg3cli.errors import InputError
from sg3cli.evaluation import report_videos
from sg3cli.evaluation.report_videos import Footage, SmallVideos, fitted_size, small_videos

QUIET = Console(quiet=True)


def decoded(data: bytes) -> list[tuple[float, np.ndarray]]:
    with av.open(io.BytesIO(data)) as container:
        return [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def noise(index: int, width: int, height: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)


def made(source: Path, edited: Path | None, room: int = 1 << 20) -> SmallVideos | None:
    return small_videos(Footage(source, edited), room, QUIET, set(), lambda *_: None)


def test_every_frame_is_there_at_its_time_in_both(tmp_path: Path) -> None:
    pts, base = vfr_pts(10, start=3000), Fraction(1, 12800)
    times = [float((p - pts[0]) * base) for p in pts]
    source = make_clip(tmp_path / "a.mp4", 10, (96, 64), 25, pts, base)
    edited = make_clip(tmp_path / "b.mp4", 10, (96, 64), 25, pts, base, image=lambda k, w, h: numbered(k + 20, w, h))
    found = made(source, edited)
    assert found is not None and found.edited is not None and found.frames == 10
    for data, first in ((found.source, 0), (found.edited, 20)):
        frames = decoded(data)
        assert [number_of(rgb) for _, rgb in frames] == list(range(first, first + 10))
        assert [time for time, _ in frames] == pytest.approx(times, abs=1e-6)


def test_an_edited_video_of_another_rate_and_size_gets_the_frames_of_the_source(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mkv", 8, (96, 64), 25, codec="ffv1")
    edited = make_clip(tmp_path / "b.mkv", 16, (192, 128), 50, codec="ffv1")
    found = made(source, edited)
    assert found is not None and found.edited is not None and found.size == (96, 64)
    assert [number_of(rgb) for _, rgb in decoded(found.edited)] == [0, 2, 4, 6, 8, 10, 12, 14]


def test_less_room_makes_them_smaller_then_shorter_then_leaves_them_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_videos, "LADDER", ((960, 25.0), (96, 33.0)))
    monkeypatch.setattr(report_videos, "LEAST", 2_000)
    source = make_clip(tmp_path / "a.mkv", 8, (160, 120), 25, codec="ffv1", image=noise)
    whole, smaller, cut = (made(source, source, room) for room in (1 << 22, 50_000, 5_000))
    assert whole is not None and smaller is not None and cut is not None
    assert whole.size == (160, 120) and whole.frames == 8 and whole.note == "without sound"
    assert whole.bytes > 50_000 >= smaller.bytes > 5_000 >= cut.bytes
    assert smaller.size == (96, 72) and smaller.frames == 8 and "at 96x72 of 160x120" in smaller.note
    assert 1 <= cut.frames < 8 and "the first" in cut.note
    assert len(decoded(cut.source)) == cut.frames and cut.edited is not None
    assert made(source, source, 1_900) is None


@pytest.mark.parametrize("room", [1 << 20, 0])
def test_the_frames_that_are_wanted_come_along_whatever_the_room(tmp_path: Path, room: int) -> None:
    source = make_clip(tmp_path / "a.mkv", 12, (96, 64), 25, codec="ffv1")
    kept: list[tuple[int, int]] = []
    small_videos(Footage(source, source), room, QUIET, {0, 7, 11}, lambda k, both: kept.append((k, number_of(both[0]))))
    assert kept == [(0, 0), (7, 7), (11, 11)]  # each once


def test_without_an_edited_video_there_is_one(tmp_path: Path) -> None:
    found = made(make_clip(tmp_path / "a.mp4", 4), None)
    assert found is not None and found.edited is None and len(decoded(found.source)) == 4


def test_sound_and_tags_of_the_source_stay_outside(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", 6, audio=["aac"], metadata={"comment": "where I live"})
    found = made(source, None)
    assert found is not None and b"where I live" not in found.source
    with av.open(io.BytesIO(found.source)) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_videos_of_another_shape_are_refused(tmp_path: Path) -> None:
    footage = Footage(make_clip(tmp_path / "a.mp4", 4), make_clip(tmp_path / "b.mp4", 4, (128, 48)))
    with pytest.raises(InputError, match="another shape"):
        next(footage.frames())


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (641, 359), (3, 3), (5000, 20)])
def test_sizes_are_even_and_keep_their_shape(size: tuple[int, int]) -> None:
    for side, _ in report_videos.LADDER:
        width, height = fitted_size(*size, side)
        assert width % 2 == height % 2 == 0 and 2 <= max(width, height) <= max(side, 4)
        if min(width, height) > 20:
            assert width / height == pytest.approx(size[0] / size[1], rel=0.02)
