"""Files as bug reports have them, made in code: clocks that wrap, parts that were joined, tracks without facts."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from clips import make_clip, numbered

REORDERED = {"preset": "medium", "x264-params": "open-gop=0:scenecut=0:keyint=30:bframes=3"}
CLOCK = 1 << 33  # where MPEG's clock of 90 kHz starts again


def transport(path: Path, offset: float = 0, frames: int = 10, first: int = 0, **clip) -> Path:
    """A transport stream whose clock begins at `offset` seconds (and 1.4); images count from `first`."""

    def image(index: int, width: int, height: int) -> np.ndarray:
        return numbered(index + first, width, height)

    options = {"output_ts_offset": str(offset)}
    return make_clip(path, frames=frames, image=image, container=options, **({"options": REORDERED} | clip))


def joined(path: Path, parts: Sequence[dict]) -> Path:
    """Streams one after the other, as `cat` joins them; the images count through."""
    first, data = 0, b""
    for number, part in enumerate(parts):
        piece = transport(path.with_name(f"part{number}{path.suffix}"), first=first, **part)
        data += piece.read_bytes()
        first += part.get("frames", 10)
    path.write_bytes(data)
    return path


def timed(path: Path, pts: Sequence[int], base: Fraction, codec: str = "ffv1", rate: int = 25) -> Path:
    """Images with any times, equal ones too."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = stream.time_base = base
        for index, stamp in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(numbered(index), format="rgb24")
            frame.pts, frame.time_base = index, base
            for packet in stream.encode(frame):
                packet.pts = packet.dts = stamp
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
    return path


def decode_times_only(path: Path, frames: int = 20, **clip) -> Path:
    """H.264 with B-frames whose packets say when they are decoded and not when they are shown."""
    plain = make_clip(path.with_name("plain.ts"), frames=frames, **({"options": REORDERED} | clip))
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.duration = Fraction(1, 25), copy, 1
            out.mux(packet)
    return path


def under_avi_headers(path: Path, frames: int = 20) -> Path:
    """H.264 with B-frames in Matroska as `V_MS/VFW/FOURCC`: with the header and the times that AVI has."""

    def element(name: str, *parts: bytes) -> bytes:
        data = b"".join(parts)
        return bytes.fromhex(name) + (len(data) | 1 << 56).to_bytes(8, "big") + data

    def number(value: int) -> bytes:
        return value.to_bytes(4, "big")

    plain = make_clip(path.with_name("plain.ts"), frames=frames, options=REORDERED)
    with av.open(str(plain)) as source:
        data = [bytes(packet) for packet in source.demux(video=0) if packet.size]
    header = struct.pack("<IiiHH4sIiiII", 40, 64, 48, 1, 24, b"H264", 64 * 48 * 3, 0, 0, 0, 0)
    video = element("e0", element("b0", number(64)), element("ba", number(48)))
    track = element(
        "ae", element("d7", b"\1"), element("73c5", b"\1"), element("83", b"\1"), element("86", b"V_MS/VFW/FOURCC"),
        element("23e383", number(40_000_000)), element("63a2", header), video,
    )  # fmt: skip
    blocks = [
        element("a3", b"\x81", struct.pack(">hB", 40 * k, 0x80 * (k == 0)), packet) for k, packet in enumerate(data)
    ]
    info = element("1549a966", element("2ad7b1", number(1_000_000)))
    cluster = element("1f43b675", element("e7", number(0)), *blocks)
    head = element("1a45dfa3", element("4282", b"matroska"), element("4287", b"\4"), element("4285", b"\2"))
    path.write_bytes(head + element("18538067", info, element("1654ae6b", track), cluster))
    return path


def with_sound(path: Path, codec: str, layout: str = "stereo", rate: int = 44100, video: str = "mjpeg", **clip) -> Path:
    """A clip with a sound track of any codec, a fifth of a second long."""
    frames = clip.pop("frames", 6)
    with av.open(str(path), "w", container_options=clip.pop("container", {})) as out:
        stream = out.add_stream(video, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if video == "mjpeg" else "yuv420p"
        sound = out.add_stream(codec, rate=rate, layout=layout)
        if codec.startswith("wma"):
            sound.bit_rate = 64000
        resampler = av.AudioResampler(sound.codec_context.format, layout, rate, frame_size=sound.frame_size or None)
        tone = (np.sin(np.arange(rate * frames // 25) * 2 * np.pi * 440 / rate) * 9000).astype(np.int16)
        channels = av.AudioLayout(layout).nb_channels
        wave = av.AudioFrame.from_ndarray(np.repeat(tone, channels)[None], format="s16", layout=layout)
        wave.sample_rate, wave.pts, wave.time_base = rate, 0, Fraction(1, rate)
        for index in range(frames):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(numbered(index), format="rgb24")))
        out.mux(stream.encode(None))
        for piece in [*resampler.resample(wave), *resampler.resample(None)]:
            out.mux(sound.encode(piece))
        out.mux(sound.encode(None))
    return path


def late_sound(path: Path, seconds: int = 8, begin: int = 7) -> Path:
    """Sound that begins where nobody looks for it any more: FFmpeg reads five seconds to know a file's streams."""
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("libx264", rate=25), out.add_stream("aac", rate=48000, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        packets = []
        for index in range(25 * seconds):
            packets += video.encode(av.VideoFrame.from_ndarray(numbered(index), format="rgb24"))
        packets += video.encode(None)
        wave = np.sin(np.arange(48000 * (seconds - begin)) / 20).astype(np.float32)[None] * 0.3
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, begin * 48000, Fraction(1, 48000)
        packets += [*sound.encode(frame), *sound.encode(None)]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return path


def empty_track(path: Path, codec: str = "aac") -> Path:
    """A sound track that the header announces and that has no packets."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25)
        out.add_stream(codec, rate=48000, layout="stereo")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for index in range(6):
            out.mux(video.encode(av.VideoFrame.from_ndarray(numbered(index), format="rgb24")))
        out.mux(video.encode(None))
    return path


def raw_dv(path: Path, frames: int = 2) -> Path:
    """DV as cameras write it to tape: no container, and a rate that its header says in a way of its own."""
    context = av.CodecContext.create("dvvideo", "w")
    context.width, context.height, context.pix_fmt = 720, 480, "yuv411p"
    context.time_base, context.framerate = Fraction(1001, 30000), Fraction(30000, 1001)
    data = b""
    for index in range(frames):
        frame = av.VideoFrame.from_ndarray(numbered(index, 720, 480), format="rgb24").reformat(format="yuv411p")
        frame.pts = index
        data += b"".join(bytes(packet) for packet in context.encode(frame))
    path.write_bytes(data + b"".join(bytes(packet) for packet in context.encode(None)))
    return path


def count(path: Path) -> dict[str, int]:
    """Packets of each kind of stream, and `frames`: pictures decoded by plain PyAV."""
    with av.open(str(path)) as container:
        found = dict.fromkeys((s.type for s in container.streams), 0)
        for packet in container.demux():
            found[packet.stream.type] += bool(packet.size)
    with av.open(str(path)) as container:
        found["frames"] = sum(1 for _ in container.decode(video=0))
    return found


def renamed(path: Path, *names: tuple[bytes, bytes]) -> Path:
    """The file with some words in it replaced by others of their length."""
    data = path.read_bytes()
    for old, new in names:
        assert old in data and len(old) == len(new)
        data = data.replace(old, new)
    path.write_bytes(data)
    return path
