"""A file that does not hold what was written does not get its name."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from clips import make_clip

from sg3cli.errors import InputError
from sg3cli.settings import EncodeConfig
from sg3cli.video import Cut, SegmentedWriter, VideoReader, VideoWriter
from sg3cli.video.read_back import Written, check

FAST = EncodeConfig(preset="medium")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", frames=40, audio=["aac"])


def write(source: Path, out: Path, drop: Any = None) -> None:
    with VideoReader(source) as reader, VideoWriter(out, reader.info, FAST) as writer:
        if drop is not None:
            mux = writer._mux
            writer._mux = lambda packet, *copied: drop(packet) or mux(packet, *copied)  # type: ignore[method-assign]
        for frame in reader:
            writer.write(frame)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize(("number", "kind"), [(0, "video"), (20, "video"), (39, "video"), (5, "audio")])
def test_a_packet_that_a_muxer_drops_is_found(
    source: Path, tmp_path: Path, suffix: str, number: int, kind: str
) -> None:
    out, seen = tmp_path / f"out{suffix}", dict.fromkeys(("video", "audio"), -1)
    out.write_bytes(b"earlier")

    def drop(packet: Any) -> bool:
        seen[packet.stream.type] += 1
        return packet.stream.type == kind and seen[kind] == number

    with pytest.raises(InputError, match=rf"it holds \d+ of \d+ packets of {kind}") as caught:
        write(source, out, drop)
    assert "untouched" in caught.value.hint and out.read_bytes() == b"earlier"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", f"out{suffix}"]


def test_times_that_a_muxer_moves_are_found(source: Path, tmp_path: Path) -> None:
    def late(packet: Any) -> bool:
        if packet.stream.type == "video":
            packet.pts, packet.dts = packet.pts + 12800, packet.dts + 12800
        return False

    with pytest.raises(InputError, match=r"shown from 1.000 to 2.560 s and not from 0.000 to 1.560 s"):
        write(source, tmp_path / "out.mp4", late)
    assert not (tmp_path / "out.mp4").exists()


def test_what_cannot_be_decoded_or_read_is_found(source: Path, tmp_path: Path) -> None:
    write(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        rows = [(p.pts, p.duration) for p in container.demux(video=0) if p.size]
    whole = Written(Fraction(1, 12800), 40, 0, 39 * 512, 40 * 512)
    assert len(rows) == 40
    check(tmp_path / "out.mp4", whole, [], "x")
    for wrong, said in (
        (replace(whole, packets=41), "40 of 41 packets of video"),
        (replace(whole, first=512), "not from 0.040"),
        (replace(whole, end=60 * 512), "it ends at 1.600 s and not at 2.400 s"),
    ):
        with pytest.raises(InputError, match=said):
            check(tmp_path / "out.mp4", wrong, [], "x")
    data = bytearray((tmp_path / "out.mp4").read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = bytes(len(data) - start)
    (tmp_path / "zeros.mp4").write_bytes(data)
    with pytest.raises(InputError, match=r"cannot be read again|can be decoded"):
        check(tmp_path / "zeros.mp4", whole, [], "x")
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read again"):
        check(tmp_path / "no.mp4", whole, [], "x")


def test_a_video_of_pieces_is_read_back_too(source: Path, tmp_path: Path) -> None:
    cut = Cut(tmp_path / "kept", "key", 40, 10)
    with VideoReader(source) as reader:
        writer = SegmentedWriter(str(tmp_path / "out.mp4"), reader.info, FAST, (64, 48), {}, cut)
        mux, seen = writer._video._mux, []

        def lossy(packet: Any, *copied: Any) -> None:
            seen.append(packet)
            if len(seen) != 30:
                mux(packet, *copied)

        writer._video._mux = lossy  # type: ignore[method-assign]
        with pytest.raises(InputError, match="was written and is not what was meant"), writer:
            for frame in reader:
                writer.write(frame)
    assert not (tmp_path / "out.mp4").exists() and len(list(cut.folder.glob("*.bin"))) == 4  # the work is kept


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize(
    "steps", [(1, 1, 1, 1, 3, 3, 3, 3), (3, 3, 3, 3, 1, 1, 1, 1), (1,) * 7 + (20,), (20,) + (1,) * 7]
)
def test_images_of_unequal_lengths_all_fit_into_the_track(
    tmp_path: Path, suffix: str, codec: str, steps: tuple[int, ...]
) -> None:
    """MP4 says how long a track is by the order of decoding: the last image shown came to lie outside."""
    steps = steps * 2
    pts = [512 * sum(steps[:k]) for k in range(len(steps))]
    source = make_clip(tmp_path / "in.mkv", len(pts), pts=pts, time_base=Fraction(1, 12800), codec="ffv1")
    out = tmp_path / f"out{suffix}"
    with VideoReader(source) as reader, VideoWriter(out, reader.info, EncodeConfig(codec)) as writer:
        for frame in reader:
            writer.write(frame)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        times = sorted(packet.pts for packet in container.demux(stream) if packet.size)
        if suffix != ".mkv":
            end = (stream.start_time + stream.duration) * stream.time_base
            assert float(end) == pytest.approx(reader.info.duration, abs=2e-3) and times[-1] * stream.time_base < end
    with VideoReader(out) as again:
        assert len(again) == len(pts) and again.info.duration == pytest.approx(reader.info.duration, abs=2e-3)
