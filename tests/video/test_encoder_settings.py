import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import make_clip

from sg3cli.errors import UsageError
from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoInfo, VideoReader, VideoWriter
from sg3cli.video.color import BT709_LIMITED, BT2020, PQ, ColorTags
from sg3cli.video.encoder_settings import AVX_512F, HARDWARE, LOSSLESS, choose
from sg3cli.video.probe import probe

SIZE = (256, 192)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> VideoInfo:
    return probe(make_clip(tmp_path_factory.mktemp("encoders") / "in.mp4", size=SIZE, frames=3))


@pytest.mark.parametrize(
    ("codec", "depth", "pix_fmt", "alpha", "chosen"),
    [
        ("libx264", 8, "yuv420p", False, "yuv420p"),
        ("libx264", 8, "yuvj420p", False, "yuv420p"),
        ("libx264", 8, "yuv444p", False, "yuv420p"),  # plays everywhere; said below
        ("libx264", 10, "yuv420p10le", False, "yuv420p10le"),
        ("libx264", 10, "yuv422p10le", False, "yuv422p10le"),
        ("libx264", 12, "yuv420p12le", False, "yuv420p10le"),
        ("libx265", 12, "yuv420p12le", False, "yuv420p12le"),
        ("libvpx-vp9", 10, "yuv420p10le", False, "yuv420p"),
        ("libsvtav1", 10, "yuv420p10le", False, "yuv420p10le"),
        ("libvpx-vp9", 8, "yuva420p", True, "yuva420p"),
        ("libx264", 8, "yuva420p", True, "yuv420p"),
        ("libx265", 8, "yuva420p", True, "yuv420p"),  # its alpha layer hardly anything reads
        ("prores_ks", 12, "yuva444p12le", True, "yuva444p10le"),
        ("ffv1", 8, "bgra", True, "bgra"),
        ("libvpx-vp9", 8, "rgba", True, "yuva420p"),
        ("libx264", 8, "rgb24", False, "yuv420p"),
    ],
)
def test_the_pixel_format_is_the_source_s_as_far_as_can_be(source, codec, depth, pix_fmt, alpha, chosen):
    info = replace(source, pix_fmt=pix_fmt, bit_depth=depth, alpha=alpha)
    encoder = choose(EncodeConfig(codec), info, SIZE)
    assert encoder.pix_fmt == chosen
    said = " ".join(encoder.notices)
    assert ("transparency" in said) == (alpha and "a" not in chosen.replace("yuva", "a").split("4")[0])
    assert ("bits a channel are written" in said) == (depth > max(c.bits for c in av.VideoFormat(chosen).components))
    assert ("chroma" in said) == (pix_fmt == "yuv444p")


def test_hdr_is_not_kept_in_more_bits_than_it_has_after_tone_mapping(source):
    info = replace(source, pix_fmt="yuv420p10le", bit_depth=10, color=ColorTags(BT2020, BT2020, PQ, 1))
    encoder = choose(EncodeConfig(), info, SIZE)
    assert (encoder.pix_fmt, encoder.tags, encoder.colors) == ("yuv420p", BT709_LIMITED, BT709_LIMITED)


@pytest.mark.parametrize(
    ("codec", "instead"),
    [("h264_vaapi", "libx264"), ("hevc_videotoolbox", "libx265"), ("av1_amf", "libsvtav1"), ("h264_qsv", "libx264"),
     ("hevc_nvenc", "libx265")],
)  # fmt: skip
def test_a_device_that_is_not_there_is_replaced_and_said(source, codec, instead):
    encoder = choose(EncodeConfig(codec), source, SIZE)
    if encoder.name != codec:  # this machine may have one
        assert (
            encoder.name == instead
            and encoder.notices[0] == f"{codec} does not work on this machine; {instead} is used"
        )


def test_a_replaced_device_still_makes_the_video(tmp_path, source):
    with (
        VideoReader(source.path) as reader,
        VideoWriter(tmp_path / "o.mp4", reader.info, EncodeConfig("h264_nvenc")) as out,
    ):
        for frame in reader:
            out.write(frame)
    assert probe(tmp_path / "o.mp4").codec == "h264" and probe(tmp_path / "o.mp4").frames == 3


def test_a_device_s_codec_that_software_does_not_have_is_an_error(source):
    with pytest.raises(UsageError, match="mjpeg_vaapi does not work"):
        choose(EncodeConfig("mjpeg_vaapi"), source, SIZE)
    assert all(kind.isalnum() for kind in HARDWARE)


def test_short_names(source):
    assert [choose(EncodeConfig(name), source, SIZE).name for name in ("h264", "hevc", "vp9", "av1", "prores")] == [
        "libx264", "libx265", "libvpx-vp9", "libsvtav1", "prores_ks",
    ]  # fmt: skip


def test_lossless_settings(source):
    for codec in ("libx264", "libx265", "libvpx-vp9", "ffv1"):
        options = choose(EncodeConfig(codec, crf=30, lossless=True), source, SIZE).options
        assert "crf" not in options and options.items() >= LOSSLESS[codec].items()
    with pytest.raises(UsageError, match="prores_ks cannot encode without loss"):
        choose(EncodeConfig("prores_ks", lossless=True), source, SIZE)


def test_a_chosen_pixel_format_wins(source):
    assert choose(EncodeConfig(pix_fmt="yuv444p10le"), source, SIZE).pix_fmt == "yuv444p10le"
    with pytest.raises(UsageError, match="libx264 cannot write rgb24"):
        choose(EncodeConfig(pix_fmt="rgb24"), source, SIZE)


def test_tags_that_no_standard_defines_are_not_written(source, tmp_path: Path):
    info = replace(source, color=ColorTags(0, 3, 200, 1))
    tags = choose(EncodeConfig(), info, SIZE).tags
    assert tags == ColorTags(2, 2, 2, 1)
    with VideoReader(source.path) as reader, VideoWriter(tmp_path / "out.mp4", info) as writer:
        for frame in reader:
            writer.write(frame)


@pytest.mark.parametrize("codec", ["libx264", "libx264rgb", "libx265", "ffv1"])
@pytest.mark.parametrize("avx512", [True, False])
def test_x264_does_without_avx512_where_the_processor_has_it(source, monkeypatch, codec, avx512):
    monkeypatch.setattr("cv2.checkHardwareSupport", lambda feature: avx512 and feature == AVX_512F)
    options = choose(EncodeConfig(codec), source, SIZE).options
    assert (options.get("x264-params") == "asm=avx2") == (avx512 and codec.startswith("libx264"))


@pytest.mark.slow
def test_the_same_frames_become_the_same_bytes_on_a_busy_machine(source):
    options = choose(EncodeConfig(), source, SIZE).options
    noise = np.random.default_rng(0).integers(0, 255, (60, 288, 352, 3), dtype=np.uint8)
    frames = [cv2.GaussianBlur(np.roll(noise[0], 3 * k, 1) // 2 + noise[k] // 16, (0, 0), 2) for k in range(60)]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        kinds = {_encoded(frames, options) for _ in range(20)}
    finally:
        for process in busy:
            process.kill()
    assert len(kinds) == 1


def _encoded(frames: list[np.ndarray], options: dict[str, str]) -> bytes:
    context = av.CodecContext.create("libx264", "w")
    context.height, context.width = frames[0].shape[:2]
    context.pix_fmt, context.time_base, context.thread_count = "yuv420p", Fraction(1, 25), 0
    context.options = options
    packets = [packet for frame in frames for packet in context.encode(av.VideoFrame.from_ndarray(frame))]
    return b"".join(bytes(packet) for packet in [*packets, *context.encode(None)])
