"""What the bytes of an image file say that no decoder tells: its kind whatever its name, animation, colour profile."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from sg3cli.video.heif import facts_of

HEAD = 64
ICC_TAG, TILE_TAG, COMPRESSION_TAG, COLOURS_TAG, NUMBERS_TAG = 34675, 322, 259, 262, 339  # of a TIFF
MOST_PROFILE = 1 << 22  # bytes of a colour profile, unpacked
KINDS = (  # how a file begins, FFmpeg's name for what reads it
    (b"\xff\xd8\xff", "jpeg_pipe"),
    (b"\x89PNG\r\n\x1a\n", "png_pipe"),
    (b"BM", "bmp_pipe"),
    (b"II*\0", "tiff_pipe"),
    (b"MM\0*", "tiff_pipe"),
    (b"GIF8", "gif"),
)
NAMES = (  # of what is not read, for an error
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"%PDF", "a PDF document"),
    (b"<", "a web page or a drawing (SVG)"),
    (b"version https://git-lfs", "a git-lfs pointer, not the picture itself"),
)


def kind_of(path: Path) -> str:
    """FFmpeg's name of the demuxer for the image at `path`, by its first bytes; empty for what is none."""
    head = _head(path)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp_pipe"
    if head[4:8] == b"ftyp":
        return "mov"
    return next((kind for magic, kind in KINDS if head.startswith(magic)), "")


def fault_of(path: Path) -> str:
    """In words what a file is that is no image for us; empty when it is one, or when it is not known."""
    head, kind = _head(path), kind_of(path)
    if kind == "webp_pipe" and is_animated(path):
        return "an animated WebP"
    with suppress(OSError, struct.error):
        if kind == "tiff_pipe":
            return _tiff_fault(path)
    if kind == "mov":
        facts = facts_of(path)
        if facts.kind in ("iovl", "iden") or (facts.kind == "grid" and facts.grid is None):
            return "a HEIF image that is composed of others in a way"
    return next((name for magic, name in NAMES if head.startswith(magic)), "")


def is_animated(path: Path) -> bool:
    """Whether the file holds several images that are shown one after the other (APNG, WebP, AVIF, GIF)."""
    head = _head(path)
    kind = kind_of(path)
    if kind == "png_pipe":
        return any(name == b"acTL" for name, _ in _png_chunks(path))
    if kind == "webp_pipe":
        return head[12:16] == b"VP8X" and bool(head[20] & 2)
    return kind == "gif" or (kind == "mov" and head[8:12] not in (b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1"))


def profile_of(path: Path) -> bytes:
    """The colour profile (ICC) of the image in a file, empty when there is none or it is damaged."""
    readers = {"png_pipe": _png_profile, "jpeg_pipe": _jpeg_profile, "webp_pipe": _webp_profile}
    readers |= {"tiff_pipe": _tiff_profile, "mov": _heif_profile}
    with suppress(OSError, struct.error, zlib.error, ValueError, IndexError):
        if read := readers.get(kind_of(path)):
            return read(path)[:MOST_PROFILE]
    return b""


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def _png_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """(name, data) of the chunks before the image's own; data of small ones only."""
    with path.open("rb") as file:
        file.seek(8)
        while len(start := file.read(8)) == 8:
            length, name = struct.unpack(">I4s", start)
            if name in (b"IDAT", b"IEND") or length > MOST_PROFILE:
                return
            yield name, file.read(length)
            file.seek(4, 1)


def _png_profile(path: Path) -> bytes:
    data = next((data for name, data in _png_chunks(path) if name == b"iCCP"), b"")
    return zlib.decompressobj().decompress(data[data.index(b"\0") + 2 :], MOST_PROFILE) if data else b""


def _jpeg_profile(path: Path) -> bytes:
    """From the APP2 segments, which are numbered because one holds no more than 64 kB."""
    segments = [data for kind, data in _jpeg_segments(path) if kind == 0xE2 and data.startswith(b"ICC_PROFILE\0")]
    parts = {data[12]: data[14:] for data in segments}
    return b"".join(parts[number] for number in sorted(parts))


def _jpeg_segments(path: Path) -> Iterator[tuple[int, bytes]]:
    """(kind, data) of the segments before the image's own."""
    with path.open("rb") as file:
        file.seek(2)
        while len(start := file.read(4)) == 4 and start[0] == 0xFF and start[1] not in (0xDA, 0xD9):
            yield start[1], file.read(int.from_bytes(start[2:], "big") - 2)


def _webp_profile(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(12)
        while len(start := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", start)
            if name == b"ICCP":
                return file.read(min(length, MOST_PROFILE))
            file.seek(length + length % 2, 1)
    return b""


def _tiff_entries(path: Path) -> Iterator[tuple[int, int, int, int]]:
    """(tag, count, place, value) of the first directory: where an entry's values are, and the first if it is there."""
    with path.open("rb") as file:
        order = "<" if file.read(2) == b"II" else ">"
        file.seek(4)
        file.seek(struct.unpack(f"{order}I", file.read(4))[0])
        entries = [file.read(12) for _ in range(struct.unpack(f"{order}H", file.read(2))[0])]
        for entry in entries:
            tag, kind, count, place = struct.unpack(f"{order}HHII", entry)
            value = place
            if kind == 3:  # two bytes each: up to two of them are in the entry itself
                file.seek(place)
                value = struct.unpack(f"{order}H", entry[8:10] if count < 3 else file.read(2))[0]
            yield tag, count, place, value


def _tiff_profile(path: Path) -> bytes:
    for tag, count, place, _ in _tiff_entries(path):
        if tag == ICC_TAG:
            with path.open("rb") as file:
                file.seek(place)
                return file.read(min(count, MOST_PROFILE))
    return b""


def _tiff_fault(path: Path) -> str:
    """What of a TIFF FFmpeg would draw black or in wrong colours without a word."""
    values = {tag: value for tag, _, _, value in _tiff_entries(path)}
    if TILE_TAG in values:
        return "a TIFF in tiles"
    if values.get(COMPRESSION_TAG) in (6, 7):
        return "a TIFF with a JPEG inside"
    if values.get(COLOURS_TAG, 2) not in (0, 1, 2, 3, 5):  # grey, RGB, palette, CMYK
        return "a TIFF in other colours than RGB"
    return "a TIFF of signed numbers" if values.get(NUMBERS_TAG) == 2 else ""


def _heif_profile(path: Path) -> bytes:
    """The first `colr` box that holds a profile; the boxes about an image come before it or at the file's end."""
    data = path.read_bytes() if path.stat().st_size < 1 << 26 else b""
    at = data.find(b"colrprof")
    return data[at + 8 : at - 4 + int.from_bytes(data[at - 4 : at], "big")] if at >= 4 else b""


def comment_of(path: Path) -> str:
    """The comment in a PNG (a text entry) or a JPEG (a segment of its own), empty when there is none."""
    with suppress(OSError, struct.error, ValueError):
        if kind_of(path) == "png_pipe":
            begin = b"Comment\0\0\0\0\0"  # neither packed nor translated
            chunks = (data for name, data in _png_chunks(path) if name == b"iTXt" and data.startswith(begin))
            return next(chunks, begin)[len(begin) :].decode("utf8")
        if kind_of(path) == "jpeg_pipe":
            return next((data for kind, data in _jpeg_segments(path) if kind == 0xFE), b"").decode("utf8")
    return ""
