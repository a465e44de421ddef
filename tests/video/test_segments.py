"""Videos in chunks: exact timing at the joins, the same bytes after an interruption, nothing left half."""

from __future__ import annotations

import errno
import os
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip, number_of, vfr_pts
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.errors import InputError, UsageError
from sg3cli.files import digest_of
from sg3cli.settings import EncodeConfig
from sg3cli.video import Cut, SegmentedWriter, VideoReader, VideoWriter, packet_digest
from sg3cli.video.probe import probe
from sg3cli.video.segments import decoding_times, reorder_depth

LENGTH = 7
SIZE = (128, 96)  # at sizes like 64x48 x264 reads memory that it has not written: no two of its runs are alike
KINDS = {
    "x264.mp4": {"codec": "libx264", "preset": "veryfast"},
    "x264.mkv": {"codec": "libx264", "preset": "veryfast"},
    "x265.mp4": {"codec": "libx265", "preset": "ultrafast"},
    "vp9.webm": {"codec": "libvpx-vp9", "preset": "medium"},
    "ffv1.mkv": {"codec": "ffv1"},
    "mpeg4.mov": {"codec": "mpeg4"},
    "av1.mp4": {"codec": "libsvtav1", "preset": "12", "crf": 20.0},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty frames with unequal steps that do not begin at zero, and sound."""
    path = tmp_path_factory.mktemp("source") / "source.mp4"
    return make_clip(path, 30, pts=vfr_pts(30, 1024), time_base=Fraction(1, 12800), audio=["aac"], size=SIZE)


def write(source: Path, out: Path, folder: Path, encode: EncodeConfig, length: int = LENGTH, stop: int = 99) -> int:
    """Write a video in chunks, no more than `stop` frames of it in this run; returns how many were there before."""
    with VideoReader(source) as reader:
        size = (reader.info.width, reader.info.height)
        cut = Cut(folder, "key", len(reader), length)
        with SegmentedWriter(str(out), reader.info, encode, size, {"title": "whole"}, cut) as writer:
            for frame in islice(reader.frames(writer.start), stop):
                writer.write(frame)
            if writer.start + stop < len(reader):
                raise KeyboardInterrupt
        return writer.start


@pytest.mark.parametrize("name", KINDS)
def test_a_video_from_chunks_has_the_source_s_frames_and_an_interrupted_one_its_bytes(
    name: str, source: Path, tmp_path: Path
) -> None:
    encode, suffix = EncodeConfig(**{"crf": 10.0, **KINDS[name]}), Path(name).suffix  # type: ignore[arg-type]
    sound = probe(source).audio if suffix != ".webm" else ()
    if not sound:
        source = make_clip(tmp_path / "silent.mkv", 30, pts=vfr_pts(30, 1024), time_base=Fraction(1, 12800), size=SIZE)
    whole, broken = tmp_path / f"whole{suffix}", tmp_path / f"broken{suffix}"
    assert write(source, whole, tmp_path / "a", encode) == 0
    for stop, kept in ((3, 0), (9, 7), (5, 7), (6, 7), (10, 14)):
        with pytest.raises(KeyboardInterrupt):
            write(source, broken, tmp_path / "b", encode, stop=stop)
        assert not broken.exists() and not list(tmp_path.rglob("*.tmp")) and not list(tmp_path.rglob("*.part"))
        assert len(list((tmp_path / "b").glob("*.bin"))) == kept // LENGTH
    assert write(source, broken, tmp_path / "b", encode) == 14
    assert digest_of(whole) == digest_of(broken)
    with VideoReader(source) as before, VideoReader(whole) as after:
        ms = 0.0006 if suffix in (".mkv", ".webm") else 1e-9
        assert np.abs(before.times - after.times).max() < ms
        assert after.info.duration == pytest.approx(before.info.duration, abs=2 * ms)
        assert [number_of(frame.rgb) for frame in after] == list(range(30))
        assert [number_of(frame.rgb) for frame in after.frames(16)] == list(range(16, 30))  # a seek finds the joins
    assert packet_digest(whole, "audio") == (packet_digest(source, "audio") if sound else [])
    assert probe(whole).metadata.get("title", probe(whole).metadata.get("TITLE")) == "whole"
    dts, keys = decoding(whole)
    assert all(b > a for a, b in pairwise(dts))
    assert {0, 7, 14, 21} <= keys


def decoding(path: Path) -> tuple[list[int], set[int]]:
    """Decoding times of the video's packets, and the numbers of those that are key frames."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert all(p.dts is None or p.dts <= p.pts for p in packets)
    return [p.dts for p in packets if p.dts is not None], {i for i, p in enumerate(packets) if p.is_keyframe}


def test_a_video_of_one_chunk_is_written_as_ever(source: Path, tmp_path: Path) -> None:
    encode = EncodeConfig()
    with (
        VideoReader(source) as reader,
        VideoWriter(tmp_path / "a.mp4", reader.info, encode, None, {"title": "whole"}) as w,
    ):
        for frame in reader:
            w.write(frame)
    for name, length in (("b", 0), ("c", 30), ("d", 21)):
        write(source, tmp_path / f"{name}.mp4", tmp_path / name, encode, length)
        assert digest_of(tmp_path / f"{name}.mp4") == digest_of(tmp_path / "a.mp4")
        assert not (tmp_path / name).exists()


def test_reordered_times_of_a_video_from_chunks_are_those_of_one_encoder(tmp_path: Path) -> None:
    """At a constant rate x264's own decoding times already fit; ours must be the same."""
    source = make_clip(tmp_path / "s.mp4", 40, size=SIZE)
    write(source, tmp_path / "one.mp4", tmp_path / "x", EncodeConfig(), 0)
    write(source, tmp_path / "cut.mp4", tmp_path / "y", EncodeConfig(), 10)
    assert decoding(tmp_path / "one.mp4")[0] == decoding(tmp_path / "cut.mp4")[0]


def test_chunks_that_do_not_belong_are_dropped(source: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "chunks", tmp_path / "out.mp4"
    with pytest.raises(KeyboardInterrupt):
        write(source, out, folder, EncodeConfig(), stop=22)
    (folder / "000000007.bin").write_bytes(b"short")  # the second chunk is damaged: those after it are of no use
    (folder / "stray").write_bytes(b"?")
    assert write(source, out, folder, EncodeConfig()) == 7
    with pytest.raises(KeyboardInterrupt):
        write(source, tmp_path / "other.mp4", tmp_path / "q", EncodeConfig(), stop=22)
    assert write(source, tmp_path / "other.mkv", tmp_path / "q", EncodeConfig()) == 0  # another container
    with (
        VideoReader(source) as reader,
        pytest.raises(KeyError),
        SegmentedWriter(
            str(out), reader.info, EncodeConfig(), SIZE, {}, Cut(folder, "another key", 30, LENGTH)
        ) as writer,
    ):
        assert writer.start == 0 and not list(folder.iterdir())
        raise KeyError


def test_an_encoder_that_changes_its_header_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write(source, tmp_path / "o.mp4", tmp_path / "q", EncodeConfig(), stop=22)
    with pytest.raises(UsageError, match="joined"):
        write(source, tmp_path / "o.mp4", tmp_path / "q", EncodeConfig(pix_fmt="yuv444p"))


def test_no_room_for_a_chunk(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(InputError, match="no space left"):
            write(source, tmp_path / "o.mp4", tmp_path / "q", EncodeConfig())
    assert not list((tmp_path / "q").glob("*"))
    assert write(source, tmp_path / "o.mp4", tmp_path / "q", EncodeConfig()) == 0


@given(st.integers(0, 500), st.integers(0, 60))
def test_chunks_cover_the_video_and_none_is_tiny(frames: int, length: int) -> None:
    bounds = Cut(Path("x"), "", frames, length).bounds()
    lengths = np.diff([0, *bounds])
    if bounds:
        assert bounds[-1] == frames and len(bounds) > 1
        assert (lengths[:-1] == length).all() and length / 2 <= lengths[-1] <= 1.5 * length
    else:
        assert length == 0 or frames < 1.5 * length


@given(st.data())
def test_decoding_times_ascend_and_never_pass_the_display_s(data: st.DataObject) -> None:
    """Any order in which no packet is decoded more than a few places away, whatever the steps."""
    steps = data.draw(st.lists(st.integers(1, 900), min_size=1, max_size=40))
    depth = data.draw(st.integers(0, 3))
    shown = np.cumsum(steps)
    coded = sorted(range(len(shown)), key=lambda i: (i // (depth + 1), -(i % (depth + 1))))  # groups, last one first
    rows = np.zeros((len(shown), 6), np.int64)
    rows[:, 0] = rows[:, 1] = shown[coded]
    rows[:, 1] += 10_000  # an encoder that says nothing useful about decoding
    found = decoding_times(rows[:, 0], reorder_depth(rows))
    assert (np.diff(found) > 0).all() and (found <= rows[:, 0]).all()


def test_what_the_container_cannot_hold_is_said_before_a_frame_is_encoded(source: Path, tmp_path: Path) -> None:
    """Sound that goes in only at the end of a video in chunks is tried at its beginning."""
    out, folder = tmp_path / "video.webm", tmp_path / "chunks"
    with VideoReader(source) as reader:
        cut = Cut(folder, "key", len(reader), LENGTH)
        writer = SegmentedWriter(str(out), reader.info, EncodeConfig(codec="libvpx-vp9"), SIZE, {}, cut)
        with pytest.raises(UsageError, match="cannot hold the source's aac audio"), writer:
            pytest.fail("the video was begun")
    assert not folder.exists() and not list(tmp_path.iterdir())
