"""Parts of a video by time: how the edit fades at their ends, and what the other frames keep."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import make_clip
from hypothesis import given
from hypothesis import strategies as st
from running import relocate

from sg3cli import cli
from sg3cli.faces.alignment import ABSENT
from sg3cli.pipeline.partial_render import FADE, only_inside, opacity, whole_batches, within_reach
from sg3cli.pipeline.render import fades_by_strength, shares_of
from sg3cli.project import Project
from sg3cli.settings import RenderConfig
from sg3cli.smoothing import REACH
from sg3cli.time_ranges import Ranges, parse_ranges
from sg3cli.video import VideoReader

INF = math.inf


# ---- opacity


@st.composite
def ranges_of_time(draw: st.DrawFn) -> Ranges:
    """Up to three ranges that do not overlap; the first may begin with the video, the last be open."""
    ms = sorted(draw(st.lists(st.integers(0, 20_000), min_size=2, max_size=6, unique=True)))
    parts = [(a / 1000, b / 1000) for a, b in zip(ms[::2], ms[1::2], strict=False)]
    if draw(st.booleans()):
        parts[-1] = (parts[-1][0], INF)
    return tuple(parts)


@given(ranges_of_time(), st.integers(5, 60))
def test_opacity_is_none_outside_all_well_inside_and_never_jumps_at_an_end(ranges: Ranges, rate: int) -> None:
    times = np.arange(25 * rate) / rate
    shown = opacity(times, ranges)
    assert shown.shape == times.shape and (shown >= 0).all() and (shown <= 1).all()
    for time, value in zip(times, shown, strict=True):
        around = [(a, b) for a, b in ranges if a <= time < b]
        if not around:
            assert value == 0
            continue
        ((start, end),) = around
        room = min(INF if start == 0 else time - start, end - time)
        assert value == pytest.approx(min(room / FADE, 1))
    for start, end in ranges:  # just inside a closed end there is next to nothing, so that no frame pops
        for at, edge in ((start + 1e-4, start), (end - 1e-4, end)):
            if 0 < edge < INF and end - start > 1e-3:
                assert opacity(np.array([at]), ranges)[0] < 0.01


# ---- frames


@dataclass(frozen=True)
class Numbered:
    """A frame of which `only_inside` needs the index; `value` says what has been done to it."""

    index: int
    value: float = 0.0


@given(st.data())
def test_the_edit_is_given_whole_batches_and_its_results_are_those_of_the_whole_video(data: st.DataObject) -> None:
    batch, count = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40))
    shares = st.sampled_from([0.0, 0.0, 0.0, 0.25, 1.0])
    shown = np.array(data.draw(st.lists(shares, min_size=count, max_size=count)))
    start = batch * data.draw(st.integers(0, (count - 1) // batch))  # a video that goes on from an earlier run
    seen: list[int] = []

    def edited(frames: Iterator[Numbered]) -> Iterator[Numbered]:
        """Depends on the batch, as the rounding of a network does; holds a batch back, as composing does."""
        held: list[Numbered] = []
        for frame in frames:
            held.append(frame)
            seen.append(frame.index)
            if len(held) == batch or frame.index == count - 1:
                assert held[0].index % batch == 0
                yield from (replace(one, value=100.0 + 0.1 * held[0].index) for one in held)
                held = []
        assert not held, "a batch was cut short"

    def blend(below: Numbered, above: Numbered, share: float) -> Numbered:
        return replace(below, value=below.value + share * (above.value - below.value))

    def plain(frame: Numbered) -> Numbered:
        return replace(frame, value=-1.0)

    results = list(only_inside(map(Numbered, range(start, count)), shown, batch, edited, plain, blend))
    assert [frame.index for frame in results] == list(range(start, count))
    for frame in results:
        whole, share = 100.0 + 0.1 * (frame.index // batch * batch), shown[frame.index]
        assert frame.value == pytest.approx(-1 + share * (whole + 1))
        assert share or frame.value == -1
    wanted = {k // batch for k in range(start, count) if shown[k] > 0}
    assert {index // batch for index in seen} == wanted  # the rest cost nothing


# ---- what fades


def test_an_edit_fades_towards_frames_without_the_face_and_at_the_ends_of_a_range(tuned: Path) -> None:
    track = Project.open(tuned / "talk.sg3").track()
    status = track.status.copy()
    status[9:] = ABSENT
    gone = replace(track, status=status)
    alone, ranged = shares_of(gone, RenderConfig()), shares_of(gone, RenderConfig(range="0.08-"))
    assert alone[0] == 1 and (np.diff(alone[4:10]) < 0).all() and not alone[9:].any()
    np.testing.assert_allclose(ranged, alone * opacity(track.times, parse_ranges("0.08-")))
    assert not ranged[:3].any() and ranged[5] > 0


@pytest.mark.parametrize(
    ("options", "by_strength"),
    [
        ({}, True),
        ({"transfer": "paste"}, True),
        ({"view": "compare"}, True),
        ({"transfer": "draw"}, False),
        ({"stitch": "tune"}, False),
        ({"stitch": "none"}, False),
        ({"detail": 0.5}, False),
        ({"view": "face"}, False),
    ],
)
def test_what_is_not_the_source_at_strength_0_fades_by_opacity(options: dict[str, Any], by_strength: bool) -> None:
    assert fades_by_strength(replace(RenderConfig(), **options)) == by_strength


# ---- the whole chain


@pytest.fixture
def clip(tmp_path: Path, talk: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a finished project whose only edit holds from beginning to end."""
    folder = tmp_path / "clip"
    shutil.copytree(tuned, folder)
    relocate(folder / "talk.sg3", tuned, folder)
    monkeypatch.chdir(folder)
    assert cli.run(["edit", "talk.sg3", "--clear", "--direction", "age", "--strength", "4", "-q"]) == 0
    return folder


def rendered(out: str, *more: str) -> list[np.ndarray]:
    assert cli.run(["render", "talk.sg3", "-o", out, "--codec", "ffv1", "-q", *more]) == 0
    return frames_of(Path(out))


def frames_of(path: Path) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        return [frame.rgb for frame in reader]


@pytest.mark.parametrize("transfer", ["paste", "draw"])
def test_frames_outside_the_range_are_the_source_s_and_those_inside_are_edited(clip: Path, transfer: str) -> None:
    """Both ranges end or begin in the middle of a batch, and of a chunk when the video is kept in chunks."""
    source, whole = frames_of(clip / "talk.mp4"), rendered("whole.mkv", "--transfer", transfer)
    with VideoReader("talk.mp4") as reader:
        times = reader.times
    text = "0-0.26,0.41-"
    shown = opacity(times, parse_ranges(text))
    assert [int(share) if share in (0, 1) else "fades" for share in shown] == [1, 1, *["fades"] * 5, *[0] * 4, "fades"]
    part = rendered("part.mkv", "--range", text, "--transfer", transfer)
    for before, after, all_edited, share in zip(source, part, whole, shown, strict=True):
        assert (before != all_edited).any()
        if share == 0:
            assert (after == before).all()
        elif share == 1:
            assert (after == all_edited).all()
        else:
            assert (after != before).any() and (after != all_edited).any()
    chunks = rendered("chunks.mkv", "--range", text, "--segment", "0.1", "--transfer", transfer)
    assert all((a == b).all() for a, b in zip(part, chunks, strict=True))


def test_what_is_steadied_over_time_is_as_in_the_whole_where_no_fade_is_near(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smoothing = 0.03  # seconds: the clip is short
    monkeypatch.setattr("sg3cli.pipeline.transfer_maps.SMOOTHING", smoothing)
    source, whole = frames_of(clip / "talk.mp4"), rendered("whole.mkv")
    with VideoReader("talk.mp4") as reader:
        times = reader.times
    end = 0.42
    part = rendered("part.mkv", "--range", f"0-{end}")
    chunks = rendered("chunks.mkv", "--range", f"0-{end}", "--segment", "0.1")
    assert all((a == b).all() for a, b in zip(part, chunks, strict=True))
    far = times < end - FADE - REACH * smoothing
    assert 2 <= far.sum() < len(times) - 2
    for before, after, all_edited, time, apart in zip(source, part, whole, times, far, strict=True):
        assert (after == all_edited).all() == apart
        assert (after == before).all() == (time >= end)


def test_an_edit_fades_by_its_strength_so_that_no_second_face_is_seen(clip: Path) -> None:
    """Half of it is what half of its strength makes of the frame, not half of what all of it does."""
    shown = opacity(np.arange(12) / 25, parse_ranges("0-0.24"))
    part = rendered("part.mkv", "--range", "0-0.24", "--transfer", "paste")
    whole = rendered("whole.mkv", "--transfer", "paste")
    source, half = frames_of(clip / "talk.mp4"), int(np.argmin(np.abs(shown - 0.5)))
    strength = f"{4 * shown[half]:.6g}"
    assert cli.run(["edit", "talk.sg3", "--clear", "--direction", "age", "--strength", strength, "-q"]) == 0
    less = rendered("less.mkv", "--transfer", "paste")[half].astype(int)
    mixed = source[half] + shown[half] * (whole[half].astype(float) - source[half])
    assert np.abs(part[half] - less).max() <= 1
    assert np.abs(part[half] - mixed).max() > 2


def test_a_range_of_everything_is_the_whole_edit_and_one_beyond_the_end_none(
    clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, whole = frames_of(clip / "talk.mp4"), rendered("whole.mkv")
    assert all((a == b).all() for a, b in zip(rendered("all.mkv", "--range", "0.."), whole, strict=True))
    assert all((a == b).all() for a, b in zip(rendered("none.mkv", "--range", "1:00-"), source, strict=True))
    capsys.readouterr()
    assert cli.run(["render", "talk.sg3", "-o", "none2.mkv", "--codec", "ffv1", "--range", "1:00-"]) == 0
    assert "--range: 1:00- lies beyond the clip, whose last frame is at 0.44 s" in capsys.readouterr().err


def test_an_unreadable_range_ends_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "in.mp4", 4, size=(128, 96))
    assert cli.run(["run", "in.mp4", "-o", "out.mp4", "--edit", "age=1", "--range", "2..1"]) == 2
    what, hint = capsys.readouterr().err.strip().splitlines()[-2:]
    assert what == "error: the range '2..1' ends before it starts" and hint.startswith("hint: a range is")
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@given(
    steps=st.lists(st.floats(0.001, 0.5), min_size=1, max_size=30),
    picked=st.integers(0, 2**30 - 1),
    batch=st.integers(1, 5),
    reach=st.floats(0.01, 1),
)
def test_frames_near_the_wanted_and_in_their_batches(steps: list[float], picked: int, batch: int, reach: float) -> None:
    times = np.cumsum(steps)
    wanted = np.array([bool(picked >> k & 1) for k in range(len(times))])
    near = within_reach(times, wanted, reach)
    distance = np.abs(times[:, None] - times[wanted][None]).min(axis=1, initial=np.inf)
    assert near[distance < reach - 1e-9].all() and not near[distance > reach + 1e-9].any()
    batches = whole_batches(wanted, batch)
    assert batches.tolist() == [bool(wanted[k // batch * batch :][:batch].any()) for k in range(len(times))]
