"""Footage of every kind goes through reader and writer; the table of `tests.footage` holds nothing but equal pairs."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip, number_of, numbered
from footage import BARS, KINDS, Kind, compare, made, through
from running import SHARED

from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter
from sg3cli.video.color import resolve
from sg3cli.video.pixel_conversion import planes
from sg3cli.video.probe import probe

CLIPS = sorted([*SHARED.glob("clips/*.mp4"), *SHARED.glob("synthface_data/clips/*.mp4")])
LOSSY_TIMES = (".mkv", ".webm")  # they count milliseconds
NARROWED = {"PQ": (10, 8), "HLG": (10, 8)}
SAID = {
    "interlaced H.264": "deinterlaced",
    "interlaced MPEG-2": "deinterlaced",
    "turned by 90": "upright",
    "mirrored": "upright",
    "PQ": "tone-mapped",
    "HLG": "tone-mapped",
    "10 bits H.264": "10 bits",
    "odd size, 4:4:4": "odd",
    "APNG": "colours are converted from rgb full to bt709 limited",
    "pattern of JPEG": "chroma",
}
SILENT = {"constant rate, sound", "BT.601, full range", "VP9 with alpha", "MPEG-TS on stdin", "APNG with alpha"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_nothing_is_lost(tmp_path: Path, kind: Kind) -> None:
    row = through(kind, tmp_path)
    assert row.frames == (kind.frames, kind.frames)
    assert row.numbers[0] == row.numbers[1] == list(range(kind.first, kind.first + kind.frames))
    slack = 5e-4 if kind.out in LOSSY_TIMES else 1e-9
    assert row.late <= slack and row.end <= 2 * slack
    assert row.size[0] == row.size[1] and row.aspect[0] == row.aspect[1] and row.turned[1] == 0
    assert row.bits == NARROWED.get(kind.name, (row.bits[0], row.bits[0]))
    assert row.levels[0] <= 3 if "interlaced" in kind.name else row.levels[0] <= 2
    assert row.levels[1] <= kind.levels
    assert row.alpha in (None, 0)
    assert row.packets[1] == 0
    said = " ".join(row.notices)
    assert SAID.get(kind.name, "") in said and not (kind.name in SILENT and said)


def test_the_corpus_is_large() -> None:
    assert len(KINDS) >= 40 and len({kind.name for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", [k for k in KINDS if "tags" in k.clip and k.bars], ids=lambda kind: kind.name)
def test_colour_tags_mean_the_same(tmp_path: Path, kind: Kind) -> None:
    source, out = through(kind, tmp_path).tags
    assert resolve(out, 128, 96, "yuv420p") == resolve(source, 128, 96, "yuv420p")


def test_what_is_attached_and_said_about_the_video_comes_along(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "tracks, chapters, attachment")
    assert through(kind, tmp_path).packets[0] > 20
    with av.open(str(tmp_path / "out.mkv")) as out:
        assert [s.data for s in out.streams if s.type == "attachment"] == [bytes(range(256))]
        assert [chapter["metadata"]["title"] for chapter in out.chapters()] == ["part 0", "part 1"]
        assert [stream.type for stream in out.streams].count("audio") == 2


@pytest.mark.parametrize("suffix", [".mkv", ".ts"])
def test_real_interlaced_motion_is_made_whole_frame_by_frame(tmp_path: Path, suffix: str) -> None:
    def combed(index: int, width: int, height: int) -> np.ndarray:
        """A vertical edge that moves between the two fields of a frame."""
        rgb = np.full((height, width, 3), 40, np.uint8)
        rgb[0::2, : 20 + 8 * index] = 220
        rgb[1::2, : 24 + 8 * index] = 220
        return rgb

    options = {"flags": "+ildct+ilme", "x264-params": "tff=1", "crf": "1"}
    source = make_clip(tmp_path / f"in{suffix}", size=(128, 96), frames=10, image=combed, options=options)
    reader = VideoReader(source)
    frames = list(reader)
    assert reader.info.interlaced and [frame.pts for frame in frames] == reader.pts.tolist() and len(frames) == 10
    for frame in frames[1:-1]:
        rows = frame.rgb[20:-20].astype(int)
        assert np.abs(np.diff(rows, axis=0)).max() < 60  # 180 between the fields
    for start in (1, 4, 9):
        again = list(reader.frames(start))
        assert all(np.array_equal(a.rgb, b.rgb) and a.pts == b.pts for a, b in zip(again, frames[start:], strict=True))


def test_values_that_an_edit_left_alone_keep_their_ten_bits(tmp_path: Path) -> None:
    def shades(index: int, width: int, height: int) -> np.ndarray:
        return np.broadcast_to(np.linspace(60, 70, width)[:, None], (height, width, 3)).astype(np.uint8)

    # Ten bits that eight cannot hold: luma counts up by one from column to column.
    source = make_clip(tmp_path / "in.mkv", size=(128, 96), frames=2, codec="ffv1", pix_fmt="yuv420p10le", image=shades)
    ramp = tmp_path / "ramp.mkv"
    with av.open(str(source)) as old, av.open(str(ramp), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p10le"
        for frame in old.decode(video=0):
            luma = np.frombuffer(frame.planes[0], np.uint16).reshape(96, -1)
            luma[:, :128] = 300 + np.arange(128)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    encode = EncodeConfig(lossless=True)
    with VideoReader(ramp) as reader, VideoWriter(tmp_path / "out.mp4", reader.info, encode) as writer:
        for frame in reader:
            rgb = frame.rgb.copy()
            rgb[40:60, 40:60] = (200, 30, 30)
            writer.write(replace(frame, rgb=rgb))
    with av.open(str(tmp_path / "out.mp4")) as out:
        frame = next(out.decode(video=0))
    assert frame.format.name == "yuv420p10le"
    luma = np.frombuffer(frame.planes[0], np.uint16).reshape(96, -1)[:, :128]
    expected = np.broadcast_to(300 + np.arange(128), (96, 128)).copy()
    touched = np.zeros((96, 128), bool)
    touched[40:60, 40:60] = True
    assert np.array_equal(luma[~touched], expected[~touched])
    assert np.abs(frame.to_ndarray(format="rgb24")[50, 50].astype(int) - (200, 30, 30)).max() <= 3


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264", "yuv420p"), ("libx265", "yuv444p"), ("ffv1", "yuv422p"),
                                                ("libvpx-vp9", "yuv420p"), ("libx264", "yuv444p10le")])  # fmt: skip
def test_lossless_is_lossless(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    source = make_clip(
        tmp_path / "in.mkv", size=(64, 64), frames=3, codec="ffv1", pix_fmt=pix_fmt, image=lambda *_: noise
    )
    with (
        VideoReader(source) as reader,
        VideoWriter(tmp_path / "out.mkv", reader.info, EncodeConfig(codec, preset="fast", lossless=True)) as writer,
    ):
        for frame in reader:
            writer.write(frame)
    with av.open(str(source)) as a, av.open(str(tmp_path / "out.mkv")) as b:
        for old, new in zip(a.decode(video=0), b.decode(video=0), strict=True):
            assert old.format.name == new.format.name == pix_fmt
            assert all(np.array_equal(x, y) for x, y in zip(planes(old), planes(new), strict=True))


def test_lossless_rgb_stays_rgb(tmp_path: Path) -> None:
    source = made(next(kind for kind in KINDS if kind.name == "folder of PNG"), tmp_path)
    row = compare("x", source, tmp_path / "out.mp4", EncodeConfig(lossless=True))
    assert row.levels[1] == 0 and not any("colours" in notice for notice in row.notices)


def test_transparency_that_cannot_be_kept_is_said(tmp_path: Path) -> None:
    source = made(next(kind for kind in KINDS if kind.name == "APNG with alpha"), tmp_path)
    row = compare("x", source, tmp_path / "out.mp4")
    assert any("transparency is dropped" in notice and "prores_ks" in notice for notice in row.notices)
    opaque = make_clip(tmp_path / "opaque.apng", codec="apng", pix_fmt="rgba", frames=3)
    assert not probe(opaque).alpha


def test_an_exif_turn_is_undone(tmp_path: Path) -> None:
    kind = next(kind for kind in KINDS if kind.name == "pattern of JPEG")
    folder = made(kind, tmp_path).parent
    tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: turn right
    exif = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\0\0" + tiff
    jpeg = (folder / "5.jpg").read_bytes()
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + exif + jpeg[2:])
    plain, turned = (next(iter(VideoReader(path))).rgb for path in (folder / "5.jpg", tmp_path / "turned.jpg"))
    assert np.array_equal(turned, np.rot90(plain, -1))


@pytest.mark.parametrize("clip", CLIPS, ids=lambda path: path.name)
def test_clips_that_are_here(tmp_path: Path, clip: Path) -> None:
    with VideoReader(clip) as reader, VideoWriter(tmp_path / "out.mp4", reader.info) as writer:
        for frame in reader:
            if frame.index >= 8:
                break
            writer.write(frame)
    info = probe(tmp_path / "out.mp4")
    assert info.frames == 8 and (info.width, info.height) == (reader.info.width, reader.info.height)
    assert (info.time_base, info.color, info.sample_aspect_ratio) == (
        reader.info.time_base, reader.info.color, reader.info.sample_aspect_ratio,
    )  # fmt: skip


def test_images_in_natural_order_at_their_rate(tmp_path: Path) -> None:
    folder = made(next(kind for kind in KINDS if kind.name == "folder of PNG"), tmp_path)
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(b"")
    reader = VideoReader(folder, rate="30000/1001")
    assert [number_of(frame.rgb) for frame in reader] == list(range(8))  # 5.png .. 12.png
    assert reader.info.average_rate == Fraction(30000, 1001) and reader.times[-1] == pytest.approx(7 * 1001 / 30000)
    assert [number_of(frame.rgb) for frame in reader.frames(5)] == [5, 6, 7]
    (folder / "9.png").write_bytes(b"damaged")
    assert [number_of(frame.rgb) for frame in VideoReader(folder)] == [0, 1, 2, 3, 3, 5, 6, 7]
    assert [number_of(frame.rgb) for frame in VideoReader(folder).frames(4)] == [3, 5, 6, 7]


def test_bars_are_what_they_are_called() -> None:
    assert len(BARS) == 8 and numbered(5).shape == (48, 64, 3)
