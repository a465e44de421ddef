"""Ways in which a file gets damaged, and the files of a project that each of them is tried on."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, random.Random], None]
ZEROED = 64  # bytes, as of a sector that was not written


def truncated(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    with path.open("rb+") as file:
        file.truncate(rng.randrange(1, size) if size > 1 else 0)


def emptied(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def zeroed(path: Path, rng: random.Random) -> None:
    """A run of zeros somewhere; where zeros were already, ones, so that something changes."""
    data = bytearray(path.read_bytes())
    first = rng.randrange(max(1, len(data) - ZEROED))
    old = data[first : first + ZEROED]
    data[first : first + ZEROED] = (b"\0" if any(old) else b"\1") * len(old)
    path.write_bytes(data)


def flipped(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def deleted(path: Path, rng: random.Random) -> None:
    path.unlink()


def grown(path: Path, rng: random.Random) -> None:
    """What a broken copy appends."""
    with path.open("ab") as file:
        file.write(rng.randbytes(ZEROED))


DAMAGES: dict[str, Damage] = {
    damage.__name__: damage for damage in (truncated, emptied, zeroed, flipped, deleted, grown)
}


def files_of(project: Path) -> list[Path]:
    """All files of a project that hold something, relative to it."""
    found = (path.relative_to(project) for path in project.rglob("*") if path.is_file() and path.stat().st_size)
    return sorted(path for path in found if path.name not in (".lock", ".owner.json"))
