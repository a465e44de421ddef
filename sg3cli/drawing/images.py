"""Made images: laid out in a grid, and written as PNG or JPEG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sg3cli.errors import InputError
from sg3cli.files import atomic_path

JPEG_BEGINS = b"\xff\xd8"
AFTER_HEADER = 33  # bytes of a PNG's signature and first chunk


def grid(tiles: Iterable[np.ndarray], count: int, columns: int, size: int) -> np.ndarray:
    """`count` tiles `[size, size, 3]` uint8, row by row -> `[rows * size, columns * size, 3]`; the rest is black."""
    rows = -(-count // columns)
    canvas = np.zeros((rows * size, columns * size, 3), np.uint8)
    for place, tile in enumerate(tiles):
        y, x = divmod(place, columns)
        canvas[y * size : (y + 1) * size, x * size : (x + 1) * size] = tile
    return canvas


def png_bytes(image: np.ndarray, comment: str | None = None) -> bytes:
    """`[H, W, 3]` uint8 RGB as a PNG file, with a text entry `Comment` if one is given."""
    import cv2

    encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    entry = b"" if comment is None else _chunk(b"iTXt", b"Comment\0\0\0\0\0" + comment.encode())
    return bytes(encoded[:AFTER_HEADER] + entry + encoded[AFTER_HEADER:])


def tint_bytes(opacity: np.ndarray, colour: tuple[int, int, int]) -> bytes:
    """Opacity `[H, W]`, 0..1, as a PNG file of one colour that is transparent where it is 0."""
    import cv2

    tint = np.empty((*opacity.shape, 4), np.uint8)
    tint[..., :3] = colour[::-1]
    tint[..., 3] = np.rint(255 * opacity.clip(0, 1))
    return bytes(cv2.imencode(".png", tint)[1].tobytes())


def jpeg_bytes(image: np.ndarray, comment: str | None = None, quality: int = 92) -> bytes:
    """`[H, W, 3]` uint8 RGB as a JPEG file, with a comment segment if one is given that fits (64 KB)."""
    import cv2

    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    text = b"" if comment is None else comment.encode()
    entry = b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text if 0 < len(text) < 0xFFFE else b""
    return bytes(encoded[:2] + entry + encoded[2:])


def decode(data: bytes) -> np.ndarray | None:
    """An image file's bytes -> `[H, W, 3]` uint8 RGB, upright; None for what is damaged, cut short, or no image.

    Grey becomes RGB, 16 bits are scaled to 8, CMYK is converted, and what is transparent is laid on black.
    """
    import cv2

    if not _is_whole(data):
        return None
    flags = cv2.IMREAD_COLOR if data[:2] == JPEG_BEGINS else cv2.IMREAD_UNCHANGED  # only the former turns it upright
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return None if image is None else _rgb8(image)


def _is_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG has its end; decoders fill what is missing with grey."""
    if data[:2] == JPEG_BEGINS:
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0
    return len(data) > 0 and (data[:4] != b"\x89PNG" or b"IEND" in data[-64:])


def _rgb8(image: np.ndarray) -> np.ndarray | None:
    """What OpenCV decoded, `[H, W]` or `[H, W, 1..4]` BGR(A) of 8 or 16 bits or float -> `[H, W, 3]` uint8 RGB."""
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    image = image[..., None] if image.ndim == 2 else image
    colours = image.shape[-1]
    if colours == 4:
        image = (image[..., :3].astype(np.uint16) * image[..., 3:] + 127) // 255
    elif colours != 3:
        image = image[..., :1].repeat(3, -1)
    return np.ascontiguousarray(image[..., 2::-1].astype(np.uint8))


def read_image(path: Path) -> np.ndarray:
    """The image in a file, upright, as `[H, W, 3]` uint8 RGB. Raises `InputError` for what is none."""
    import cv2

    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise InputError(f"{path} is no picture that can be read", "give a PNG or JPEG file")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG: length, kind, data, check sum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, image: np.ndarray, comment: str | None = None) -> None:
    """A PNG file, whole or not at all; see `png_bytes`."""
    data = png_bytes(image, comment)
    with atomic_path(path) as temp:
        temp.write_bytes(data)


def write_image(path: Path, image: np.ndarray, comment: str | None = None) -> None:
    """A JPEG or PNG file by its suffix, whole or not at all."""
    to_bytes = jpeg_bytes if path.suffix.lower() in (".jpg", ".jpeg") else png_bytes
    data = to_bytes(image, comment)
    with atomic_path(path) as temp:
        temp.write_bytes(data)
