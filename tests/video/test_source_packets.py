"""Sound beside the video: copied where the container holds it, else refused before any work by its name."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import make_clip, number_of
from odd_media import count, empty_track, late_sound, raw_dv, renamed, timed, with_sound

from sg3cli.errors import InputError, UsageError
from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter, packet_digest
from sg3cli.video.probe import probe

VIDEO = {".mpg": "mpeg2video", ".flv": "flv1", ".mkv": "libx264"}


def write(source: Path, out: Path, **encode: str) -> list[str]:
    """Through reader and writer, as commands do it: rehearsed first."""
    config = EncodeConfig(**({"preset": "ultrafast"} | encode))
    out.unlink(missing_ok=True)
    with VideoReader(source) as reader:
        VideoWriter(out, reader.info, config).rehearse()
        assert not out.exists() and not list(out.parent.glob("*.part"))
        with VideoWriter(out, reader.info, config) as writer:
            assert [number_of(frame.rgb) for frame in reader if not writer.write(frame)] == list(range(len(reader)))
    return reader.notices + writer.notices


def samples(path: Path, track: int = 0) -> np.ndarray:
    """`[channels, N]` of a sound track, decoded and as shares of full scale."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp")
        frames = [piece for frame in container.decode(audio=track) for piece in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


# codec, container, layout, rate, containers that hold its packets
CODECS = [
    ("pcm_alaw", ".avi", "mono", 8000, {".mov", ".mkv"}),
    ("pcm_mulaw", ".avi", "mono", 8000, {".mov", ".mkv"}),
    ("wmav2", ".asf", "stereo", 44100, {".mkv"}),
    ("wmav1", ".asf", "mono", 22050, {".mkv"}),
    ("adpcm_ms", ".avi", "mono", 22050, {".mkv"}),
    ("adpcm_ima_wav", ".avi", "stereo", 22050, {".mkv"}),
    ("adpcm_ima_qt", ".mov", "mono", 22050, {".mov"}),
    ("adpcm_swf", ".flv", "mono", 22050, set()),
    ("nellymoser", ".flv", "mono", 22050, {".mov"}),
    ("pcm_u8", ".avi", "mono", 11025, {".mov", ".mkv"}),
    ("pcm_s16le", ".avi", "stereo", 44100, {".mp4", ".mov", ".mkv"}),
    ("pcm_s24le", ".avi", "5.1", 48000, {".mp4", ".mov", ".mkv"}),
    ("pcm_f32le", ".mkv", "stereo", 44100, {".mp4", ".mov", ".mkv"}),
    ("mp2", ".mpg", "stereo", 48000, {".mp4", ".mov", ".mkv"}),
    ("ac3", ".avi", "5.1", 48000, {".mp4", ".mov", ".mkv"}),
    ("libmp3lame", ".avi", "stereo", 44100, {".mp4", ".mov", ".mkv"}),
    ("alac", ".mov", "stereo", 44100, {".mp4", ".mov", ".mkv"}),
    ("flac", ".mkv", "stereo", 44100, {".mp4", ".mkv"}),
    ("libopus", ".mkv", "stereo", 48000, {".mp4", ".mkv"}),
]


@pytest.mark.parametrize(("codec", "suffix", "layout", "rate", "able"), CODECS, ids=[row[0] for row in CODECS])
def test_every_sound_is_copied_or_refused_with_a_way_that_works(
    tmp_path: Path, codec: str, suffix: str, layout: str, rate: int, able: set[str]
) -> None:
    source = with_sound(tmp_path / f"in{suffix}", codec, layout, rate, VIDEO.get(suffix, "mjpeg"))
    heard = samples(source)
    for other in (".mp4", ".mov", ".mkv"):
        out = tmp_path / f"out{other}"
        if other in able:
            write(source, out)
            if codec != "libopus":  # what of it is priming, MP4 says in another way
                assert samples(out).shape == heard.shape and np.abs(samples(out) - heard).max() < 1e-4
            if not codec.startswith("pcm"):  # plain samples are cut into other packets by MP4
                assert packet_digest(out) == packet_digest(source)
            continue
        with pytest.raises(UsageError, match=r"cannot hold the source's \w+ audio \(stream \d\)") as caught:
            write(source, out)
        named = {word.strip(",;") for word in caught.value.hint.split() if word.startswith(".")}
        assert named - {".webm"} == able and "--audio aac" in caught.value.hint  # as was tried above
        assert not out.exists()


@pytest.mark.parametrize("anew", ["aac", "flac"])
@pytest.mark.parametrize(("codec", "suffix", "layout", "rate"), [row[:4] for row in CODECS], ids=[r[0] for r in CODECS])
def test_sound_encoded_anew_is_the_same_sound(
    tmp_path: Path, codec: str, suffix: str, layout: str, rate: int, anew: str
) -> None:
    source = with_sound(tmp_path / f"in{suffix}", codec, layout, rate, VIDEO.get(suffix, "mjpeg"))
    notices = write(source, tmp_path / "out.mp4", audio=anew)
    assert any(f"is encoded anew as {anew}" in notice for notice in notices)
    before, after = samples(source), samples(tmp_path / "out.mp4")
    assert len(after) == len(before)
    if anew == "flac":
        assert after.shape == before.shape and np.abs(after - before).max() < 1e-4
    else:
        assert abs(after.shape[1] - before.shape[1]) < 2200
        energy = [np.square(heard[:3]).sum(1) for heard in (before, after)]
        assert np.allclose(energy[0], energy[1], rtol=0.2)


def test_sound_may_be_left_out_and_one_track_be_chosen(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", audio=["aac", "libopus", "libmp3lame"])
    notices = write(source, tmp_path / "none.mp4", audio="none")
    assert "audio" not in count(tmp_path / "none.mp4") and any("--audio none" in notice for notice in notices)
    notices = write(source, tmp_path / "one.mp4", audio_track="1")
    with av.open(str(tmp_path / "one.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["opus"]
    assert any("of 3 sound tracks number 1 is kept" in notice for notice in notices)
    write(source, tmp_path / "anew.mp4", audio="flac", audio_track="0")
    with av.open(str(tmp_path / "anew.mp4")) as container:
        assert [stream.codec_context.name for stream in container.streams.audio] == ["flac"]
        assert container.streams.audio[0].language == "eng"
    with pytest.raises(UsageError, match="no sound track 3: the source has 3 sound tracks"):
        write(source, tmp_path / "x.mp4", audio_track="3")
    with pytest.raises(UsageError, match="audio_track: unknown track 'best'"):
        EncodeConfig(audio_track="best")


def test_only_a_track_that_is_wanted_can_stand_in_the_way(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mkv", audio=["aac", "pcm_s32le"])
    with pytest.raises(UsageError, match="webm cannot hold the source's aac audio"):
        write(source, tmp_path / "x.webm", codec="libvpx-vp9", preset="medium")
    write(source, tmp_path / "y.mkv", audio_track="0")
    assert packet_digest(tmp_path / "y.mkv") == packet_digest(source)[: len(packet_digest(tmp_path / "y.mkv"))]


@pytest.mark.parametrize("channels", ["stereo", "5.1"])
def test_sound_without_a_layout_is_written_where_a_layout_is_asked_for(tmp_path: Path, channels: str) -> None:
    """AVI has none; a camera's MOV has lost it: its `chan` box is renamed."""
    avi = with_sound(tmp_path / "in.avi", "pcm_s16le", channels)
    mov = renamed(with_sound(tmp_path / "in.mov", "pcm_s16le", channels), (b"chan", b"free"))
    for source in (avi, mov):
        notices = write(source, tmp_path / "out.mp4")
        layout = samples(tmp_path / "out.mp4")
        assert np.array_equal(layout, samples(source)) and count(tmp_path / "out.mp4")["audio"] > 0
        with av.open(str(source)) as container:
            unnamed = "channels" in container.streams.audio[0].layout.name
        assert any("is assumed" in notice for notice in notices) == unnamed
    assert unnamed or channels == "5.1"


def test_sound_that_begins_late(tmp_path: Path) -> None:
    source = late_sound(tmp_path / "in.ts")
    packets = count(source)["audio"]
    assert packets > 40
    with VideoReader(source) as reader:
        for suffix in (".mp4", ".mkv"):
            VideoWriter(tmp_path / f"x{suffix}", reader.info).rehearse()
            with VideoWriter(tmp_path / f"out{suffix}", reader.info, EncodeConfig(preset="ultrafast")) as writer:
                for frame in reader:
                    writer.write(frame)
            assert count(tmp_path / f"out{suffix}") == {"video": 200, "audio": packets, "frames": 200}
            with av.open(str(tmp_path / f"out{suffix}")) as container:
                first = next(p for p in container.demux(audio=0) if p.size)
                assert float(first.pts * first.time_base) - float(reader.info.start_pts * reader.info.time_base) == (
                    pytest.approx(7, abs=0.05)
                )


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
def test_a_track_that_is_announced_and_empty_costs_no_other(tmp_path: Path, suffix: str) -> None:
    source = empty_track(tmp_path / f"in{suffix}")
    notices = write(source, tmp_path / "out.mp4")
    if probe(source).audio:
        assert any("stream 1 (audio) of the source is empty and is left out" in notice for notice in notices)
    assert "audio" not in count(tmp_path / "out.mp4")


def test_raw_dv_has_its_own_rate(tmp_path: Path) -> None:
    source = raw_dv(tmp_path / "in.dv", 3)
    assert probe(source).average_rate == Fraction(30000, 1001)
    for suffix in (".mp4", ".mov", ".mkv"):
        with VideoReader(source) as reader, VideoWriter(tmp_path / f"out{suffix}", reader.info) as writer:
            for frame in reader:
                writer.write(frame)
        assert probe(tmp_path / f"out{suffix}").frames == 3


def test_a_time_code_that_no_rate_fits_is_left_out(tmp_path: Path) -> None:
    source = timed(tmp_path / "in.mkv", range(6), Fraction(1, 1000), rate=1000)
    with VideoReader(source) as reader:
        reader.info.metadata["timecode"] = "00:00:01:00"
        with VideoWriter(tmp_path / "out.mp4", reader.info) as writer:
            for frame in reader:
                writer.write(frame)
    assert any("time code" in notice for notice in writer.notices) and count(tmp_path / "out.mp4")["frames"] == 6


def test_a_failing_packet_is_named_with_its_stream(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", audio=["aac"], frames=20)
    with (
        pytest.raises(
            InputError, match=r"the audio aac \(stream 1\) of .* cannot be written after \d+ packets"
        ) as caught,
        VideoReader(source) as reader,
        VideoWriter(tmp_path / "out.mp4", reader.info) as writer,
    ):
        until = writer._copied.until

        def spoilt(seconds: float | None) -> Any:
            for packet, copied in until(seconds):
                if copied.written == 5:
                    packet.dts = packet.pts = -(10**9)
                yield packet, copied

        writer._copied.until = spoilt  # type: ignore[method-assign]
        for frame in reader:
            writer.write(frame)
    assert "--audio aac" in caught.value.hint and not (tmp_path / "out.mp4").exists()


def test_what_a_container_refuses_is_refused_in_the_rehearsal(tmp_path: Path) -> None:
    """Header, first packets and trailer are tried: not only whether a codec is on a list."""
    source = make_clip(tmp_path / "in.mkv", audio=["aac"], frames=3)
    info = probe(source)
    writer = VideoWriter(tmp_path / "out.mp4", info)
    start = writer._start

    def failing() -> None:
        writer._container.container_options["movflags"] = "+nonsense"
        start()

    writer._start = failing  # type: ignore[method-assign]
    with pytest.raises((UsageError, InputError), match=r"does not take video, audio aac \(stream 1\) together"):
        writer.rehearse()
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_real_mp2_beside_sound_under_a_wave_header(tmp_path: Path) -> None:
    first = with_sound(tmp_path / "a.avi", "pcm_alaw", "mono", 8000)
    both = tmp_path / "both.avi"
    other = with_sound(tmp_path / "b.mpg", "mp2", "stereo", 48000, "mpeg2video")
    with av.open(str(first)) as one, av.open(str(other)) as two, av.open(str(both), "w") as out:
        copies = [out.add_stream_from_template(stream) for stream in (*one.streams, two.streams.audio[0])]
        for packet in one.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
        for number, packet in enumerate(p for p in two.demux(audio=0) if p.size):
            packet.pts = packet.dts = number * 2160  # of the 90 kHz that MPEG counts in
            packet.stream = copies[2]
            out.mux(packet)
    write(both, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [s.codec_context.name for s in container.streams.audio] == ["pcm_alaw", "mp2"]
    assert np.array_equal(samples(tmp_path / "out.mkv", 0), samples(first))
    assert packet_digest(tmp_path / "out.mkv") == packet_digest(both)


@pytest.mark.parametrize("codec", ["flac", "libopus", "ac3", "pcm_s16le", "libmp3lame"])
def test_the_last_packet_is_heard_where_the_source_says_no_durations(tmp_path: Path, codec: str) -> None:
    source = make_clip(tmp_path / "in.nut", codec="ffv1", frames=5, audio=[codec])
    with av.open(str(source)) as container:
        packets = sum(bool(packet.size) for packet in container.demux(audio=0))
    write(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        found = [packet for packet in container.demux(audio=0) if packet.size]
    assert len(found) == packets or codec.startswith("pcm")
    if codec != "flac":  # NUT ends it with an empty packet, which its decoder does not take
        assert samples(tmp_path / "out.mp4").shape[1] >= samples(source).shape[1] - 1024
