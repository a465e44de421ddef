"""How long the last frame is shown: nothing follows it that would say so."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from clips import make_clip, numbered, vfr_pts

from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter

REORDERED = {"preset": "medium", "x264-params": "bframes=3:scenecut=0"}
HELD = 700  # milliseconds


def held(path: Path, reordered: bool) -> Path:
    """Twelve images, the last of which is held, as at the end of a recording of a screen."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options=REORDERED if reordered else {"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        packets = []
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            frame.pts, frame.time_base = 40 * index, Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet in packets:
            packet.duration = 40
        shown = max(packets, key=lambda packet: packet.pts)
        shown.duration = HELD
        if path.suffix == ".mp4":  # which measures in the order of decoding
            packets[-1].duration = 440 + HELD - (packets[-1].dts - packets[0].dts)
        for packet in packets:
            out.mux(packet)
    return path


def last_of(path: Path) -> Fraction:
    """Seconds of the last frame."""
    reader = VideoReader(path)
    return int(reader.timeline.durations[-1]) * reader.info.time_base


def rewritten(source: Path, out: Path, codec: str) -> Fraction:
    config = EncodeConfig(codec, preset="medium")
    with VideoReader(source) as reader, VideoWriter(out, reader.info, config) as writer:
        for frame in reader:
            writer.write(frame)
    return last_of(out)


OUTPUTS = [("mp4", "libx264"), ("mov", "libx265"), ("mkv", "libx264"), ("mkv", "ffv1"), ("webm", "libvpx-vp9")]


@pytest.mark.parametrize(("suffix", "codec"), OUTPUTS)
@pytest.mark.parametrize("name", ["plain.mp4", "reordered.mp4", "plain.mkv", "reordered.mkv"])
def test_a_frame_that_is_held_at_the_end(tmp_path: Path, name: str, suffix: str, codec: str) -> None:
    source = held(tmp_path / name, name.startswith("reordered"))
    assert last_of(source) == Fraction(HELD, 1000)
    assert rewritten(source, tmp_path / f"out.{suffix}", codec) == Fraction(HELD, 1000)
    with av.open(str(tmp_path / f"out.{suffix}")) as container:
        assert container.duration == 1_140_000


@pytest.mark.parametrize(("suffix", "codec"), OUTPUTS)
@pytest.mark.parametrize("options", [{"preset": "ultrafast"}, REORDERED], ids=["plain", "reordered"])
@pytest.mark.parametrize("kind", ["ntsc", "vfr"])
def test_odd_rates(tmp_path: Path, kind: str, options: dict, suffix: str, codec: str) -> None:
    timing = (
        {"rate": Fraction(30000, 1001), "frames": 10}
        if kind == "ntsc"
        else {"pts": vfr_pts(12), "time_base": Fraction(1, 12800)}
    )
    source = make_clip(tmp_path / "in.mp4", options=options, **timing)
    meant = Fraction(1001, 30000) if kind == "ntsc" else Fraction(512, 12800)
    assert last_of(source) == meant  # though an MP4's header counts milliseconds
    found = rewritten(source, tmp_path / f"out.{suffix}", codec)
    if suffix in ("mp4", "mov"):
        assert found == meant
    else:
        assert abs(found - meant) <= Fraction(1, 1000)
