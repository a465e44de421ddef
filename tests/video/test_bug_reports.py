"""What public bug reports of such programs are about, as small files; and the files themselves where they are here."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import pytest
from clips import make_clip, number_of
from odd_media import count, renamed
from running import SHARED

from sg3cli.errors import UsageError
from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter
from sg3cli.video.probe import probe

FAULTS = SHARED / "faults"
# file -> output's suffix, images, packets of sound (None: refused by name), seconds
RIGHT = {
    "ts_concat_v.ts": (".mp4", 20, 0, 0.8),
    "ts_concat.ts": (".mp4", 20, 40, 0.8267),
    "fps4000.mkv": (".mp4", 40, 0, 0.01),
    "ts_lateaudio.ts": (".mp4", 200, 31, 8.0),
    "ts_26h.ts": (".mp4", 10, 20, 0.4),
    "cam.avi": (".mp4", 6, 12, 0.24),
    "dslr.mov": (".mp4", 6, 12, 0.24),
    "ntsc.dv": (".mp4", 2, 0, 0.0667),
    "a.wmv": (".mkv", 18, 15, 0.643),
    "alaw.avi": (".mkv", 5, 10, 0.2),
    "preview_first.mp4": (".mp4", 10, 20, 0.4),
    "ts_prog_int.ts": (".mp4", 12, 0, 0.6533),
    "bw.mp4": (".mp4", 4, 0, 0.16),
    "edits2.mp4": (".mp4", 8, 0, 0.32),
    "apac.mov": (".mp4", 10, 20, 0.4),
}


def write(source: Path, out: Path) -> list[str]:
    config = EncodeConfig(preset="ultrafast")
    with VideoReader(source) as reader:
        VideoWriter(out, reader.info, config).rehearse()
        with VideoWriter(out, reader.info, config) as writer:
            for frame in reader:
                writer.write(frame)
    return reader.notices + writer.notices


@pytest.mark.parametrize("name", RIGHT)
def test_the_file_of_the_report(tmp_path: Path, name: str) -> None:
    if not (FAULTS / name).is_file():
        pytest.skip("the files of the reports are not here")
    suffix, frames, packets, seconds = RIGHT[name]
    out = tmp_path / f"out{suffix}"
    write(FAULTS / name, out)
    found = count(out)
    assert (found["video"], found["frames"]) == (frames, frames)
    assert found.get("audio", 0) == packets or name == "preview_first.mp4"
    assert probe(out).duration == pytest.approx(seconds, abs=2e-3)


def box(data: bytes, *path: bytes) -> tuple[int, list[int]]:
    """Where the box at the end of this path begins, and where those around it do."""
    at, end, around = 0, len(data), []
    for kind in path:
        while data[at + 4 : at + 8] != kind:
            at += int.from_bytes(data[at : at + 4], "big")
            assert at < end
        around.append(at)
        end = at + int.from_bytes(data[at : at + 4], "big")
        at += 8
    return around[-1], around[:-1]


def with_edits(path: Path, *edits: tuple[int, int], frames: int = 16, **clip) -> Path:
    """A clip whose edit list shows pieces (first image, how many) one after the other."""
    options = {"preset": "medium", "x264-params": "keyint=4:bframes=2:scenecut=0:open-gop=0"}
    data = make_clip(path, frames=frames, options=options, **clip).read_bytes()
    at, around = box(data, b"moov", b"trak", b"edts", b"elst")
    size = int.from_bytes(data[at : at + 4], "big")
    start = struct.unpack_from(">i", data, at + 20)[0]  # where its first image is in the media
    rows = b"".join(struct.pack(">IiI", 40 * n, start + 512 * first, 1 << 16) for first, n in edits)
    new = struct.pack(">I4sII", 16 + len(rows), b"elst", 0, len(edits)) + rows
    result = bytearray(data[:at] + new + data[at + size :])
    for place in around:  # the index comes last, so that nothing else moves
        struct.pack_into(">I", result, place, int.from_bytes(result[place : place + 4], "big") + len(new) - size)
    path.write_bytes(result)
    return path


@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        (((0, 4), (8, 4)), [0, 1, 2, 3, 8, 9, 10, 11]),
        (((4, 4), (12, 4)), [4, 5, 6, 7, 12, 13, 14, 15]),
        (((2, 3), (9, 2)), [2, 3, 4, 9, 10]),
        (((8, 4), (0, 4)), [8, 9, 10, 11, 0, 1, 2, 3]),  # later ones first
    ],
)
def test_edit_lists_of_several_pieces(tmp_path: Path, edits: tuple, shown: list[int]) -> None:
    source = with_edits(tmp_path / "in.mp4", *edits)
    with av.open(str(source)) as container:
        plain = [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    reader = VideoReader(source)
    numbers = [number_of(frame.rgb) for frame in reader]
    assert numbers == plain == shown
    assert reader.pts.tolist() == [512 * k for k in range(len(shown))]
    assert not any("start again" in notice for notice in write(source, tmp_path / "out.mp4"))
    assert count(tmp_path / "out.mp4")["frames"] == len(shown)


def test_sound_beside_an_edit_list_of_pieces_is_not_moved(tmp_path: Path) -> None:
    source = with_edits(tmp_path / "in.mp4", (2, 3), (9, 2), audio=["aac"])
    with av.open(str(source)) as container:
        before = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
    write(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        after = [float(p.pts * p.time_base) for p in container.demux(audio=0) if p.size]
    assert after == pytest.approx(before, abs=1e-3) and len(after) > 20


@pytest.mark.parametrize("suffix", [".mov", ".mp4"])
def test_a_track_of_a_codec_that_nobody_knows(tmp_path: Path, suffix: str) -> None:
    source = make_clip(tmp_path / f"in{suffix}", audio=["aac", "libmp3lame" if suffix == ".mp4" else "alac"])
    with av.open(str(source)) as container:
        packets = sum(bool(packet.size) for packet in container.demux(audio=0))
    data = source.read_bytes()
    second = data.index(b"alac") if suffix == ".mov" else data.rindex(b"mp4a")
    data = data[:second] + b"apac" + data[second + 4 :]
    source.write_bytes(data)
    notices = write(source, tmp_path / "out.mp4")
    assert count(tmp_path / "out.mp4")["audio"] in (packets, packets + 21)
    if not probe(source).audio[1:]:
        assert any("stream 2 (audio) of the source cannot be read and is left out" in notice for notice in notices)


def test_both_tracks_of_unknown_codecs(tmp_path: Path) -> None:
    source = renamed(make_clip(tmp_path / "in.mov", audio=["aac"]), (b"mp4a", b"apac"))
    notices = write(source, tmp_path / "out.mp4")
    assert count(tmp_path / "out.mp4")["frames"] == 12
    assert "audio" not in count(tmp_path / "out.mp4") or not notices


def test_a_hint_does_not_lead_in_a_circle(tmp_path: Path) -> None:
    """What a refusal names is tried: following it ends well."""
    from odd_media import with_sound

    source = with_sound(tmp_path / "in.avi", "adpcm_ms", "mono", 22050)
    with pytest.raises(UsageError) as caught:
        write(source, tmp_path / "out.mp4")
    named = next(word for word in caught.value.hint.replace(",", " ").split() if word.startswith("."))
    write(source, tmp_path / f"out{named}")
