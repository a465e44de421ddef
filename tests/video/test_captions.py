"""Closed captions go from picture to picture; what cannot carry them says so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip

from sg3cli.settings import EncodeConfig
from sg3cli.video import Cut, SegmentedWriter, VideoReader, VideoWriter, frame_pts
from sg3cli.video.captions import captions_of, with_captions

REORDERED = {"preset": "medium", "x264-params": "keyint=6:bframes=2:scenecut=0"}


def words(index: int, count: int = 3) -> bytes:
    """Captions of a picture; some bytes are zero, as the bytes that start a unit are."""
    return b"".join(bytes([0xFC, 0x80 | index, k]) for k in range(count - 1)) + b"\xfc\x00\x00"


def captioned(path: Path, codec: str = "libx264", only: tuple[int, ...] = tuple(range(12)), **clip) -> Path:
    """A clip whose pictures (in the order of their times) have captions."""
    plain = make_clip(path.with_name("plain.ts"), codec=codec, **({"options": REORDERED} | clip))
    order = {pts: number for number, pts in enumerate(sorted(frame_pts(plain)))}
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                number = order[packet.pts]
                data = bytes(packet)
                data = with_captions(data, words(number), codec != "libx264") if number in only else data
                made = av.Packet(data)
                made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
                made.is_keyframe, made.stream = packet.is_keyframe, stream
                out.mux(made)
    return path


def read(path: Path) -> list[bytes]:
    """As FFmpeg reads them."""
    with av.open(str(path)) as container:
        return [captions_of(frame) for frame in container.decode(video=0)]


HEVC = {"codec": "libx265", "options": {"x265-params": "log-level=none:bframes=2"}}


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize("encode", ["libx264", "libx265"])
@pytest.mark.parametrize("source", [{}, HEVC], ids=["h264", "hevc"])
def test_captions_are_carried_over(tmp_path: Path, source: dict, encode: str, suffix: str) -> None:
    path = captioned(tmp_path / "in.ts", **source)
    assert read(path) == [words(k) for k in range(12)]
    out = tmp_path / f"out{suffix}"
    with VideoReader(path) as reader, VideoWriter(out, reader.info, EncodeConfig(encode, preset="medium")) as writer:
        for frame in reader:
            rgb = frame.rgb.copy()
            rgb[20:30, 20:30] = 255
            writer.write(replace(frame, rgb=rgb))
    assert read(out) == [words(k) for k in range(12)]


def test_some_pictures_have_them_and_pieces_keep_them(tmp_path: Path) -> None:
    path = captioned(tmp_path / "in.ts", only=(0, 5, 6, 11), frames=24)
    cut = Cut(tmp_path / "kept", "key", 24, 6)
    with VideoReader(path) as reader:
        with SegmentedWriter(str(tmp_path / "o.mp4"), reader.info, EncodeConfig(), (64, 48), {}, cut) as writer:
            for frame in reader:
                writer.write(frame)
        starts = [frame.captions for frame in reader.frames(5)]
    expected = [words(k) if k in (0, 5, 6, 11) else b"" for k in range(24)]
    assert read(tmp_path / "o.mp4") == expected and starts == expected[5:]


def test_turned_and_ten_bit_pictures_keep_them(tmp_path: Path) -> None:
    path = captioned(tmp_path / "in.ts", pix_fmt="yuv420p10le")
    with VideoReader(path) as reader, VideoWriter(tmp_path / "out.mp4", reader.info) as writer:
        for frame in reader:
            writer.write(frame)
    assert read(tmp_path / "out.mp4") == [words(k) for k in range(12)]


def test_an_encoder_that_cannot_carry_them_says_so(tmp_path: Path) -> None:
    path = captioned(tmp_path / "in.ts")
    with VideoReader(path) as reader, VideoWriter(tmp_path / "o.mkv", reader.info, EncodeConfig("ffv1")) as writer:
        for frame in reader:
            writer.write(frame)
    assert sum("closed captions are left out" in notice for notice in writer.notices) == 1
    plain = VideoReader(make_clip(tmp_path / "plain.mp4"))
    assert not any(frame.captions for frame in plain)


@pytest.mark.parametrize("hevc", [False, True])
def test_any_bytes_survive(tmp_path: Path, hevc: bool) -> None:
    rng = np.random.default_rng(0)
    source = captioned(tmp_path / "in.ts", only=(), **(HEVC if hevc else {}))
    with av.open(str(source)) as container:
        context = av.CodecContext.create("hevc" if hevc else "h264", "r")
        first = next(bytes(packet) for packet in container.demux(video=0))
    for count in (1, 2, 30, 31):
        data = rng.choice(np.array([0, 0, 0, 1, 2, 3, 255], np.uint8), 3 * count).tobytes()
        context = av.CodecContext.create("hevc" if hevc else "h264", "r")
        frames = [*context.decode(av.Packet(with_captions(first, data, hevc))), *context.decode(None)]
        assert captions_of(frames[0]) == data
