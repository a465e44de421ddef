"""HEIF (HEIC, AVIF) beyond what FFmpeg's reader puts together: the grid of tiles that telephones write, ISO 23008-12.

The reader gives each tile as a stream of its own, whose number (`id`) is that of the item in the file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_META = 1 << 24  # bytes of all that is about the images
MOST_TILES = 4096
ALPHA = (b":alpha\0", b":hevc:2015:auxid:1\0", b":avc:2015:auxid:1\0")  # how names of images of transparency end


@dataclass(frozen=True)
class Grid:
    """An image of `width` x `height` in `rows` x `columns` tiles, row by row: the items' numbers.

    `turns` by 90 degrees to the left and then a mirror (`flip`: 0 upside down, 1 left to right) make it upright.
    """

    rows: int
    columns: int
    width: int
    height: int
    tiles: tuple[int, ...]
    turns: int = 0
    flip: int | None = None

    @property
    def orientation(self) -> tuple[bool, bool, bool]:
        """The same on an array: transpose, then mirror columns, then mirror rows."""
        transpose, columns, rows = [
            (False, False, False), (True, False, True), (False, True, True), (True, True, False),
        ][self.turns]  # fmt: skip
        return transpose, columns ^ (self.flip == 1), rows ^ (self.flip == 0)


def transparency_notes(paths: Iterable[Path]) -> tuple[str, ...]:
    """HEIF has transparency as an image beside the image (in a film: a track), which is not read."""
    if any(facts_of(path).alpha for path in paths):
        return ("the transparency of HEIF images (AVIF, HEIC) is not read",)
    return ()


@dataclass(frozen=True)
class HeifFacts:
    """What the file says of its main image: `kind` of item (hvc1, av01, grid, iovl), `grid`, transparency beside it."""

    kind: str = ""
    grid: Grid | None = None
    alpha: bool = False


def facts_of(path: Path) -> HeifFacts:
    """About the main image of the file; nothing when it is damaged or no HEIF."""
    try:
        meta = _meta(path)
        return _facts(meta) if meta else HeifFacts()
    except (struct.error, IndexError, ValueError, KeyError, OSError):
        return HeifFacts()


def _meta(path: Path) -> bytes:
    """The contents of the file's `meta` box, empty when there is none."""
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size, kind = struct.unpack(">I4s", head)
            if kind == b"meta":
                return file.read(size - 8)[4:] if 12 <= size < MOST_META else b""
            if size < 8:
                return b""
            file.seek(size - 8, 1)
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield kind, data[at + 8 : at + size]
        at += size


def _facts(meta: bytes) -> HeifFacts:
    parts = dict(_boxes(meta))
    wide = parts[b"pitm"][0] > 0
    main = int.from_bytes(parts[b"pitm"][4 : 8 if wide else 6], "big")
    kind = _kinds(parts[b"iinf"]).get(main, b"").decode("latin1")
    alpha = any(name in meta for name in ALPHA)
    if kind != "grid":
        return HeifFacts(kind, None, alpha)
    tiles = _linked(parts[b"iref"], b"dimg", main)
    layout = _data(parts[b"iloc"], parts.get(b"idat", b""), main)
    form = ">BBBBII" if layout[1] & 1 else ">BBBBHH"
    _, _, rows, columns, width, height = struct.unpack_from(form, layout)
    turns, flip = _turn(parts[b"iprp"], main)
    if (rows + 1) * (columns + 1) != len(tiles) or len(tiles) > MOST_TILES:
        return HeifFacts(kind, None, alpha)
    return HeifFacts(kind, Grid(rows + 1, columns + 1, width, height, tuple(tiles), turns, flip), alpha)


def _kinds(iinf: bytes) -> dict[int, bytes]:
    """Item -> its kind."""
    found = {}
    for kind, data in _boxes(iinf[8 if iinf[0] else 6 :]):
        if kind == b"infe" and data[0] in (2, 3):
            size = 4 if data[0] == 3 else 2
            found[int.from_bytes(data[4 : 4 + size], "big")] = data[6 + size : 10 + size]
    return found


def _linked(iref: bytes, kind: bytes, item: int) -> list[int]:
    """The items to which `item` has a reference of this kind."""
    size = 4 if iref[0] else 2
    for name, data in _boxes(iref[4:]):
        if name == kind and int.from_bytes(data[:size], "big") == item:
            count = int.from_bytes(data[size : size + 2], "big")
            at = size + 2
            return [int.from_bytes(data[at + size * k : at + size * (k + 1)], "big") for k in range(count)]
    return []


def _data(iloc: bytes, idat: bytes, item: int) -> bytes:
    """The bytes of an item that lies beside the facts (`idat`)."""
    version, sizes = iloc[0], iloc[4:6]
    lengths = (
        sizes[0] >> 4,
        sizes[0] & 15,
        sizes[1] >> 4,
        sizes[1] & 15 if version else 0,
    )  # offset, length, base, index
    wide = 4 if version == 2 else 2
    at = 6 + wide

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(iloc[at - size : at], "big")

    for _ in range(int.from_bytes(iloc[6:at], "big")):
        found = number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        base, data = number(lengths[2]), b""
        for _ in range(number(2)):
            number(lengths[3])
            start, length = base + number(lengths[0]), number(lengths[1])
            data += idat[start : start + length]
        if found == item and method == 1:
            return data
    return b""


def _turn(iprp: bytes, item: int) -> tuple[int, int | None]:
    """Quarter turns to the left, and the mirror, that belong to an item."""
    parts = dict(_boxes(iprp))
    properties, ipma = list(_boxes(parts[b"ipco"])), parts[b"ipma"]
    wide, big = (4 if ipma[0] else 2), bool(ipma[3] & 1)
    turns, flip, at = 0, None, 8
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        found, count = int.from_bytes(ipma[at : at + wide], "big"), ipma[at + wide]
        at += wide + 1
        for _ in range(count):
            index = int.from_bytes(ipma[at : at + 1 + big], "big") & (0x7FFF if big else 0x7F)
            at += 1 + big
            if found == item and index:
                kind, data = properties[index - 1]
                turns = data[0] & 3 if kind == b"irot" else turns
                flip = data[0] & 1 if kind == b"imir" else flip
    return turns, flip
