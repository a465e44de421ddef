"""How a picture is to be shown goes from picture to picture, or it is said that it does not."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip

from sg3cli.settings import EncodeConfig
from sg3cli.video import Cut, SegmentedWriter, VideoReader, VideoWriter, frame_pts
from sg3cli.video.info import side_data
from sg3cli.video.picture_messages import with_messages
from sg3cli.video.presentation import (
    PACKINGS,
    RIGHT_FIRST,
    active_format_message,
    active_format_of,
    packing_message,
    projection_of,
    stereo_of,
)

REORDERED = {"preset": "medium", "x264-params": "keyint=6:bframes=2:scenecut=0"}
HEVC = {"codec": "libx265", "options": {"x265-params": "log-level=none:bframes=2:keyint=6"}}


def formatted(path: Path, formats: tuple[int | None, ...], **clip) -> Path:
    """A clip whose pictures, in the order of their times, have these active formats."""
    clip = {"options": REORDERED} | clip
    plain = make_clip(path.with_name("plain.ts"), frames=len(formats), **clip)
    order = {pts: number for number, pts in enumerate(sorted(frame_pts(plain)))}
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                value = formats[order[packet.pts]]
                messages = [] if value is None else [active_format_message(value)]
                made = av.Packet(with_messages(bytes(packet), messages, "codec" in clip))
                made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
                made.is_keyframe, made.stream = packet.is_keyframe, stream
                out.mux(made)
    return path


def stereo(path: Path, packing: int, **clip) -> Path:
    """A clip that x264 says holds two eyes' images; `packing` is its number of their arrangement."""
    return make_clip(path, options={"preset": "medium", "x264-params": f"frame-packing={packing}:keyint=5"}, **clip)


def spherical(path: Path) -> Path:
    """An MP4 whose sample entry says that its picture is a sphere."""
    data = bytearray(make_clip(path).read_bytes())
    inner = struct.pack(">I4sI", 13, b"svhd", 0) + b"\0"
    sphere = struct.pack(">I4sI4I", 28, b"equi", 0, 0, 0, 0, 0)
    pose = struct.pack(">I4sI3i", 24, b"prhd", 0, 0, 0, 0)
    proj = struct.pack(">I4s", 8 + len(pose + sphere), b"proj") + pose + sphere
    box = struct.pack(">I4s", 8 + len(inner + proj), b"sv3d") + inner + proj
    entry = data.index(b"avc1", data.index(b"stsd")) - 4
    end = entry + int.from_bytes(data[entry : entry + 4], "big")
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = data.rindex(name, 0, entry + 8) - 4
        struct.pack_into(">I", data, at, int.from_bytes(data[at : at + 4], "big") + len(box))
    path.write_bytes(bytes(data[:end]) + box + bytes(data[end:]))
    return path


def read(path: Path, what) -> list:
    """As FFmpeg reads it."""
    with av.open(str(path)) as container:
        return [what(side_data(frame)) for frame in container.decode(video=0)]


def write(source: Path, out: Path, codec: str = "libx264", size: tuple[int, int] | None = None) -> list[str]:
    with (
        VideoReader(source) as reader,
        VideoWriter(out, reader.info, EncodeConfig(codec, preset="medium"), size) as writer,
    ):
        for frame in reader:
            writer.write(replace(frame, rgb=np.zeros((size[1], size[0], 3), np.uint8)) if size else frame)
    return reader.notices + writer.notices


FORMATS = (8, 8, 10, 10, None, 9, 0, 15, 8, None, 8, 11)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("encode", ["libx264", "libx265"])
@pytest.mark.parametrize("source", [{}, HEVC], ids=["h264", "hevc"])
def test_the_active_format_of_each_picture_is_carried_over(
    tmp_path: Path, source: dict, encode: str, suffix: str
) -> None:
    path = formatted(tmp_path / "in.ts", FORMATS, **source)
    assert read(path, active_format_of) == [*FORMATS]
    notices = write(path, tmp_path / f"out{suffix}", encode)
    assert read(tmp_path / f"out{suffix}", active_format_of) == [*FORMATS] and not notices


def test_the_active_format_of_mpeg2(tmp_path: Path) -> None:
    """Its pictures say it in user data, which begins with the same word."""
    plain = make_clip(tmp_path / "plain.mpg", codec="mpeg2video", options={"bf": "0", "b": "9M"})
    data = bytes.fromhex("000001b2") + b"DTG1" + bytes([0x41, 0xFA])
    with av.open(str(plain)) as source, av.open(str(tmp_path / "in.ts"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                coded = bytes(packet)
                at = coded.index(b"\0\0\1\1")  # the first slice
                made = av.Packet(coded[:at] + data + coded[at:])
                made.pts, made.dts, made.time_base, made.stream = packet.pts, packet.dts, packet.time_base, stream
                out.mux(made)
    write(tmp_path / "in.ts", tmp_path / "out.mp4")
    assert read(tmp_path / "out.mp4", active_format_of) == [10] * 12


@pytest.mark.parametrize("kind", ["encoder", "size"])
def test_an_output_that_cannot_say_the_active_format(tmp_path: Path, kind: str) -> None:
    path = formatted(tmp_path / "in.ts", (8,) * 6)
    size = (96, 48) if kind == "size" else None
    notices = write(path, tmp_path / "out.mkv", "ffv1" if kind == "encoder" else "libx264", size)
    assert sum("active format (AFD) is left out" in notice for notice in notices) == 1


@pytest.mark.parametrize(
    ("packing", "name", "encode"),
    [
        (0, "as a checkerboard", "libx264"),
        (1, "in turn by columns", "libx264"),
        (2, "in turn by rows", "libx264"),
        (3, "side by side", "libx264"),
        (3, "side by side", "libx265"),
        (4, "one above the other", "libx264"),
        (4, "one above the other", "libx265"),
    ],
)
def test_stereo_is_carried_over(tmp_path: Path, packing: int, name: str, encode: str) -> None:
    source = stereo(tmp_path / "in.mp4", packing)
    assert VideoReader(source).info.stereo == name
    assert not write(source, tmp_path / "out.mp4", encode)
    assert read(tmp_path / "out.mp4", stereo_of) == [name] * 12


@pytest.mark.parametrize("hevc", [False, True])
@pytest.mark.parametrize("right", ["", RIGHT_FIRST])
@pytest.mark.parametrize("name", PACKINGS)
def test_every_arrangement_is_read_as_it_was_meant(tmp_path: Path, name: str, right: str, hevc: bool) -> None:
    with av.open(str(make_clip(tmp_path / "in.ts", frames=3, **(HEVC if hevc else {})))) as container:
        coded = next(bytes(packet) for packet in container.demux(video=0))
    message = packing_message(name + right, hevc)
    assert (message is None) == (hevc and "side" not in name and "above" not in name)
    if message is None:
        return
    context = av.CodecContext.create("hevc" if hevc else "h264", "r")
    frames = [*context.decode(av.Packet(with_messages(coded, [message], hevc))), *context.decode(None)]
    assert stereo_of(side_data(frames[0])) == name + right


def test_pieces_keep_stereo(tmp_path: Path) -> None:
    source = stereo(tmp_path / "in.mp4", 3, frames=24)
    with VideoReader(source) as reader:
        cut = Cut(tmp_path / "kept", "key", 24, 6)
        with SegmentedWriter(str(tmp_path / "o.mp4"), reader.info, EncodeConfig(), (64, 48), {}, cut) as writer:
            for frame in reader:
                writer.write(frame)
    assert read(tmp_path / "o.mp4", stereo_of) == ["side by side"] * 24


@pytest.mark.parametrize(
    ("packing", "codec", "turned", "why"),
    [
        (3, "libvpx-vp9", 0, "libvpx-vp9 cannot carry it"),
        (5, "libx264", 0, "there is no message for it"),
        (1, "libx265", 0, "there is no message for it"),
        (3, "libx264", 90, "the output's picture is laid out otherwise"),
    ],
)
def test_stereo_that_is_left_out_is_announced(tmp_path: Path, packing: int, codec: str, turned: int, why: str) -> None:
    source = stereo(tmp_path / "in.mp4", packing, rotation=turned)
    notices = write(source, tmp_path / "out.mkv", codec)
    assert sum("stereo 3D" in notice and why in notice for notice in notices) == 1
    assert read(tmp_path / "out.mkv", stereo_of) == [""] * 12


def test_stereo_that_begins_later_is_announced(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.ts", frames=8)
    stereo(tmp_path / "b.ts", 3, frames=8)  # which says it at both of its key frames
    (tmp_path / "in.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    notices = write(tmp_path / "in.ts", tmp_path / "out.mp4")
    assert any("2 frames are said to be stereo 3D or spherical otherwise" in notice for notice in notices)


def test_a_sphere_is_announced(tmp_path: Path) -> None:
    source = spherical(tmp_path / "in.mp4")
    assert read(source, projection_of) == ["equirectangular"] * 12
    notices = write(source, tmp_path / "out.mp4")
    assert any("spherical (equirectangular); the output does not say so" in notice for notice in notices)
    assert not write(make_clip(tmp_path / "flat.mp4"), tmp_path / "flat_out.mp4")
