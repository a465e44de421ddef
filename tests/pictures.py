"""Image files as cameras and programs write them, by encoders of others; and colour profiles made by hand."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from clips import to_frame
from PIL import Image

from sg3cli.video.color import FULL, SMPTE170M, ColorTags

D50 = (0.9642, 1.0, 0.8249)
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def scene(width: int = 192, height: int = 128) -> np.ndarray:
    """`[H, W, 3]`: soft colours and a bright corner at the top left, so that every turn shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    rgb = np.stack([x / width * 200 + 30, y / height * 200 + 30, 128 + 90 * np.sin(x / 23) * np.cos(y / 17)], -1)
    rgb[: height // 4, : width // 4] = (250, 240, 60)
    return rgb.astype(np.uint8)


def curve(kind: str) -> bytes:
    """A tag of a tone curve: of sRGB (`para`), gamma 2.2 (`gamma`) or a table of gamma 1.8 (`table`)."""
    if kind == "para":
        values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return b"para" + bytes(4) + struct.pack(">HH", 3, 0) + b"".join(map(_fixed, values))
    if kind == "gamma":
        return b"curv" + bytes(4) + struct.pack(">IH", 1, 563)
    return (
        b"curv" + bytes(4) + struct.pack(">I", 1024) + (np.linspace(0, 1, 1024) ** 1.8 * 65535).astype(">u2").tobytes()
    )


def profile(primaries: tuple[tuple[float, ...], ...], tone: str, name: str, **tags: bytes) -> bytes:
    """An ICC profile of three curves and a matrix; `tags` are put beside."""

    def text(words: str) -> bytes:
        data = words.encode("utf-16-be")
        return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(data), 28) + data

    held = {b"desc": text(name), b"cprt": text("CC0"), b"wtpt": _xyz(D50)}
    for letter, xyz in zip("rgb", primaries, strict=True):
        held[f"{letter}XYZ".encode()], held[f"{letter}TRC".encode()] = _xyz(xyz), curve(tone)
    held |= {key.encode(): value for key, value in tags.items()}
    directory, data, start = b"", b"", 132 + 12 * len(held)
    for key, value in held.items():
        directory += struct.pack(">4sII", key, start + len(data), len(value))
        data += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", start + len(data), b"none", 0x04000000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(map(_fixed, D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(held)) + directory + data


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, values))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags.tobytes()


def _alpha(rgb: np.ndarray) -> Image.Image:
    image = Image.fromarray(rgb)
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, rgb.shape[1]).astype(np.uint8), (rgb.shape[0], 1))))
    return image


def by_pillow(mode: str = "RGB", **options: Any) -> Callable[[Path, np.ndarray], object]:
    return lambda path, rgb: Image.fromarray(rgb).convert(mode).save(path, **options)


def by_opencv(depth: type = np.uint8, *options: int) -> Callable[[Path, np.ndarray], object]:
    scale = np.iinfo(depth).max // 255
    return lambda path, rgb: cv2.imwrite(str(path), rgb[..., ::-1].astype(depth) * depth(scale), options)


def transparent(**options: Any) -> Callable[[Path, np.ndarray], object]:
    return lambda path, rgb: _alpha(rgb).save(path, **options)


def animated(**options: Any) -> Callable[[Path, np.ndarray], object]:
    """Three images, each turned by 180 degrees against the one before."""

    def write(path: Path, rgb: np.ndarray) -> None:
        image = Image.fromarray(rgb)
        image.save(path, save_all=True, append_images=[image.rotate(180), image], duration=100, **options)

    return write


# name -> how it is written, levels by which a channel may be off in the mean
KINDS: dict[str, tuple[Callable[[Path, np.ndarray], object], float]] = {
    "pillow.jpg": (by_pillow(quality=92), 2),
    "progressive.jpg": (by_pillow(progressive=True, quality=92), 2),
    "444.jpeg": (by_pillow(subsampling=0, quality=95), 1),
    "422.JPG": (by_pillow(subsampling=1, quality=92), 2),
    "restart.jpg": (by_pillow(restart_marker_blocks=3, quality=92), 2),
    "grey.jpg": (by_pillow("L", quality=95), 1),
    "cmyk.jpg": (by_pillow("CMYK", quality=95), 2),
    "cmyk-progressive.jpg": (by_pillow("CMYK", progressive=True, quality=95), 2),
    "opencv.jpg": (by_opencv(np.uint8, cv2.IMWRITE_JPEG_QUALITY, 95), 2),
    "opencv-optimised.jpg": (by_opencv(np.uint8, cv2.IMWRITE_JPEG_OPTIMIZE, 1), 2),
    "two-in-one.jpg": (animated(format="MPO", quality=92), 2),
    "a number %03d.jpg": (by_pillow(quality=92), 2),
    "a jpeg by the name of.png": (by_pillow(format="JPEG", quality=92), 2),
    "a png by the name of.jpg": (by_pillow(format="PNG"), 0.5),
    "rgb.png": (by_pillow(), 0.5),
    "rgba.png": (transparent(), 0.5),
    "palette.png": (by_pillow("P"), 30),
    "grey.png": (by_pillow("L"), 0.5),
    "bits.png": (by_pillow("1"), 120),
    "deep.png": (by_opencv(np.uint16), 1),
    "deep.tif": (by_opencv(np.uint16), 1),
    "plain.tif": (by_pillow(), 0.5),
    "lzw.tiff": (by_pillow(compression="tiff_lzw"), 0.5),
    "cmyk.tif": (by_pillow("CMYK"), 2),
    "rgba.tif": (transparent(), 0.5),
    "rgb.bmp": (by_pillow(), 0.5),
    "rgba.bmp": (transparent(), 0.5),
    "palette.bmp": (by_pillow("P"), 30),
    "lossy.webp": (by_pillow(quality=92), 3),
    "lossless.webp": (by_pillow(lossless=True), 0.5),
    "rgba.webp": (transparent(lossless=True, exact=True), 0.5),
    "still.avif": (by_pillow(quality=92), 3),
    "rgba.avif": (transparent(quality=92), 3),
}
FILMS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "animated.png": animated(),
    "animated.gif": animated(),
    "animated.avif": animated(quality=92),
}


# ---- HEIC, as telephones write it: tiles of HEVC and a grid that says how they lie -----------------------------------


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full(kind: bytes, version: int, *parts: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24), *parts)


def hevc(rgb: np.ndarray) -> tuple[bytes, bytes]:
    """(decoder configuration, coded image) of one tile."""
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as out:
        options = {"preset": "ultrafast", "x265-params": "crf=4:log-level=none:keyint=1"}
        stream = out.add_stream("libx265", rate=25, options=options)
        stream.height, stream.width = rgb.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.color_range = 2
        frame = to_frame(rgb, "yuv420p", ColorTags(SMPTE170M, range=FULL))
        out.mux([*stream.encode(frame), *stream.encode(None)])
    memory.seek(0)
    with av.open(memory) as back:
        stream = back.streams.video[0]
        return bytes(stream.codec_context.extradata), bytes(next(p for p in back.demux(stream) if p.size))


def heic(
    path: Path, rgb: np.ndarray, tile: int = 64, turns: int = 0, profile: bytes = b"", thumbnail: bool = True
) -> Path:
    """`rgb [H, W, 3]` in tiles, to be turned left by 90 degrees `turns` times, with a small image beside it."""
    height, width = rgb.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.pad(rgb, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge")
    coded = [hevc(padded[y : y + tile, x : x + tile]) for y in range(0, height, tile) for x in range(0, width, tile)]
    if thumbnail:
        coded.append(hevc(np.ascontiguousarray(padded[::2, ::2][:64, :64])))
    tiles, grid = rows * columns, len(coded) + 1
    properties = [box(b"hvcC", coded[0][0]), full(b"ispe", 0, struct.pack(">II", tile, tile))]
    properties += [full(b"ispe", 0, struct.pack(">II", width, height)), box(b"irot", bytes([turns]))]
    properties += [box(b"colr", b"prof", profile)] if profile else []
    uses = {number: (1 | 0x80, 2) for number in range(1, grid)} | {grid: (3, 4 | 0x80, *((5,) if profile else ()))}
    rules = b"".join(struct.pack(">HB", n, len(used)) + bytes(used) for n, used in uses.items())
    items = b"".join(
        full(b"infe", 2, struct.pack(">HH4sB", n, 0, b"grid" if n == grid else b"hvc1", 0)) for n in range(1, grid + 1)
    )
    links = box(b"dimg", struct.pack(f">HH{tiles}H", grid, tiles, *range(1, tiles + 1)))
    links += box(b"thmb", struct.pack(">HHH", grid - 1, 1, grid)) if thumbnail else b""
    layout = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)

    def meta(start: int) -> bytes:
        places, at = b"", start
        for number, (_, data) in enumerate(coded, 1):
            places += struct.pack(">HHHHII", number, 0, 0, 1, at, len(data))
            at += len(data)
        places += struct.pack(">HHHHII", grid, 1, 0, 1, 0, len(layout))
        return full(
            b"meta", 0,
            full(b"hdlr", 0, bytes(4), b"pict", bytes(13)), full(b"pitm", 0, struct.pack(">H", grid)),
            full(b"iinf", 0, struct.pack(">H", grid), items), full(b"iref", 0, links),
            box(b"iprp", box(b"ipco", *properties), full(b"ipma", 0, struct.pack(">I", grid), rules)),
            box(b"idat", layout), full(b"iloc", 1, struct.pack(">HH", 0x4400, grid), places),
        )  # fmt: skip

    head = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    start = len(head) + len(meta(0)) + 8
    path.write_bytes(head + meta(start) + box(b"mdat", *(data for _, data in coded)))
    return path
