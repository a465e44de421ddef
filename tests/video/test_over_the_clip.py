"""What is judged over the whole clip and not by its first frame: fields, colour tags; and what has no colour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip

from sg3cli.errors import InputError
from sg3cli.settings import EncodeConfig
from sg3cli.video import Cut, SegmentedWriter, VideoReader, VideoWriter
from sg3cli.video.color import BT709, FULL, LIMITED, PQ, SMPTE170M, UNHANDLED, ColorTags, resolve
from sg3cli.video.pixel_conversion import planes
from sg3cli.video.probe import probe

FIELDS = {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "b": "9M"}, "size": (128, 96)}
WHOLE = {"codec": "mpeg2video", "options": {"b": "9M"}, "size": (128, 96)}


def combed(index: int, width: int, height: int) -> np.ndarray:
    """A vertical edge that moves between the two fields of a frame."""
    rgb = np.full((height, width, 3), 40, np.uint8)
    rgb[0::2, : 20 + 8 * index] = 220
    rgb[1::2, : 24 + 8 * index] = 220
    return rgb


def parts(tmp_path: Path, *clips: dict) -> Path:
    data = b""
    for number, clip in enumerate(clips):
        data += make_clip(tmp_path / f"part{number}.ts", frames=8, image=combed, **clip).read_bytes()
    (tmp_path / "in.ts").write_bytes(data)
    return tmp_path / "in.ts"


def comb(rgb: np.ndarray) -> int:
    """The largest step from one row to the next."""
    return int(np.abs(np.diff(rgb[20:-20].astype(int), axis=0)).max())


H264 = {"size": (128, 96), "options": {"x264-params": "tff=1", "flags": "+ildct+ilme", "crf": "1"}}
H264_WHOLE = {"size": (128, 96), "options": {"crf": "1"}}


@pytest.mark.parametrize(("whole", "fields"), [(WHOLE, FIELDS), (H264_WHOLE, H264)], ids=["mpeg2", "h264"])
def test_fields_that_come_later_are_found(tmp_path: Path, whole: dict, fields: dict) -> None:
    reader = VideoReader(parts(tmp_path, whole, fields, whole))
    assert not reader.info.interlaced
    frames = list(reader)
    assert len(frames) == 24 and any("8 frames of the source are interlaced" in notice for notice in reader.notices)
    assert all(comb(frame.rgb) > 120 for frame in (*frames[:8], *frames[16:]))  # as they were made
    assert all(comb(frame.rgb) < 80 for frame in frames[9:15])
    for start in (7, 8, 9, 12, 16):
        again = list(reader.frames(start))
        assert all(np.array_equal(a.rgb, b.rgb) for a, b in zip(again, frames[start:], strict=True))
    first = VideoReader(parts(tmp_path, fields, whole))
    assert first.info.interlaced and any("interlaced" in notice for notice in first.notices)


def test_frames_without_fields_pass_untouched(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=6, image=combed, size=(128, 96))
    with av.open(str(source)) as container:
        plain = [[plane.copy() for plane in planes(frame)] for frame in container.decode(video=0)]
    for frame, expected in zip(VideoReader(source), plain, strict=True):
        assert frame.stored is not None
        assert all(np.array_equal(a, b) for a, b in zip(planes(frame.stored.image), expected, strict=True))


BARS = np.array([(255, 255, 255), (191, 0, 0), (0, 191, 0), (0, 0, 191)], np.uint8)


def bars(index: int, width: int, height: int) -> np.ndarray:
    return np.repeat(BARS, width // 4, 0)[None].repeat(height, 0)


def middles(rgb: np.ndarray) -> np.ndarray:
    return rgb[rgb.shape[0] // 2, rgb.shape[1] // 8 :: rgb.shape[1] // 4].astype(int)


@pytest.mark.parametrize(
    "second", [ColorTags(SMPTE170M, SMPTE170M, SMPTE170M, LIMITED), ColorTags(BT709, BT709, BT709, FULL)]
)
def test_colours_are_read_by_each_frame_s_own_tags(tmp_path: Path, second: ColorTags) -> None:
    data = b""
    for number, tags in enumerate((ColorTags(BT709, BT709, BT709, LIMITED), second)):
        part = tmp_path / f"{number}.ts"
        data += make_clip(part, frames=5, size=(128, 64), image=bars, tags=tags, options={"crf": "1"}).read_bytes()
    (tmp_path / "in.ts").write_bytes(data)
    with VideoReader(tmp_path / "in.ts") as reader, VideoWriter(tmp_path / "out.mp4", reader.info) as writer:
        for frame in reader:
            assert np.abs(middles(frame.rgb) - BARS).max() <= 3
            writer.write(frame)
    assert any("5 frames have other colour tags" in notice for notice in reader.notices)
    for frame in VideoReader(tmp_path / "out.mp4"):
        assert np.abs(middles(frame.rgb) - BARS).max() <= 4


@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_colours_that_are_not_read_are_refused_by_name(tmp_path: Path, matrix: int) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=2, tags=ColorTags(matrix, BT709, BT709, LIMITED))
    with pytest.raises(InputError, match=UNHANDLED[matrix].split()[0]) as caught:
        probe(source)
    assert "BT.709" in caught.value.hint


def test_a_later_part_in_colours_that_are_not_read_is_refused(tmp_path: Path) -> None:
    tags = (ColorTags(BT709, BT709, BT709, LIMITED), ColorTags(8, BT709, BT709, LIMITED))
    pieces = [make_clip(tmp_path / f"{k}.ts", frames=4, tags=tag).read_bytes() for k, tag in enumerate(tags)]
    (tmp_path / "in.ts").write_bytes(b"".join(pieces))
    with pytest.raises(InputError, match="YCgCo"):
        list(VideoReader(tmp_path / "in.ts"))
    # What is RGB in its planes, or of no kind that H.273 defines, is no such thing.
    assert resolve(ColorTags(3), 64, 48, "yuv420p").matrix == SMPTE170M
    rgb = make_clip(tmp_path / "rgb.mkv", frames=2, codec="ffv1", pix_fmt="bgra")
    assert len(list(VideoReader(rgb))) == 2


def test_hdr_that_begins_later(tmp_path: Path) -> None:
    deep = {"pix_fmt": "yuv420p10le", "frames": 4, "size": (128, 64), "image": bars, "options": {"crf": "1"}}
    tags = (ColorTags(9, 9, 14, LIMITED), ColorTags(9, 9, PQ, LIMITED))
    pieces = [make_clip(tmp_path / f"{k}.ts", tags=tag, **deep).read_bytes() for k, tag in enumerate(tags)]
    (tmp_path / "in.ts").write_bytes(b"".join(pieces))
    reader = VideoReader(tmp_path / "in.ts")
    frames = list(reader)
    assert [frame.stored is None for frame in frames] == [False] * 4 + [True] * 4  # tone-mapped
    assert any("4 frames have other colour tags" in notice for notice in reader.notices)


# ---- grey stays grey -------------------------------------------------------------------------------------------------


def grey(index: int, width: int, height: int) -> np.ndarray:
    return np.repeat(np.linspace(20, 230, width).astype(np.uint8)[None, :, None], height, 0).repeat(3, 2)


def painted(source: Path, out: Path, colour: tuple[int, int, int], **encode: object) -> list[str]:
    """As a render writes it: a coloured patch drawn into every frame."""
    with VideoReader(source) as reader:
        info = reader.info
        cut, size = Cut(out.with_suffix(".kept"), "key", info.frames, 0), (info.width, info.height)
        with SegmentedWriter(str(out), info, EncodeConfig(**encode), size, {}, cut) as writer:  # type: ignore[arg-type]
            for frame in reader:
                rgb = frame.rgb.copy()
                rgb[20:60, 20:90] = colour
                writer.write(replace(frame, rgb=rgb))
    return writer.notices


def chroma(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate(
            [np.stack([p.ravel() for p in planes(frame)[1:3]]) for frame in container.decode(video=0)], axis=1
        )


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p", "gray", "yuv420p10le"])
def test_what_is_drawn_into_a_grey_clip_is_grey(tmp_path: Path, pix_fmt: str) -> None:
    codec = {"gray": "ffv1", "yuvj420p": "mjpeg"}.get(pix_fmt, "libx264")
    suffix = {"gray": ".mkv", "yuvj420p": ".avi"}.get(pix_fmt, ".mp4")
    source = make_clip(
        tmp_path / f"in{suffix}", frames=3, size=(128, 96), image=grey, codec=codec, pix_fmt=pix_fmt,
        options={"qmin": "1", "qmax": "1"} if codec == "mjpeg" else {},
        tags=ColorTags(SMPTE170M, range=FULL) if codec == "mjpeg" else None,
    )  # fmt: skip
    painted(source, tmp_path / "out.mp4", (220, 140, 110))
    neutral = 512 if "10" in pix_fmt else 128
    assert np.abs(chroma(tmp_path / "out.mp4").astype(int) - neutral).max() <= 1 * neutral // 128
    for frame in VideoReader(tmp_path / "out.mp4"):
        light = 0.299 * 220 + 0.587 * 140 + 0.114 * 110
        assert abs(int(frame.rgb[40, 50, 1]) - light) < 4  # as bright as what was drawn
        assert np.abs(frame.rgb[80].astype(int) - grey(0, 128, 96)[80]).max() < 8


def test_a_grey_picture_too_and_colour_where_there_is_some(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_clip(tmp_path / "a.mkv", frames=2, size=(128, 96), image=grey, codec="ffv1", pix_fmt="bgra")
    painted(tmp_path / "a.mkv", tmp_path / "o.mkv", (220, 140, 110), codec="ffv1")
    assert all(np.ptp(frame.rgb.astype(int), axis=-1).max() <= 2 for frame in VideoReader(tmp_path / "o.mkv"))

    def almost(index: int, width: int, height: int) -> np.ndarray:
        rgb = grey(index, width, height).copy()
        rgb[-8:, -8:] = (200, 40, 40)  # a small thing in colour: no grey clip
        return rgb

    source = make_clip(tmp_path / "b.mp4", frames=2, size=(128, 96), image=almost, options={"crf": "1"})
    painted(source, tmp_path / "c.mp4", (220, 140, 110))
    rgb = next(iter(VideoReader(tmp_path / "c.mp4"))).rgb
    assert np.abs(rgb[40, 50].astype(int) - (220, 140, 110)).max() <= 6


def test_an_untouched_grey_clip_keeps_its_chroma(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=3, image=grey, size=(128, 96))
    assert np.all(chroma(source) == 128)
    cut = Cut(tmp_path / "kept", "key", 3, 0)
    info, frames = probe(source), list(VideoReader(source))
    with SegmentedWriter(str(tmp_path / "o.mp4"), info, EncodeConfig(), (128, 96), {}, cut) as writer:
        for frame in frames:
            writer.write(frame)
    assert np.all(chroma(tmp_path / "o.mp4") == 128)
