"""Footage of every kind, made in code, and what of it survives reading and writing.

`python -m tests.footage [FILE...]` prints the table for all kinds, and for the files.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import starmap
from pathlib import Path

import av
import numpy as np
from clips import make_clip, number_of, numbered, to_frame, vfr_pts

from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter
from sg3cli.video.color import BT709, BT2020, FULL, HLG, LIMITED, PQ, SMPTE170M, ColorTags
from sg3cli.video.reader import spool

FRAMES, WIDTH, HEIGHT = 8, 128, 96
BARS = np.array(
    [(255, 255, 255), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191), (30, 30, 30)],
    np.uint8,
)
FINE = EncodeConfig(preset="ultrafast", crf=1)
REORDERED = {"preset": "medium", "x264-params": "open-gop=1:scenecut=0:keyint=6:bframes=3"}
TICKS = Fraction(1, 12800)
SMPTE_2020_TEN = 14  # transfer of BT.2020 with 10 bits


def numbered_bars(index: int, width: int, height: int) -> np.ndarray:
    """`[H, W, 3]`: the index in black and white blocks above, colour bars below."""
    rgb = numbered(index, width, height)
    rgb[height // 4 :] = BARS[np.arange(width) * len(BARS) // width]
    return rgb


def with_hole(index: int, width: int, height: int) -> np.ndarray:
    """`[H, W, 4]`: the same, its lower half a ramp of transparency."""
    alpha = np.full((height, width, 1), 255, np.uint8)
    alpha[height // 2 :] = np.linspace(0, 255, width).astype(np.uint8)[:, None]
    return np.concatenate([numbered_bars(index, width, height), alpha], -1)


@dataclass(frozen=True)
class Kind:
    """How a kind of footage is made and written again; `clip` are keywords of `make_clip`."""

    name: str
    clip: dict = field(default_factory=dict)
    suffix: str = ".mp4"
    out: str = ".mp4"
    encode: EncodeConfig = FINE
    make: Callable[[Path, dict], Path] | None = None
    rate: str | None = None
    piped: bool = False
    frames: int = FRAMES
    first: int = 0  # number of the first image that is shown
    bars: bool = True  # whether the bars read are the known colours; not so with HDR or a coarse palette
    levels: int = 2  # by which they may differ when they are written


# ---- files that a muxer does not make by itself ----------------------------------------------------------------------


def edited(path: Path, clip: dict) -> Path:
    """An edit list that begins with the fourth image."""
    data = bytearray(make_clip(path, **clip).read_bytes())
    at = data.index(b"elst") + 12
    length, start = struct.unpack(">Ii", data[at : at + 8])
    data[at : at + 8] = struct.pack(">Ii", length - 3 * 40, start + 3 * 512)
    path.write_bytes(data)
    return path


def folder(suffix: str, pattern: str = "") -> Callable[[Path, dict], Path]:
    """Images in a folder, numbered without leading zeros."""

    def make(path: Path, clip: dict) -> Path:
        place = path.with_suffix("")
        place.mkdir()
        image, count = clip.get("image", numbered_bars), clip.get("frames", FRAMES)
        for index in range(count):
            still(place / f"{index + 5}{suffix}", image(index, WIDTH, HEIGHT), clip["codec"], clip["pix_fmt"])
        return place / pattern if pattern else place

    return make


def still(path: Path, rgb: np.ndarray, codec: str, pix_fmt: str) -> Path:
    """One image in a file."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = rgb.shape[:2]
    context.pix_fmt, context.time_base = pix_fmt, Fraction(1, 25)
    if codec == "mjpeg":
        context.color_range = FULL
        context.options = {"qmin": "1", "qmax": "1"}
    frame = to_frame(rgb, pix_fmt, ColorTags(SMPTE170M, range=FULL) if codec == "mjpeg" else None)
    path.write_bytes(b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)]))
    return path


def one(path: Path, clip: dict) -> Path:
    """A still."""
    return still(path, clip.get("image", numbered_bars)(0, WIDTH, HEIGHT), clip["codec"], clip["pix_fmt"])


def attached(path: Path, clip: dict) -> Path:
    """A font beside the video."""
    plain = make_clip(path.with_name("plain.mkv"), **clip)
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        out.add_attachment("face.ttf", "font/ttf", bytes(range(256)))
        out.set_chapters(source.chapters())
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    return path


DEEP = {"pix_fmt": "yuv420p10le", "options": {"crf": "1"}}
HEVC = {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "crf=1:log-level=none"}}
INTERLACED = {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1"}}
TRACKS = {"audio": ["aac", "libopus"], "subtitles": "subrip", "chapters": True, "metadata": {"title": "A film"}}


def tagged(matrix: int, transfer: int, color_range: int, primaries: int | None = None) -> dict:
    return {"tags": ColorTags(matrix, matrix if primaries is None else primaries, transfer, color_range)}


KINDS = [
    Kind("constant rate, sound", {"audio": ["aac"]}),
    Kind("30000/1001", {"rate": Fraction(30000, 1001)}),
    Kind("variable rate, sound", {"pts": vfr_pts(FRAMES), "time_base": TICKS, "audio": ["aac"]}),
    Kind("B-frames, starts at 0.5 s", {"pts": vfr_pts(FRAMES, 6400), "time_base": TICKS, "options": REORDERED}),
    Kind("starts at 1/30 s, sound", {"rate": 30, "pts": range(1, FRAMES + 1), "audio": ["aac"]}),
    Kind("edit list that skips 3", make=edited, frames=FRAMES - 3, first=3),
    *(Kind(f"turned by {turn}", {"rotation": turn, "audio": ["aac"]}) for turn in (90, 180, 270)),
    Kind("mirrored", {"hflip": True}),
    Kind("mirrored and turned", {"hflip": True, "rotation": 90}),
    Kind("turned by 90, 10 bits", DEEP | {"rotation": 90}),
    Kind("pixels of 4:3", {"aspect": Fraction(4, 3)}),
    Kind("pixels of 4:3, turned", {"aspect": Fraction(4, 3), "rotation": 90}),
    Kind("odd size, 4:4:4", {"size": (129, 97), "pix_fmt": "yuv444p"}),
    Kind("odd size, 4:2:0", {"size": (129, 97), "codec": "ffv1"}, ".mkv"),
    Kind("interlaced H.264", INTERLACED),
    Kind("interlaced MPEG-2", {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "b": "9M"}}, ".ts"),
    Kind("10 bits H.264", DEEP),
    Kind("10 bits HEVC", HEVC | {"pix_fmt": "yuv420p10le"}),
    Kind("12 bits HEVC to HEVC", HEVC | {"pix_fmt": "yuv420p12le"}, encode=EncodeConfig("libx265", 1, "ultrafast")),
    Kind("10 bits ProRes 4:2:2", {"codec": "prores_ks", "pix_fmt": "yuv422p10le"}, ".mov", ".mov"),
    Kind("BT.709, full range", tagged(BT709, BT709, FULL)),
    Kind("BT.601, limited range", tagged(SMPTE170M, SMPTE170M, LIMITED)),
    Kind("BT.601, full range", tagged(SMPTE170M, SMPTE170M, FULL)),
    Kind("BT.2020 10 bits", DEEP | tagged(BT2020, SMPTE_2020_TEN, LIMITED)),
    Kind("PQ", DEEP | tagged(BT2020, PQ, LIMITED), bars=False),
    Kind("HLG", DEEP | tagged(BT2020, HLG, LIMITED), bars=False),
    Kind("Motion JPEG", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "options": {"qmin": "1", "qmax": "1"},
         **tagged(SMPTE170M, SMPTE170M, FULL)}, ".mov"),
    Kind("VP9 with alpha", {"codec": "libvpx-vp9", "pix_fmt": "yuva420p", "image": with_hole, "options":
         {"auto-alt-ref": "0", "deadline": "realtime", "crf": "2", "b": "0"}, "audio": ["libopus"]}, ".webm", ".webm",
         EncodeConfig("libvpx-vp9", 2, lossless=True)),
    Kind("ProRes 4444 with alpha", {"codec": "prores_ks", "pix_fmt": "yuva444p10le", "image": with_hole}, ".mov",
         ".mov", EncodeConfig("prores_ks")),
    Kind("GIF", {"codec": "gif", "pix_fmt": "rgb8", "rate": 10}, ".gif", bars=False, levels=8),
    Kind("APNG", {"codec": "apng", "pix_fmt": "rgb24"}, ".apng"),
    Kind("APNG with alpha", {"codec": "apng", "pix_fmt": "rgba", "image": with_hole}, ".apng", ".mkv",
         EncodeConfig("ffv1")),
    Kind("folder of PNG", {"codec": "png", "pix_fmt": "rgb24"}, make=folder(".png"), rate="12"),
    Kind("folder of PNG to PNG", {"codec": "png", "pix_fmt": "rgba", "image": with_hole}, out="/f%03d.png",
         make=folder(".png")),
    Kind("pattern of JPEG", {"codec": "mjpeg", "pix_fmt": "yuvj444p"}, make=folder(".jpg", "%d.jpg"),
         rate="30000/1001"),
    Kind("PNG of 16 bits", {"codec": "png", "pix_fmt": "rgb48be"}, out=".mkv", make=folder(".png"),
         encode=EncodeConfig("ffv1")),
    Kind("a still to a still", {"codec": "png", "pix_fmt": "rgb24"}, ".png", ".png", make=one, frames=1),
    Kind("raw frames on stdin", {"codec": "wrapped_avframe"}, ".y4m", piped=True),
    Kind("Matroska on stdin", {"audio": ["libopus"]}, ".mkv", ".mkv", piped=True),
    Kind("NUT on stdin", {"codec": "ffv1", "audio": ["pcm_s16le"]}, ".nut", ".mkv", piped=True),
    Kind("fragmented MP4 on stdin", {"container": {"movflags": "frag_keyframe+empty_moov"}, "audio": ["aac"]},
         piped=True),
    Kind("MPEG-TS on stdin", {"audio": ["aac"]}, ".ts", piped=True),
    Kind("tracks, chapters, attachment", TRACKS, ".mkv", ".mkv", make=attached),
    Kind("MP4 with timed text", {"audio": ["aac", "libmp3lame"], "subtitles": "mov_text", "chapters": True}),
    Kind("AVI with B-frames", {"codec": "mpeg4", "options": {"bf": "2", "qmin": "1", "qmax": "1"}}, ".avi"),
    Kind("AV1", {"codec": "libsvtav1", "options": {"preset": "10", "crf": "1", "svtav1-params": "lp=1"}}, ".mkv"),
]  # fmt: skip


# ---- reading and writing ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """What came out, against what went in. `numbers`: the images by the numbers they show."""

    name: str
    frames: tuple[int, int]
    late: float  # seconds by which a frame's time differs, at most
    end: float  # seconds by which the duration differs
    size: tuple[tuple[int, int], tuple[int, int]]
    aspect: tuple[Fraction, Fraction]
    turned: tuple[int, int]
    bits: tuple[int, int]
    tags: tuple[ColorTags, ColorTags]
    levels: tuple[int, int]  # of the bars: as read from the known ones, as written from those read
    alpha: int | None  # by which transparency differs, at most
    packets: tuple[int, int]  # of sound and subtitles, and how many kinds of them are not the same
    numbers: tuple[list[int], list[int]]
    notices: list[str]

    def cells(self) -> list[str]:
        """For a line of a table."""
        source, out = self.tags

        def pair(values: tuple) -> str:
            return f"{values[0]}" if values[0] == values[1] else f"{values[0]} > {values[1]}"

        return [
            self.name,
            pair(self.frames),
            f"{1000 * self.late:.1f}",
            f"{1000 * self.end:.1f}",
            pair(tuple(f"{w}x{h}" for w, h in self.size)),
            pair(self.aspect),
            pair(self.turned),
            pair(self.bits),
            pair(tuple(f"{t.matrix}/{t.primaries}/{t.transfer}/{t.range}" for t in (source, out))),
            f"{self.levels[0] if self.levels[0] >= 0 else '-'}, {self.levels[1]}",
            "-" if self.alpha is None else str(self.alpha),
            f"{self.packets[0]}, {self.packets[1]}",
            "; ".join(self.notices),
        ]


HEADS = ["kind", "frames", "pts off ms", "end off ms", "size", "pixel", "turned", "bits", "matrix/prim/trc/range",
         "bars off: read, written", "alpha off", "packets, kinds unequal", "notices"]  # fmt: skip


def made(kind: Kind, place: Path) -> Path:
    """The footage, in a folder of its own."""
    clip = {"frames": FRAMES, "size": (WIDTH, HEIGHT), "image": numbered_bars} | kind.clip
    path = place / f"in{kind.suffix}"
    return kind.make(path, clip) if kind.make else make_clip(path, **clip)


def through(kind: Kind, place: Path) -> Row:
    """Make the footage, read it, write it, and compare."""
    place.mkdir(exist_ok=True)
    out = place / (f"out{kind.out}")
    source = made(kind, place)
    if not kind.piped:
        return compare(kind.name, source, out, kind.encode, kind.rate, kind.bars)
    with source.open("rb") as pipe, spool(pipe) as piped:
        return compare(kind.name, Path(piped.name), out, kind.encode, kind.rate, kind.bars)


def compare(
    name: str, source: Path, out: Path, encode: EncodeConfig = FINE, rate: str | None = None, bars: bool = False
) -> Row:
    """Source -> out through reader and writer, and what of it is the same."""
    with VideoReader(source, rate=rate) as reader, VideoWriter(out, reader.info, encode) as writer:
        before = [frame for frame in reader if not writer.write(frame)]
    with VideoReader(out, rate=rate or str(reader.info.average_rate)) as again:
        after = list(again)
    old, new = reader.info, again.info
    late = max(abs(a.pts * a.time_base - b.pts * b.time_base) for a, b in zip(before, after, strict=False))
    pairs = [
        (payloads(source, kind), payloads(out, kind)) for kind in ("audio", "subtitle") if old.audio or old.subtitles
    ]
    seen, written = ([as_made(frame, old.orientation) for frame in frames] for frames in (before, after))
    return Row(
        name,
        (len(before), len(after)),
        float(late),
        abs(old.duration - new.duration),
        ((old.width, old.height), (new.width, new.height)),
        (old.sample_aspect_ratio, new.sample_aspect_ratio),
        (old.rotation, new.rotation),
        (old.bit_depth, new.bit_depth),
        (old.color, new.color),
        (
            most([np.abs(bars_of(rgb) - BARS) for rgb in seen]) if bars else -1,
            most([np.abs(bars_of(a) - bars_of(b)) for a, b in zip(seen, written, strict=False)]),
        ),
        alpha_off(before, after) if old.alpha else None,
        (sum(len(a) for a, _ in pairs), sum(sorted(a) != sorted(b) for a, b in pairs)),
        ([number_of(rgb) for rgb in seen], [number_of(rgb) for rgb in written]),
        [*reader.notices, *writer.notices],
    )


def most(values: list[np.ndarray]) -> int:
    return int(np.ceil(max(array.max() for array in values) - 0.5))


def as_made(frame, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    """The image of a frame as it was before its display matrix turned it."""
    transpose, mirror_columns, mirror_rows = orientation
    rgb = frame.rgb[:: -1 if mirror_rows else 1, :: -1 if mirror_columns else 1]
    return rgb.swapaxes(0, 1) if transpose else rgb


def bars_of(rgb: np.ndarray) -> np.ndarray:
    """`[8, 3]`: the middles of the bars, means of 4x4 pixels."""
    step, row = rgb.shape[1] / len(BARS), rgb.shape[0] // 2
    middles = [int(step * (k + 0.5)) for k in range(len(BARS))]
    return np.array([rgb[row - 2 : row + 2, x - 2 : x + 2].mean((0, 1)) for x in middles])


def payloads(path: Path, kind: str) -> list[bytes]:
    """The packets of a kind of stream; AAC without the header of 7 bytes that it needs in a transport stream only."""
    with av.open(str(path)) as container:
        streams = [stream for stream in container.streams if stream.type == kind]
        data = [bytes(packet) for packet in (container.demux(streams) if streams else ()) if packet.size]
    return [piece[7:] if piece[:2] in (b"\xff\xf1", b"\xff\xf9") else piece for piece in sorted(data)]


def alpha_off(before: list, after: list) -> int:
    """Levels by which transparency differs."""

    def alpha(frame) -> np.ndarray:
        return frame.stored.image.to_ndarray(format="rgba")[..., 3].astype(int)

    return most([np.abs(alpha(a) - alpha(b)) for a, b in zip(before, after, strict=True)])


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as place:
        rows = list(starmap(through, ((kind, Path(place) / str(i)) for i, kind in enumerate(KINDS))))
        for number, name in enumerate(sys.argv[1:]):
            path = Path(name)
            rows.append(compare(path.name, path, Path(place) / f"{number}.mp4", EncodeConfig(preset="veryfast")))
    print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
    for row in rows:
        print("| " + " | ".join(row.cells()) + " |")


if __name__ == "__main__":
    main()
