"""Entries of a zip archive that are stored as they are, as views of the file.

`torch.save` compresses nothing, so an archive that does is not one of its own, and no small file can unfold into a
large one here. Entries may not overlap, and each is compared with its checksum when it is read.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

from sg3cli.weights.safe_pickle.values import Refused, shown

MAX_ENTRIES = 100_000
END, END64, LOCATOR, CENTRAL, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
U16, U32 = 0xFFFF, 0xFFFFFFFF  # in a field: the value stands elsewhere, in 64 bits
ZIP64 = 1  # number of the extra field that holds it


@dataclass(frozen=True)
class Entry:
    """One member of the archive."""

    name: str
    view: memoryview
    crc: int

    def read(self) -> memoryview:
        """Its bytes. Raises `Refused` when they are not what was written."""
        if zlib.crc32(self.view) != self.crc:
            raise Refused(f"the archive's entry {shown(self.name)} is damaged (its checksum differs)")
        return self.view


def read_entries(data: memoryview) -> dict[str, Entry]:
    """All entries of an archive by name. Raises `Refused`."""
    count, size, start = _directory(data)
    if count > MAX_ENTRIES or 46 * count > size or start + size > len(data):
        raise Refused(f"the archive's directory is damaged: {count} entries in {size} bytes at {start}")
    entries: dict[str, Entry] = {}
    at, total = start, 0
    for _ in range(count):
        entry, at = _entry(data, at, start, start + size)
        total += len(entry.view)
        if entry.name in entries or total > len(data):
            raise Refused(f"the archive holds {shown(entry.name)} twice, or entries that overlap")
        entries[entry.name] = entry
    return entries


def _directory(data: memoryview) -> tuple[int, int, int]:
    """(number of entries, size, position) of the central directory."""
    tail = max(len(data) - 22 - U16, 0)  # a comment of up to 65535 bytes may follow
    found = bytes(data[tail:]).rfind(END)
    if found < 0 or tail + found + 22 > len(data):
        raise Refused("the archive has no directory: the file is cut off")
    end = tail + found
    count, size, start = struct.unpack_from("<10xHLL", data, end)
    if count != U16 and U32 not in (size, start):
        return count, size, start
    if end < 20 or data[end - 20 : end - 16] != LOCATOR:
        raise Refused("the archive's directory is damaged")
    (where,) = struct.unpack_from("<8xQ", data, end - 20)
    if where + 56 > len(data) or data[where : where + 4] != END64:
        raise Refused("the archive's directory is damaged")
    return struct.unpack_from("<32xQQQ", data, where)


def _entry(data: memoryview, at: int, start: int, end: int) -> tuple[Entry, int]:
    """The directory's entry at `at`, and where the next begins."""
    if at + 46 > end or data[at : at + 4] != CENTRAL:
        raise Refused("the archive's directory is damaged")
    fields = struct.unpack_from("<8xHH4xLLLHHH8xL", data, at)
    flags, method, crc, packed, size, name_size, extra_size, comment_size, place = fields
    name_at = at + 46
    after = name_at + name_size + extra_size + comment_size
    if after > end:
        raise Refused("the archive's directory is damaged")
    name = bytes(data[name_at : name_at + name_size]).decode("utf8", "replace")
    extra = data[name_at + name_size : name_at + name_size + extra_size]
    size, packed, place = _wide(extra, (size, packed, place), name)
    if method != 0 or size != packed or flags & 1:
        raise Refused(f"the archive's entry {shown(name)} is compressed or encrypted, which torch never writes")
    if place + 30 > start or data[place : place + 4] != LOCAL:
        raise Refused(f"the archive's entry {shown(name)} is not where the directory says")
    first = place + 30 + sum(struct.unpack_from("<26xHH", data, place))
    if first + size > start:
        raise Refused(f"the archive's entry {shown(name)} of {size} bytes reaches beyond the file's data")
    return Entry(name, data[first : first + size], crc), after


def _wide(extra: memoryview, narrow: tuple[int, int, int], name: str) -> list[int]:
    """The sizes and the place of an entry, each from its 64-bit field where the 32-bit one is full."""
    at, wide = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == ZIP64:
            wide = bytes(extra[at + 4 : at + 4 + length])
        at += 4 + length
    values, used = list(narrow), 0
    for i, value in enumerate(narrow):
        if value == U32:
            if used + 8 > len(wide):
                raise Refused(f"the archive's entry {shown(name)} lacks its size")
            (values[i],) = struct.unpack_from("<Q", wide, used)
            used += 8
    return values
