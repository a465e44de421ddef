"""Media files that are cut off, spoiled or malicious, made in code from a seed; and a process that reads them.

Run as a script it reads the paths on its standard input one by one and prints a line of JSON for each. The parent
sees a crash of the native libraries as the end of that process, and a hang as a line that does not come.
"""

from __future__ import annotations

import json
import select
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from clips import make_clip

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 20.0  # seconds for one file
FTYP = b"\0\0\0\x18ftypisom\0\0\0\0isomiso2"  # how an MP4 begins

SOURCES: dict[str, dict] = {
    "plain.mp4": {"options": {"preset": "medium", "x264-params": "bframes=2:keyint=6"}, "audio": ["aac"]},
    "fast.mp4": {"container": {"movflags": "faststart"}, "rotation": 90},
    "pieces.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none"}, "pix_fmt": "yuv420p10le"},
    "film.mkv": {"audio": ["aac"], "subtitles": "subrip", "chapters": True},
    "web.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}, "audio": ["libopus"]},
    "old.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "frames.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "broadcast.ts": {"audio": ["aac"]},
    "disc.mpg": {"codec": "mpeg2video"},
    "lossless.nut": {"codec": "ffv1", "pix_fmt": "yuv444p"},
    "studio.mov": {"codec": "prores_ks", "pix_fmt": "yuva444p10le"},
    "flash.flv": {"codec": "flv1"},
    "loop.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "loop.apng": {"codec": "apng", "pix_fmt": "rgba"},
    "raw.y4m": {"codec": "wrapped_avframe"},
    "bare.h264": {},
    "bare.ivf": {"codec": "libvpx", "options": {"deadline": "realtime"}},
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1"}},
}


def sources(folder: Path) -> dict[str, bytes]:
    """Sound files of many containers and codecs, as bytes."""
    made = {}
    for name, keywords in SOURCES.items():
        make_clip(folder / name, frames=8, size=(64, 64), **keywords)
        made[name] = (folder / name).read_bytes()
    return made


# ---- what is done to them --------------------------------------------------------------------------------------------


def cut(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: int(len(data) * rng.uniform(0.02, 0.98))])


def headless(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[int(len(data) * rng.uniform(0.01, 0.5)) :])


def some_bits(data: bytearray, rng: np.random.Generator) -> bytes:
    return flipped(data, rng, int(rng.integers(1, 12)), len(data))


def many_bits(data: bytearray, rng: np.random.Generator) -> bytes:
    return flipped(data, rng, len(data) // 40, len(data))


def header_bits(data: bytearray, rng: np.random.Generator) -> bytes:
    return flipped(data, rng, int(rng.integers(1, 10)), min(len(data), 400))


def tail_bits(data: bytearray, rng: np.random.Generator) -> bytes:
    tail = min(len(data), 1500)  # where MP4 has its index
    return bytes(data[:-tail]) + flipped(data[-tail:], rng, int(rng.integers(1, 16)), tail)


def flipped(data: bytearray, rng: np.random.Generator, count: int, within: int) -> bytes:
    data = bytearray(data)
    for at in rng.integers(0, within, max(1, count)):
        data[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


def huge_numbers(data: bytearray, rng: np.random.Generator) -> bytes:
    data = bytearray(data)
    for at in rng.integers(0, len(data) - 8, int(rng.integers(1, 6))):
        data[at : at + 4] = [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\x80\0\0\0"][int(rng.integers(4))]
    return bytes(data)


def zeros(data: bytearray, rng: np.random.Generator) -> bytes:
    first, last = sorted(rng.integers(0, len(data), 2))
    return bytes(data[:first]) + bytes(int(last - first)) + bytes(data[last:])


def shuffled(data: bytearray, rng: np.random.Generator) -> bytes:
    a, b, c = sorted(rng.integers(0, len(data), 3))
    return bytes(data[:a] + data[b:c] + data[a:b] + data[c:])


def doubled(data: bytearray, rng: np.random.Generator) -> bytes:
    a, b = sorted(rng.integers(0, len(data), 2))
    return bytes(data[:b] + data[a:])


SPOILERS: tuple[Callable[[bytearray, np.random.Generator], bytes], ...] = (
    cut, headless, some_bits, many_bits, header_bits, tail_bits, huge_numbers, zeros, shuffled, doubled,
)  # fmt: skip


def spoiled(folder: Path, count: int, seed: int) -> list[Path]:
    """`count` files: sources and ways to spoil them in turn, each by its own number."""
    folder.mkdir(exist_ok=True)
    whole = sources(folder)
    for name in whole:
        (folder / name).unlink()
    paths = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        name = list(whole)[number % len(whole)]
        spoil = SPOILERS[(number // len(whole) + number) % len(SPOILERS)]
        path = folder / f"{number:04d}-{spoil.__name__}-{name}"
        path.write_bytes(spoil(bytearray(whole[name]), rng))
        paths.append(path)
    return paths


# ---- made by hand ----------------------------------------------------------------------------------------------------


def malicious(folder: Path) -> list[Path]:
    """Absurd sizes and counts, other files' contents by reference, other formats under a video's name."""
    folder.mkdir(exist_ok=True)
    secret = make_clip(folder / "secret.mp4", frames=3)
    files: dict[str, bytes] = {
        "huge.y4m": b"YUV4MPEG2 W60000 H60000 F25:1 Ip A1:1 C420jpeg\nFRAME\n" + bytes(5000),
        "negative.y4m": b"YUV4MPEG2 W-64 H-64 F25:1\nFRAME\n" + bytes(5000),
        "rateless.y4m": b"YUV4MPEG2 W64 H64 F0:0\nFRAME\n" + bytes(6144),
        "frantic.y4m": b"YUV4MPEG2 W64 H64 F2147483647:1\nFRAME\n" + bytes(6144),
        "wide.gif": b"GIF89a\xff\xff\xff\xff\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;",
        "huge.png": png(60000, 60000),
        "large.png": png(30000, 20000),
        "bomb.apng": png(60000, 60000, animated=True),
        "huge.avi": _patched(folder, "a.avi", {"codec": "mpeg4"}, [(64, 48, 60000, 60000)], "<II"),
        "huge.mkv": _patched(folder, "a.mkv", {}, [], ""),
        "long.mp4": _long(folder),
        "many.mp4": _many_samples(folder),
        "list.mp4": b"ffconcat version 1.0\nfile secret.mp4\n",
        "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "list.mpd": b"<?xml version='1.0'?><MPD><Period><BaseURL>secret.mp4</BaseURL></Period></MPD>",
        "list.sdp": b"v=0\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "list.vpl.mp4": b"# VapourSynth\nimport os\n",
        "list.avs": b'AviSource("secret.mp4")\n',
        "pickle.mp4": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
        "page.mp4": b"<!DOCTYPE html><html><body>404</body></html>",
        "text.srt": b"1\n00:00:01,000 --> 00:00:02,000\nHello\n",
        "zeros.mp4": bytes(200_000),
        "ones.mkv": b"\xff" * 200_000,
        "noise.ts": np.random.default_rng(1).bytes(400_000),
        "sync.ts": (b"\x47" + bytes(187)) * 2000,
        "boxes.mp4": FTYP + b"\0\0\0\x08moov" * 2000,
        "nested.mp4": FTYP + b"".join(struct.pack(">I4s", 8 * n, b"moov") for n in range(3000, 0, -1)),
        "elf.mkv": b"\x7fELF" + bytes(4000),
        "newline\n.mp4": b"not a video",
    }  # fmt: skip
    for name, data in files.items():
        if data:
            (folder / name).write_bytes(data)
    with zipfile.ZipFile(folder / "archive.mp4", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1_000_000))
    links = {"loop.mp4": "loop.mp4", "nowhere.mp4": "missing", "zero.mp4": "/dev/zero", "null.mp4": "/dev/null"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    made = [folder / name for name, data in files.items() if data]
    strange = [folder / f"concat:{secret.name}|{secret.name}", Path(f"file:{secret}"), Path("http://127.0.0.1:9/a.mp4")]
    return [*made, folder / "archive.mp4", *(folder / name for name in links), *strange, Path("/dev/zero"), folder]


def png(width: int, height: int, animated: bool = False) -> bytes:
    """A PNG that claims this size and holds one line of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    video = chunk(b"acTL", struct.pack(">II", 0xFFFFFFFF, 0)) if animated else b""
    control = struct.pack(">IIIIIHHBB", 0, width, height, 0, 0, 1, 25, 0, 0)
    video += chunk(b"fcTL", control) if animated else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + video
        + chunk(b"IDAT", zlib.compress(bytes(width * 3 + 1)))
        + chunk(b"IEND", b"")
    )


def _patched(folder: Path, name: str, keywords: dict, sizes: list[tuple[int, int, int, int]], form: str) -> bytes:
    """A clip whose declared sizes are replaced: (width, height) -> another."""
    data = make_clip(folder / name, frames=4, **keywords).read_bytes()
    (folder / name).unlink()
    for width, height, wider, higher in sizes:
        data = data.replace(struct.pack(form, width, height), struct.pack(form, wider, higher))
    if name.endswith(".mkv"):  # PixelWidth (B0), PixelHeight (BA): one byte each
        data = data.replace(b"\xb0\x81\x40", b"\xb0\x81\xff").replace(b"\xba\x81\x30", b"\xba\x81\xff")
    return data


def _long(folder: Path) -> bytes:
    """An MP4 whose first image lasts for years."""
    data = make_clip(folder / "l.mp4", frames=4, pts=[0, 1, 2, 3]).read_bytes()
    (folder / "l.mp4").unlink()
    at = data.index(b"stts") + 12
    return data[:at] + struct.pack(">II", 1, 0x7FFFFFFF) + data[at + 8 :]


def _many_samples(folder: Path) -> bytes:
    """An MP4 of four images that claims two thousand million of one byte each."""
    data = bytearray(make_clip(folder / "m.mp4", frames=4).read_bytes())
    (folder / "m.mp4").unlink()
    at = data.index(b"stsz") + 8
    data[at : at + 8] = struct.pack(">II", 1, 0x7FFFFFFF)
    at = data.index(b"stts") + 12
    data[at : at + 4] = struct.pack(">I", 0x7FFFFFFF)
    at = data.index(b"stsc") + 16
    data[at : at + 4] = struct.pack(">I", 0x7FFFFFFF)
    return bytes(data)


# ---- reading them in another process ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How one file ended: `complete`, `error` (ours, with a hint) or what else happened."""

    name: str
    kind: str
    text: str
    frames: int
    seconds: float
    peak: int  # bytes, of the process up to here


def read_all(paths: Iterable[Path]) -> list[Outcome]:
    """The outcome for each path; the process is started again after a crash or a hang."""
    waiting, outcomes = list(paths), []
    while waiting:
        outcomes += _one_process(waiting)
    return outcomes


def _one_process(waiting: list[Path]) -> Iterator[Outcome]:
    """Reads from the front of `waiting` until it is empty or the process ends."""
    command = [sys.executable, __file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps([str(path) for path in waiting]) + "\n")
        process.stdin.flush()
        process.stdout.readline()  # it is ready: imports do not count
        while waiting:
            ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
            line = process.stdout.readline() if ready else ""
            path = waiting.pop(0)
            if not line:
                process.kill()
                code = process.wait()
                yield Outcome(path.name, "crash" if ready else "hang", f"exit code {code}", 0, PATIENCE, 0)
                return
            yield Outcome(**json.loads(line))


def peak_memory() -> int:
    """Most bytes that this process has held (`getrusage` also counts what its parent held when it was made)."""
    status = Path("/proc/self/status").read_text(encoding="utf8")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Read what is asked for on standard input, and write it again."""
    from sg3cli.errors import Sg3Error
    from sg3cli.settings import EncodeConfig
    from sg3cli.video import VideoReader, VideoWriter, frame_pts

    paths = json.loads(sys.stdin.readline())
    out, encode = Path(tempfile.mkdtemp()) / "out.mkv", EncodeConfig(preset="ultrafast")
    print("ready", flush=True)
    for path in paths:
        began, frames = time.monotonic(), 0
        try:
            with VideoReader(path) as reader, VideoWriter(out, reader.info, encode) as writer:
                for frame in reader:
                    writer.write(frame)
                    frames += 1
            written = len(frame_pts(out))
            whole = frames == len(reader) == written > 0
            kind, text = ("complete", "") if whole else ("partial", f"{written} of {frames} of {len(reader)}")
        except Sg3Error as error:
            two_lines = bool(error.hint) and not any("\n" in part for part in (str(error), error.hint))
            kind, text = ("error" if two_lines else "untidy"), str(error)
        except BaseException as error:  # noqa: BLE001 (the test is that there is none)
            kind, text = "bug", f"{type(error).__name__}: {error}"
        outcome = Outcome(Path(path).name, kind, text, frames, time.monotonic() - began, peak_memory())
        print(json.dumps(outcome.__dict__), flush=True)


if __name__ == "__main__":
    main()
