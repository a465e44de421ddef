"""Small video files of every kind, made in code. Every frame carries its number, for a test to see which it got."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation

from sg3cli.video.color import FULL, SMPTE170M, ColorTags

BITS = 8
VFR_STEPS = (512, 512, 1024, 512, 2048, 256, 512, 512, 768)  # units of 1/12800 s
SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}


def numbered(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """`[H, W, 3]`: a slow colour ramp that depends on the index, and the index as a row of black and white blocks."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = np.stack([x / width * 180, y / height * 180, np.full_like(x, (index * 7) % 160)], -1) + 30
    rgb = ramp.astype(np.uint8)
    block = width // BITS
    for bit in range(BITS):
        rgb[: height // 4, bit * block : (bit + 1) * block] = 255 if index >> bit & 1 else 0
    return rgb


def number_of(rgb: np.ndarray) -> int:
    """The index that `numbered` wrote, after any lossy coding."""
    height, width = rgb.shape[:2]
    block = width // BITS
    row = rgb[height // 8, block // 2 :: block][:BITS].mean(-1)
    return sum(1 << bit for bit, value in enumerate(row) if value > 127)


def vfr_pts(frames: int, start: int = 0) -> list[int]:
    """Timestamps with unequal steps, in units of 1/12800 s."""
    steps = [VFR_STEPS[i % len(VFR_STEPS)] for i in range(frames - 1)]
    return [start, *np.cumsum([start, *steps])[1:].tolist()]


def make_clip(
    path: Path,
    frames: int = 12,
    size: tuple[int, int] = (64, 48),
    rate: Fraction | int = 25,
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    tags: ColorTags | None = None,
    rotation: int = 0,
    hflip: bool = False,
    aspect: Fraction | None = None,
    audio: Sequence[str] = (),
    subtitles: str = "",
    container: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    chapters: bool = False,
    image: Callable[..., np.ndarray] = numbered,
) -> Path:
    """A clip at `path`: one video stream, an `audio` codec name per sound track, one `subtitles` track."""
    width, height = size
    with av.open(str(path), "w", container_options=container or {}) as out:
        out.metadata.update(metadata or {})
        video = out.add_stream(codec, rate=rate, options={"preset": "ultrafast", "crf": "4"} | (options or {}))
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        base = time_base or 1 / Fraction(rate)
        video.codec_context.time_base = video.time_base = base
        if aspect:
            video.codec_context.sample_aspect_ratio = aspect
        if tags:
            context = video.codec_context
            context.colorspace, context.color_range = tags.matrix, tags.range
            context.color_primaries, context.color_trc = tags.primaries, tags.transfer
        if rotation or hflip:
            video.set_display_rotation(rotation, hflip=hflip)
        pts = list(range(frames)) if pts is None else list(pts)
        seconds = float((pts[-1] + 1) * base)
        tracks = [(out.add_stream(name, rate=48000, layout="mono"), 200 * (i + 1)) for i, name in enumerate(audio)]
        text = out.add_mux_stream(subtitles) if subtitles else None
        if chapters:
            half = int(seconds * 500)
            out.set_chapters([_chapter(0, 0, half), _chapter(1, half, 2 * half)])
        for stream, hertz in tracks:
            stream.metadata["language"] = "eng"
            _encode_tone(out, stream, hertz, seconds)
        if text is not None:
            _mux_text(out, text, subtitles, seconds)
        for index, stamp in enumerate(pts):
            frame = to_frame(image(index, width, height), pix_fmt, tags)
            frame.pts, frame.time_base = stamp, base
            frame.duration = pts[index + 1] - stamp if index + 1 < len(pts) else stamp - pts[index - 1]
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def to_frame(rgb: np.ndarray, pix_fmt: str, tags: ColorTags | None) -> av.VideoFrame:
    """RGB -> a frame in `pix_fmt` converted as `tags` say; without tags as a plain encoder does, with BT.601."""
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgba" if rgb.shape[-1] == 4 else "rgb24")
    matrix = SWS_MATRIX[tags.matrix if tags and tags.matrix in SWS_MATRIX else SMPTE170M]
    return frame.reformat(
        format=pix_fmt,
        src_color_range=FULL,
        dst_colorspace=None if pix_fmt.startswith(("gbr", "rgb", "bgr")) else matrix,
        dst_color_range=(tags.range if tags else 1) or 1,
        interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
    )


def _chapter(number: int, start: int, end: int) -> dict:
    return {
        "id": number,
        "start": start,
        "end": end,
        "time_base": Fraction(1, 1000),
        "metadata": {"title": f"part {number}"},
    }


def _encode_tone(out, stream, hertz: int, seconds: float) -> None:
    samples = np.sin(np.arange(int(seconds * 48000)) * 2 * np.pi * hertz / 48000).astype(np.float32) * 0.3
    if stream.codec_context.name.startswith("pcm"):
        frame = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
    else:
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    for packet in [*stream.encode(frame), *stream.encode(None)]:
        out.mux(packet)


def _mux_text(out, stream, codec: str, seconds: float) -> None:
    """Three lines of text; MP4's form has its length in front."""
    for i, line in enumerate((b"one", b"two", b"three")):
        packet = av.Packet(len(line).to_bytes(2, "big") + line if codec == "mov_text" else line)
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = int(i * seconds * 300)
        packet.duration = int(seconds * 250)
        out.mux(packet)


def audio_only(path: Path) -> Path:
    """Sound without an image."""
    with av.open(str(path), "w") as out:
        _encode_tone(out, out.add_stream("aac", rate=48000, layout="mono"), 440, 0.5)
    return path


def truncated(path: Path, source: Path, share: float = 0.6) -> Path:
    """The first part of a file's bytes."""
    path.write_bytes(source.read_bytes()[: int(source.stat().st_size * share)])
    return path
