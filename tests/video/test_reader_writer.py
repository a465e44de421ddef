import io
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from clips import audio_only, make_clip, number_of, numbered, truncated, vfr_pts
from running import SHARED, TESTS, Pipe

from sg3cli.errors import InputError, UsageError
from sg3cli.settings import EncodeConfig
from sg3cli.video import Frame, VideoReader, VideoWriter, frame_pts, packet_digest
from sg3cli.video.color import BT709, BT2020, FULL, LIMITED, PQ, SMPTE170M, ColorTags
from sg3cli.video.prefetch import Prefetch
from sg3cli.video.probe import probe

FAST = EncodeConfig(preset="ultrafast")
REAL = SHARED
VFR = {"frames": 20, "pts": vfr_pts(20), "time_base": Fraction(1, 12800)}
REORDERED = {"options": {"preset": "medium", "x264-params": "open-gop=1:scenecut=0:keyint=8:bframes=3"}}


def copy(source, out, encode=FAST, **keywords):
    """Source -> out through the reader and the writer; the notices of both."""
    with VideoReader(source) as reader, VideoWriter(out, reader.info, encode, **keywords) as writer:
        for frame in reader:
            writer.write(frame)
    return reader.notices + writer.notices


def sound_packets(path):
    """(stream, pts, duration) of every packet of sound, and the stream's own start and duration."""
    with av.open(str(path)) as container:
        streams = container.streams.audio
        rows = [(p.stream.index, p.pts, p.duration) for p in container.demux(streams) if p.size] if streams else []
        return rows, [(s.start_time, s.duration) for s in streams]


def image_stream(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.start_time, stream.duration, stream.frames, container.duration


def decoded_image(path):
    """The first frame of a clip, as any player would show it."""
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_ndarray(format="rgb24")


# --- what comes in goes out -------------------------------------------------------------------------------------------

CLIPS = {
    "constant rate": {},
    "variable rate, sound": VFR | {"audio": ["aac"]},
    "variable rate, reordered, starts at 0.5 s": VFR | REORDERED | {"pts": vfr_pts(20, start=6400)},
    "reordered, starts at 0.2 s, sound": REORDERED | {"frames": 20, "pts": range(5, 25), "audio": ["aac"]},
    "30000/1001, sound": {"rate": Fraction(30000, 1001), "audio": ["aac"]},
    "two sound tracks, subtitles, chapters": {
        "audio": ["aac", "libmp3lame"],
        "subtitles": "mov_text",
        "chapters": True,
    },
    "fragmented": {"container": {"movflags": "frag_keyframe+empty_moov"}, "audio": ["aac"]},
    "odd size": {"size": (65, 47), "pix_fmt": "yuv444p"},
    "10 bit": {"pix_fmt": "yuv420p10le"},
}


@pytest.mark.parametrize("kind", CLIPS)
def test_count_pts_duration_and_packets_survive(tmp_path, kind):
    source = make_clip(tmp_path / "in.mp4", **CLIPS[kind])
    out = tmp_path / "out.mp4"
    copy(source, out)
    before, after = probe(source), probe(out)
    assert frame_pts(out) == frame_pts(source)
    assert (after.frames, after.time_base, after.duration) == (before.frames, before.time_base, before.duration)
    assert (after.width, after.height) == (before.width, before.height)
    if kind != "fragmented":  # its header states no duration
        assert image_stream(out) == image_stream(source)
        assert sound_packets(out) == sound_packets(source)
    for stream in ("audio", "subtitle"):
        assert packet_digest(out, stream) == packet_digest(source, stream)
    assert len(packet_digest(source)) == 0 or len(after.audio) == len(before.audio) > 0
    with VideoReader(out) as reader:
        assert [number_of(frame.rgb) for frame in reader] == list(range(before.frames))


@pytest.mark.parametrize("suffix", [".mov", ".mkv"])
def test_other_containers_keep_the_times(tmp_path, suffix):
    timing = {"rate": Fraction(30000, 1001)} if suffix == ".mkv" else VFR
    source = make_clip(tmp_path / "in.mp4", **(timing | {"audio": ["aac"]}))
    out = tmp_path / f"out{suffix}"
    notices = copy(source, out)
    times = [pts * probe(source).time_base for pts in frame_pts(source)]
    exact = [pts * probe(out).time_base for pts in frame_pts(out)]
    assert packet_digest(out) == packet_digest(source)
    if suffix == ".mkv":  # it counts milliseconds, and says so
        assert max(abs(a - b) for a, b in zip(times, exact, strict=True)) <= Fraction(1, 2000)
        assert any("rounds timestamps" in notice for notice in notices)
    else:
        assert times == exact


def test_matroska_source_keeps_tracks_and_exact_times(tmp_path):
    source = make_clip(tmp_path / "in.mkv", audio=["aac", "libopus"], subtitles="subrip", rate=Fraction(30000, 1001))
    copy(source, tmp_path / "out.mkv")
    assert frame_pts(tmp_path / "out.mkv") == frame_pts(source)
    assert sound_packets(tmp_path / "out.mkv")[0] == sound_packets(source)[0]
    for kind in ("audio", "subtitle"):
        assert packet_digest(tmp_path / "out.mkv", kind) == packet_digest(source, kind) != []
    # SubRip has no place in MP4: left out, and said so.
    notices = copy(source, tmp_path / "out.mp4")
    assert any("subtitle" in notice and ".mkv" in notice for notice in notices)
    assert packet_digest(tmp_path / "out.mp4") == packet_digest(source)


def test_mp4_subtitles_become_plain_text_in_matroska(tmp_path):
    source = make_clip(tmp_path / "in.mp4", audio=["aac"], subtitles="mov_text")
    copy(source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert [bytes(p) for p in container.demux(subtitles=0) if p.size] == [b"one", b"two", b"three"]


def test_webm_with_a_codec_that_fits(tmp_path):
    source = make_clip(tmp_path / "in.webm", codec="libvpx-vp9", options={"lag-in-frames": "10"}, audio=["libopus"])
    copy(source, tmp_path / "out.webm", EncodeConfig(codec="libvpx-vp9", crf=20))
    assert frame_pts(tmp_path / "out.webm") == frame_pts(source)
    assert packet_digest(tmp_path / "out.webm") == packet_digest(source)


def test_tags_chapters_and_languages_survive(tmp_path):
    source = make_clip(
        tmp_path / "in.mp4",
        audio=["aac"],
        chapters=True,
        metadata={"title": "A title", "com.maker.lens": "50 mm"},
        container={"movflags": "use_metadata_tags"},
    )
    copy(source, tmp_path / "out.mp4", metadata={"comment": "edited by sg3", "sg3.edits": "age=2"})
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.metadata["title"] == "A title"
        assert container.metadata["com.maker.lens"] == "50 mm"
        assert container.metadata["comment"] == "edited by sg3"
        assert container.metadata["sg3.edits"] == "age=2"
        assert [chapter["metadata"]["title"] for chapter in container.chapters()] == ["part 0", "part 1"]
        assert container.streams.audio[0].language == "eng"


def test_non_square_pixels_survive_and_turn_with_the_image(tmp_path):
    copy(make_clip(tmp_path / "a.mp4", aspect=Fraction(4, 3)), tmp_path / "b.mp4")
    assert probe(tmp_path / "b.mp4").sample_aspect_ratio == Fraction(4, 3)
    copy(make_clip(tmp_path / "c.mp4", aspect=Fraction(4, 3), rotation=90), tmp_path / "d.mp4")
    assert probe(tmp_path / "d.mp4").sample_aspect_ratio == Fraction(3, 4)


@pytest.mark.parametrize(
    "clip",
    ["clips/male_smile_480x270.mp4", "synthface_data/clips/man_turns.mp4", "synthface_data/clips/older_smiles.mp4"],
)
def test_real_clips(tmp_path, clip):
    source, out = REAL / clip, tmp_path / "out.mp4"
    if not source.exists():
        pytest.skip(f"{source} is not here")
    copy(source, out)
    assert frame_pts(out) == frame_pts(source)
    assert image_stream(out) == image_stream(source)
    assert sound_packets(out) == sound_packets(source)
    assert packet_digest(out) == packet_digest(source)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("open.mp4", REORDERED),
        ("vfr.mp4", VFR | REORDERED),
        ("closed.mkv", {"options": {"preset": "medium", "x264-params": "scenecut=0:keyint=7"}}),
        ("b.avi", {"codec": "mpeg4", "options": {"bf": "2", "g": "6"}}),
        ("hidden.webm", {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "10", "b": "1000000"}}),
        ("stream.ts", {"options": {"preset": "medium", "x264-params": "scenecut=0:keyint=7"}}),
        ("raw.h264", {"options": {"preset": "medium", "x264-params": "scenecut=0:keyint=7"}}),
    ],
)
def test_any_start_gives_the_frames_of_a_full_pass(tmp_path, name, keywords):
    reader = VideoReader(make_clip(tmp_path / name, **({"frames": 20} | keywords)))
    full = list(reader)
    assert [number_of(frame.rgb) for frame in full] == list(range(20)) and len(reader) == 20
    assert [frame.pts for frame in full] == reader.pts.tolist()
    assert np.allclose([frame.time for frame in full], reader.times) and full[0].time == 0
    for start in range(0, 21, 1 if name == "open.mp4" else 3):
        part = list(reader.frames(start))
        assert [f.index for f in part] == list(range(start, 20))
        assert all(np.array_equal(a.rgb, b.rgb) and a.pts == b.pts for a, b in zip(part, full[start:], strict=True))
    with pytest.raises(IndexError):
        next(reader.frames(21))


def test_frame_carries_pts_not_an_invented_rate(tmp_path):
    reader = VideoReader(make_clip(tmp_path / "vfr.mp4", **(VFR | {"pts": vfr_pts(20, start=6400)})))
    assert reader.info.variable_rate and reader.info.start_pts == 6400
    frames = list(reader)
    assert [frame.pts for frame in frames] == vfr_pts(20, start=6400)
    assert frames[5].time == pytest.approx((vfr_pts(20)[5]) / 12800)
    assert [a.pts + a.duration for a in frames[:-1]] == [b.pts for b in frames[1:]]


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotated_clips_are_read_and_written_upright(tmp_path, rotation, turns):
    plain = next(iter(VideoReader(make_clip(tmp_path / "plain.mp4"))))
    source = make_clip(tmp_path / "turned.mp4", rotation=rotation)
    reader = VideoReader(source)
    # The same counter-clockwise angle as PyAV's frame.rotation.
    assert reader.info.rotation == rotation % 360 and np.array_equal(next(iter(reader)).rgb, np.rot90(plain.rgb, turns))
    assert (reader.info.height, reader.info.width) == np.rot90(plain.rgb, turns).shape[:2]
    assert any("upright" in notice for notice in copy(source, tmp_path / "out.mp4"))
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == 0 and (frame.width, frame.height) == (reader.info.width, reader.info.height)


@pytest.mark.parametrize(("rotation", "expected"), [(0, lambda a: a[:, ::-1]), (90, lambda a: np.rot90(a)[:, ::-1])])
def test_mirrored_clips_are_read_upright(tmp_path, rotation, expected):
    plain = next(iter(VideoReader(make_clip(tmp_path / "plain.mp4"))))
    mirrored = next(iter(VideoReader(make_clip(tmp_path / "m.mp4", rotation=rotation, hflip=True))))
    assert np.array_equal(mirrored.rgb, expected(plain.rgb))


def test_probe_is_plain_data(tmp_path):
    import json

    info = probe(make_clip(tmp_path / "a.mp4", rotation=90, audio=["aac"], pix_fmt="yuv420p10le"))
    told = json.loads(json.dumps(info.to_dict()))
    assert told["time_base"] == "1/12800" and told["frames"] == 12 and told["audio"][0]["codec"] == "aac"
    assert (told["width"], told["height"], told["bit_depth"]) == (48, 64, 10)


# --- colour -----------------------------------------------------------------------------------------------------------

BARS = [
    (255, 255, 255),
    (191, 191, 0),
    (0, 191, 191),
    (0, 191, 0),
    (191, 0, 191),
    (191, 0, 0),
    (0, 0, 191),
    (255, 0, 0),
]


def bars(index, width, height):
    return np.repeat(np.array(BARS, np.uint8), width // len(BARS), 0)[None].repeat(height, 0)


def bar_centres(rgb):
    step = rgb.shape[1] // len(BARS)
    return rgb[rgb.shape[0] // 2, step // 2 :: step].astype(int)


@pytest.mark.parametrize("matrix", [BT709, SMPTE170M, BT2020])
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_colour_bars_come_through_and_out_as_bt709(tmp_path, matrix, color_range, pix_fmt):
    tags = ColorTags(matrix, BT709, BT709, color_range)
    source = make_clip(
        tmp_path / "bars.mp4", frames=2, size=(256, 64), pix_fmt=pix_fmt, tags=tags, image=bars, options={"crf": "0"}
    )
    frame = next(iter(VideoReader(source)))
    assert np.abs(bar_centres(frame.rgb) - BARS).max() <= 2
    copy(source, tmp_path / "out.mp4", EncodeConfig(preset="ultrafast", crf=0))
    assert np.abs(bar_centres(decoded_image(tmp_path / "out.mp4")) - BARS).max() <= 4  # FFmpeg's default rounding
    again = next(iter(VideoReader(tmp_path / "out.mp4")))
    assert np.abs(bar_centres(again.rgb) - bar_centres(frame.rgb)).max() <= 2


def test_untagged_sd_is_taken_for_601_and_hd_for_709(tmp_path):
    sd = make_clip(tmp_path / "sd.mp4", frames=1, size=(256, 64), image=bars, options={"crf": "1"})
    assert np.abs(bar_centres(next(iter(VideoReader(sd))).rgb) - BARS).max() <= 2
    hd = make_clip(tmp_path / "hd.mp4", frames=1, size=(1280, 64), image=bars, options={"crf": "1"})
    assert np.abs(bar_centres(next(iter(VideoReader(hd))).rgb) - BARS).max() > 10  # made with 601, read as 709


def test_output_is_tagged_in_the_container_and_in_the_stream(tmp_path):
    out = tmp_path / "out.mp4"
    notices = copy(make_clip(tmp_path / "in.mp4", tags=ColorTags(BT709, BT709, BT709, LIMITED)), out)
    assert not any("colour" in notice for notice in notices)
    tags = probe(out).color
    assert (tags.matrix, tags.primaries, tags.transfer, tags.range) == (1, 1, 1, 1)
    assert b"colrnclx\x00\x01\x00\x01\x00\x01\x00" in out.read_bytes()  # the container's own record
    with av.open(str(out)) as container, av.open(str(tmp_path / "bare.h264"), "w") as bare:
        stream = bare.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = stream
                bare.mux(packet)
    assert probe(tmp_path / "bare.h264").color == tags  # and the codec's


def test_tagging_without_converting_shifts_red(tmp_path):
    # Why the writer converts: an encoder given RGB uses the 601 matrix whatever the tags say.
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 255
    with av.open(str(tmp_path / "trap.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")), *stream.encode(None)]:
            out.mux(packet)
    assert decoded_image(tmp_path / "trap.mp4")[24, 32, 1] > 15
    info = probe(tmp_path / "trap.mp4")
    with VideoWriter(tmp_path / "right.mp4", info, EncodeConfig(crf=0)) as writer:
        writer.write(Frame(0, 0, info.time_base, red, 512))
    assert np.abs(decoded_image(tmp_path / "right.mp4")[24, 32].astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize(
    "tags",
    [
        ColorTags(),
        ColorTags(SMPTE170M, SMPTE170M, SMPTE170M, FULL),
        ColorTags(BT2020, BT2020, 14, LIMITED),
        ColorTags(BT2020, BT2020, 14, FULL),
        ColorTags(BT709, 2, 2, LIMITED),
    ],
)
def test_the_source_s_colour_tags_stay(tmp_path, tags):
    source = make_clip(tmp_path / "in.mp4", tags=tags)
    assert not any("colour" in notice for notice in copy(source, tmp_path / "out.mp4"))
    assert probe(tmp_path / "out.mp4").color == probe(source).color == tags


def test_what_players_guess_is_written_where_they_would_guess_otherwise(tmp_path):
    source = make_clip(tmp_path / "in.mp4", frames=2)
    info = probe(source)
    with VideoWriter(tmp_path / "hd.mp4", info, FAST, size=(1280, 720)) as writer:
        writer.write(Frame(0, 0, info.time_base, numbered(0, 1280, 720), 512))
    assert info.color == ColorTags() and probe(tmp_path / "hd.mp4").color.matrix == SMPTE170M


def test_hdr_and_high_bit_depth_are_announced(tmp_path):
    tags = ColorTags(BT2020, BT2020, PQ, LIMITED)
    source = make_clip(tmp_path / "hdr.mp4", pix_fmt="yuv420p10le", tags=tags)
    notices = copy(source, tmp_path / "out.mp4")
    assert any("HDR (PQ)" in n and "tone-mapped" in n for n in notices)
    out = probe(tmp_path / "out.mp4")
    assert (out.pix_fmt, out.color) == ("yuv420p", ColorTags(BT709, BT709, BT709, LIMITED))
    deep = VideoReader(make_clip(tmp_path / "deep.mp4", pix_fmt="yuv420p10le"))
    assert any("10 bits" in n for n in deep.notices)


# --- pipes ------------------------------------------------------------------------------------------------------------


class ReadOnly:
    """What a pipe is to FFmpeg: bytes, and no way back."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


def test_standard_output_is_matroska(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "in.mp4", **(VFR | {"audio": ["aac"]}))
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdout", pipe)
    copy(source, "-")
    (tmp_path / "piped.mkv").write_bytes(pipe.getvalue())
    assert probe(tmp_path / "piped.mkv").format.startswith("matroska")
    assert packet_digest(tmp_path / "piped.mkv") == packet_digest(source)
    assert len(frame_pts(tmp_path / "piped.mkv")) == 20


def test_piped_mp4_is_fragmented(tmp_path, monkeypatch):
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdout", pipe)
    copy(make_clip(tmp_path / "in.mp4"), "-", EncodeConfig(preset="ultrafast", format="mp4"))
    (tmp_path / "piped.mp4").write_bytes(pipe.getvalue())
    assert len(frame_pts(tmp_path / "piped.mp4")) == 12


def test_a_failed_pipe_gets_no_trailer(tmp_path, monkeypatch):
    info = probe(make_clip(tmp_path / "in.mp4"))
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdout", pipe)
    with pytest.raises(RuntimeError), VideoWriter("-", info, FAST) as writer:
        for i in range(60):
            writer.write(Frame(i, i * 512, info.time_base, numbered(i), 512))
        written = len(pipe.getvalue())
        raise RuntimeError
    assert len(pipe.getvalue()) == written


def test_standard_input_is_spooled_even_with_its_index_at_the_end(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "in.mp4", size=(640, 480), options={"crf": "0"})
    assert source.stat().st_size > 100_000 and source.read_bytes().rindex(b"moov") > 50_000
    with pytest.raises(av.FFmpegError), av.open(ReadOnly(source.read_bytes())) as unseekable:
        list(unseekable.decode(video=0))  # why it is spooled
    monkeypatch.setattr(sys, "stdin", Pipe(source.read_bytes()))
    with VideoReader("-") as reader:
        assert [number_of(frame.rgb) for frame in reader] == list(range(12))
        spooled = reader.info.path
        assert spooled.exists()
    assert not spooled.exists()


def test_media_never_meets_a_terminal(tmp_path, monkeypatch):
    info = probe(make_clip(tmp_path / "in.mp4"))
    monkeypatch.setattr(sys, "stdout", Pipe(tty=True))
    with pytest.raises(UsageError, match="terminal"):
        VideoWriter("-", info)
    monkeypatch.setattr(sys, "stdin", Pipe(tty=True))
    with pytest.raises(UsageError, match="terminal"):
        VideoReader("-")


# --- bad input --------------------------------------------------------------------------------------------------------


def bad_inputs(folder):
    whole = make_clip(folder / "whole.mp4", frames=40, options={"crf": "0"}, audio=["aac"])
    fast = make_clip(folder / "fast.mp4", frames=40, options={"crf": "0"}, container={"movflags": "faststart"})
    mkv = make_clip(folder / "whole.mkv", frames=100, options={"crf": "0"})
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 200)
    (folder / "playlist.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{whole}\n#EXT-X-ENDLIST\n")
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    return {
        "missing.mp4": "does not exist",
        ".": "folder",
        "empty.mp4": "empty",
        "text.mp4": "not a video",
        "playlist.mp4": "not a video",
        "noise.mp4": "",
        audio_only(folder / "sound.m4a").name: "only sound",
        truncated(folder / "cut.mp4", whole).name: "index",
        truncated(folder / "cutfast.mp4", fast).name: "cut off",
        truncated(folder / "cut.mkv", mkv).name: "cut off",
    }


def test_bad_inputs_are_named_with_a_hint(tmp_path):
    for name, what in bad_inputs(tmp_path).items():
        with pytest.raises(InputError) as caught:
            list(VideoReader(tmp_path / name))
        assert what in str(caught.value) and str(tmp_path) in str(caught.value), name
        assert caught.value.hint and "\n" not in str(caught.value) + caught.value.hint, name


def damaged(path, source, keep, first=0):
    """A copy of the clip from packet `first` on, in which every packet that `keep(i)` does not spare is zeros."""
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(container.streams.video[0])
        for i, packet in list(enumerate(p for p in container.demux(video=0) if p.size))[first:]:
            copied = av.Packet(bytes(packet) if keep(i) else bytes(packet.size))
            copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
            copied.stream, copied.is_keyframe = stream, packet.is_keyframe
            out.mux(copied)
    return path


def test_a_damaged_frame_shows_the_one_before_it(tmp_path):
    whole = make_clip(tmp_path / "whole.mp4", options={"g": "1"})
    reader = VideoReader(damaged(tmp_path / "a.mkv", whole, lambda i: i not in (0, 5)))
    frames = list(reader)
    assert [number_of(frame.rgb) for frame in frames] == [1, 1, 2, 3, 4, 4, 6, 7, 8, 9, 10, 11]
    assert [frame.pts for frame in frames] == reader.pts.tolist() == [i * 40 for i in range(12)]
    assert reader.repeated == 2 and "2 damaged frames" in reader.notices[-1]
    assert number_of(next(reader.frames(5)).rgb) == 4


@pytest.mark.parametrize(("joined", "numbers"), [(13, [16] * 3), (3, [])])
def test_a_recording_joined_late(tmp_path, joined, numbers):
    # Up to 8 frames before the first key frame show its image, more are left out.
    options = {"preset": "medium", "x264-params": "scenecut=0:keyint=16:bframes=0"}
    whole = make_clip(tmp_path / "whole.mp4", frames=20, options=options)
    late = damaged(tmp_path / "late.mkv", whole, lambda i: i >= 16, first=joined)
    reader = VideoReader(late)
    assert [number_of(frame.rgb) for frame in reader] == [*numbers, 16, 17, 18, 19]
    assert len(reader) == len(numbers) + 4
    assert any("13 frames before the first key frame" in notice for notice in reader.notices) == (joined == 3)


def test_damage_that_is_not_isolated_is_an_error(tmp_path):
    whole = make_clip(tmp_path / "whole.mp4", frames=30, options={"g": "1"})
    with pytest.raises(InputError, match=r"damaged.* near 0\.\d+ s"):
        list(VideoReader(damaged(tmp_path / "a.mp4", whole, lambda i: not 10 <= i < 22)))
    with pytest.raises(InputError, match="not one frame"):
        VideoReader(damaged(tmp_path / "b.mp4", whole, lambda i: False))


# --- bad output -------------------------------------------------------------------------------------------------------


def one_frame(info):
    return Frame(0, 0, info.time_base, numbered(0), 512)


def test_output_places_that_cannot_be(tmp_path):
    source = make_clip(tmp_path / "in.mp4")
    info = probe(source)
    (tmp_path / "link.mp4").symlink_to(source)
    for out, what in [
        (source, "same file"),
        (tmp_path / "link.mp4", "same file"),
        (tmp_path / "no" / "out.mp4", "does not exist"),
        (tmp_path, "folder"),
        (Path("/dev/full"), "not a regular file"),
    ]:
        encode = EncodeConfig(format="mp4")
        with pytest.raises(InputError, match=what) as caught:
            VideoWriter(out, info, encode)
        assert str(out) in str(caught.value) and caught.value.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "link.mp4"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_write_permission(tmp_path):
    info = probe(make_clip(tmp_path / "in.mp4"))
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="permission"):
        VideoWriter(tmp_path / "locked" / "out.mp4", info)


@pytest.mark.parametrize(
    ("keywords", "what"),
    [
        ({"codec": "libx999"}, "libx999"),
        ({"pix_fmt": "yuv9"}, "yuv9"),
        ({"pix_fmt": "rgb24"}, "rgb24"),
        ({"preset": "brisk"}, "brisk"),
        ({"crf": float("nan")}, "nan"),
        ({"crf": -3}, "-3"),
        ({"format": "webm"}, "libx264"),
        ({"format": "wobble"}, "wobble"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path, keywords, what):
    info = probe(make_clip(tmp_path / "in.mp4"))
    with pytest.raises(UsageError) as caught, VideoWriter(tmp_path / "out.mp4", info, EncodeConfig(**keywords)):
        pass
    assert what in str(caught.value) and caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_unknown_suffix_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"\.doc"):
        VideoWriter(tmp_path / "out.doc", probe(make_clip(tmp_path / "in.mp4")))


def test_sound_that_does_not_fit_is_refused_before_work(tmp_path):
    info = probe(make_clip(tmp_path / "in.mkv", audio=["pcm_s16le"]))
    with (
        pytest.raises(UsageError, match="pcm_s16le"),
        VideoWriter(tmp_path / "o.webm", info, EncodeConfig(codec="libvpx-vp9")),
    ):
        pass


def test_a_listed_hardware_encoder_is_not_a_usable_one(tmp_path):
    assert "h264_nvenc" in av.codecs_available
    info = probe(make_clip(tmp_path / "in.mp4", size=(256, 256)))
    try:
        with VideoWriter(tmp_path / "out.mp4", info, EncodeConfig(codec="h264_nvenc")) as writer:
            writer.write(Frame(0, 0, info.time_base, numbered(0, 256, 256), 512))
    except UsageError as error:
        assert "h264_nvenc" in str(error) and not (tmp_path / "out.mp4").exists()
    else:
        assert len(frame_pts(tmp_path / "out.mp4")) == 1  # this machine has one


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_a_stopped_run_leaves_the_earlier_output(tmp_path, stop):
    info = probe(make_clip(tmp_path / "in.mp4", audio=["aac"]))
    out = tmp_path / "out.mp4"
    out.write_bytes(b"earlier")
    with pytest.raises(stop), VideoWriter(out, info, FAST) as writer:
        writer.write(one_frame(info))
        assert out.read_bytes() == b"earlier"  # nothing under the final name while work goes on
        raise stop
    assert out.read_bytes() == b"earlier"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_what_a_killed_run_left_is_swept(tmp_path):
    source = make_clip(tmp_path / "in.mp4")
    code = f"""
import os, signal
from clips import numbered
from sg3cli.settings import EncodeConfig
from sg3cli.video import Frame, VideoWriter
from sg3cli.video.probe import probe
info = probe({str(source)!r})
writer = VideoWriter({str(tmp_path / "out.mp4")!r}, info, EncodeConfig(preset="ultrafast")).__enter__()
for i in range(60): writer.write(Frame(i, i * 512, info.time_base, numbered(i), 512))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=TESTS, check=False)
    assert done.returncode == -signal.SIGKILL
    assert [p.suffix for p in tmp_path.glob(".out*")] == [".part"] and not (tmp_path / "out.mp4").exists()
    copy(source, tmp_path / "out.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_no_frames_is_no_output(tmp_path):
    info = probe(make_clip(tmp_path / "in.mp4"))
    with pytest.raises(InputError, match="not one frame"), VideoWriter(tmp_path / "out.mp4", info, FAST):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def noise_until_it_fails(out, info):
    rng = np.random.default_rng(0)
    with VideoWriter(out, info, EncodeConfig(preset="ultrafast", crf=0)) as writer:
        for i in range(80):
            writer.write(Frame(i, i * 512, info.time_base, rng.integers(0, 256, (48, 64, 3), np.uint8), 512))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_no_room_left(tmp_path, suffix):
    # A limit on the size of a file fails as a full disk does (EFBIG for ENOSPC); SIGXFSZ would kill before that.
    info = probe(make_clip(tmp_path / "in.mp4"))
    out = tmp_path / f"out{suffix}"
    out.write_bytes(b"earlier")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(InputError, match="no room left") as caught:
            noise_until_it_fails(out, info)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "free some space" in caught.value.hint and out.read_bytes() == b"earlier"
    assert not list(tmp_path.glob(".out*"))


def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        info = probe(make_clip(tmp_path / "in.mp4"))
        with pytest.raises(InputError, match="no room left"):
            noise_until_it_fails(disk / "out.mp4", info)
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", disk], check=True)


# --- threads and memory -----------------------------------------------------------------------------------------------


def test_prefetch_runs_no_further_ahead_than_its_depth():
    made = []

    def source():
        for i in range(100):
            made.append(i)
            yield i

    items = iter(Prefetch(source, 4))
    assert next(items) == 0
    time.sleep(0.1)
    assert len(made) <= 1 + 4 + 1  # taken, queued, and one in the producer's hands
    items.close()
    assert not any(thread.name == "sg3-decode" for thread in threading.enumerate())


def test_prefetch_hands_over_the_error_after_the_items_before_it():
    def source():
        yield 1
        yield 2
        raise ZeroDivisionError

    items = iter(Prefetch(source, 1))
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_leaving_early_closes_thread_and_file(tmp_path):
    reader = VideoReader(make_clip(tmp_path / "in.mp4", frames=60))
    for frame in reader:
        if frame.index == 3:
            break
    del frame
    deadline = time.monotonic() + 5
    while any(t.name == "sg3-decode" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(t.name == "sg3-decode" for t in threading.enumerate())
    assert str(reader.info.path) not in {file.path for file in psutil.Process().open_files()}


def test_memory_does_not_grow_with_length(tmp_path):
    source = make_clip(tmp_path / "in.mp4", frames=200, size=(320, 192))  # 37 MB as RGB
    process, peaks = psutil.Process(), []
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader.info, FAST) as writer:
        for frame in reader:
            writer.write(frame)
            peaks.append(process.memory_info().rss)
    assert max(peaks[100:]) - max(peaks[:100]) < 8e6
