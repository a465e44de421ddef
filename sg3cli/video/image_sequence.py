"""Videos that are images: a still, a folder of frames, or a pattern such as `frames/%04d.png`.

They have no times of their own: a rate is given, and image k is shown from k / rate on.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from sg3cli.errors import InputError
from sg3cli.files import digest_of
from sg3cli.time_ranges import parse_rate
from sg3cli.video.image_file import is_animated, kind_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
STILLS = (*SUFFIXES, ".avif", ".heic", ".heif")  # what else is read as footage
NUMBER = re.compile(r"%(?:0(\d+))?d")
DEFAULT_RATE = "25"
IN_FOLDER = "%06d.png"  # names of the images that are written into a folder


def is_pattern(path: str | Path) -> bool:
    """Whether the name has a place for a number, as in `%04d.png`."""
    return NUMBER.search(Path(path).name) is not None


def is_image_sequence(path: Path) -> bool:
    """Whether the input is images rather than a video, which an animated PNG is."""
    if path.is_file():
        return path.suffix.lower() in STILLS and not (is_animated(path) and kind_of(path) != "webp_pipe")
    return path.is_dir() or is_pattern(path)


def images_of(path: Path) -> list[Path]:
    """The files in the order they are shown: by number, where names differ by numbers. Raises `InputError`."""
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in STILLS and not p.name.startswith(".")]
        if not found:
            raise InputError(
                f"{path} is a folder, not a video, and holds no pictures", f"pictures end in {', '.join(STILLS)}"
            )
    else:
        found = matching(path)
        if not found:
            raise InputError(f"no file is named as {path} says", "the number's place is written %d, or %04d if padded")
    return sorted((p for p in found if p.is_file()), key=natural_key)


def matching(pattern: Path) -> list[Path]:
    """The files that a pattern means, in no order."""
    if not pattern.parent.is_dir():
        return []
    name, pieces, end = pattern.name, [], 0
    for place in NUMBER.finditer(name):
        pieces += [re.escape(name[end : place.start()]), rf"\d{{{place[1] or 1},}}"]
        end = place.end()
    named = re.compile("".join([*pieces, re.escape(name[end:])]))
    return [path for path in pattern.parent.iterdir() if named.fullmatch(path.name)]


def natural_key(path: Path) -> tuple[str, list[tuple[int, int, str]], str]:
    """Sort key: by folder, then by number where names differ by numbers."""
    return str(path.parent), _natural(path.name), path.name


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which `9.png` comes before `10.png`."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def fingerprint(path: Path, rate: str | None = None) -> tuple[int, str, int]:
    """(bytes, `sha256:...`, newest change in ns) of what is at `path`; of several images by names, contents, rate."""
    if path.is_file() and rate is None:
        stat = path.stat()
        return stat.st_size, digest_of(path), stat.st_mtime_ns
    size, newest = outside(path)
    digest = hashlib.sha256(f"{parse_rate(rate or DEFAULT_RATE)}\n".encode())
    for image in images_of(path):
        digest.update(f"{image.name}\0{digest_of(image)}\n".encode("utf8", "surrogateescape"))
    return size, f"sha256:{digest.hexdigest()}", newest


def outside(path: Path) -> tuple[int, int]:
    """(bytes, newest change in ns), which say whether the contents need be read again."""
    stats = [image.stat() for image in (images_of(path) if not path.is_file() else [path])]
    return sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)


def output_name(out: str) -> str:
    """What `-o` means: a name that ends in `/` is a folder for images."""
    return f"{out}{IN_FOLDER}" if out.endswith("/") else out


def written(out: str) -> list[Path]:
    """The files that are there under an output's name."""
    path = Path(output_name(out))
    if is_pattern(path) and not path.exists():
        return matching(path)
    return [path] if path.exists() else []
