"""Made pictures: laid out in a grid, and written as PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from sg3cli.errors import InputError
from sg3cli.files import atomic_path

AFTER_HEADER = 33  # bytes of a PNG's signature and first chunk


def grid(tiles: Iterable[np.ndarray], count: int, columns: int, size: int) -> np.ndarray:
    """`count` tiles `[size, size, 3]` uint8, row by row -> `[rows * size, columns * size, 3]`; the rest is black."""
    rows = -(-count // columns)
    sheet = np.zeros((rows * size, columns * size, 3), np.uint8)
    for place, tile in enumerate(tiles):
        y, x = divmod(place, columns)
        sheet[y * size : (y + 1) * size, x * size : (x + 1) * size] = tile
    return sheet


def png_bytes(picture: np.ndarray, comment: str | None = None) -> bytes:
    """`[H, W, 3]` uint8 RGB as a PNG file, with a text entry `Comment` if one is given."""
    import cv2

    encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()
    entry = b"" if comment is None else _chunk(b"iTXt", b"Comment\0\0\0\0\0" + comment.encode())
    return bytes(encoded[:AFTER_HEADER] + entry + encoded[AFTER_HEADER:])


def read_picture(path: Path) -> np.ndarray:
    """The picture in a file, upright, as `[H, W, 3]` uint8 RGB. Raises `InputError` for what is none."""
    import cv2

    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
        raise InputError(f"{path} is no picture that can be read", "give a PNG or JPEG file")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG: length, kind, data, check sum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(path: Path, picture: np.ndarray, comment: str | None = None) -> None:
    """A PNG file, whole or not at all; see `png_bytes`."""
    data = png_bytes(picture, comment)
    with atomic_path(path) as temp:
        temp.write_bytes(data)
