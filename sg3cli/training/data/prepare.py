"""Raw images and videos to square training images: what is kept is cropped by one rule, what is not is named.

* align: the FFHQ square of the landmarks (Karras et al. 2018, appendix C), the face upright in the middle;
* unaligned: a square of that size that keeps the image's own upright and lies a little beside the face, at random.
  StyleGAN3-R learns from those to turn and move faces (Alaluf et al. 2022, Section 3);
* none: the middle of the image; nothing is looked for.

Beyond its border an image is mirrored. The shift of a square depends on the seed and on its source's name and time
alone, so an image that is added or taken away changes no other.
"""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sg3cli import __version__
from sg3cli.drawing.images import png_bytes
from sg3cli.errors import InputError
from sg3cli.faces.detectors import make_detector
from sg3cli.faces.face import Detector, Face
from sg3cli.faces.visibility import YAW
from sg3cli.files import atomic_path, sweep, temporary_name, write_error
from sg3cli.geometry import axes_of, ffhq_quad, quad_from_axes, warp_quad
from sg3cli.training.config import PrepareConfig
from sg3cli.training.data.images import is_data_set, listed, read_image
from sg3cli.video import VideoReader
from sg3cli.video.image_sequence import IN_FOLDER, SUFFIXES, natural_key

RECORD = "prepared.json"
DAMAGED, NO_FACE, TURNED, SMALL, OUTSIDE = "damaged", "no face", "turned away", "too small", "too far outside"
Add = Callable[[str, bytes], object]


class Shot(NamedTuple):
    """One image to look at, or why there is none. `time` in seconds, of videos."""

    source: str
    time: float | None
    rgb: np.ndarray | str


class Kept(NamedTuple):
    """One square that was written; `quad` [4,2] in pixels of the source."""

    file: str
    source: str
    time: float | None
    quad: list[list[float]]


class Dropped(NamedTuple):
    """One image, or face in it, that was left out."""

    source: str
    time: float | None
    why: str
    detail: str = ""


@dataclass
class Prepared:
    """What became of the sources."""

    kept: list[Kept] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    def reasons(self) -> dict[str, int]:
        """How many were dropped for each reason, the most frequent first."""
        return dict(Counter(d.why for d in self.dropped).most_common())


# ---- what there is to look at


def shots_of(source: Path, videos: Sequence[str], every: float, say: Callable[[str], None]) -> Iterator[Shot]:
    """All images of a file, a folder (with sub-folders), a zip or a data set, in order.

    What lies in a source is named with it: `raw/sub/a.png`, for two sources may both hold an `a.png`.
    """
    if source.is_dir() and not is_data_set(source):
        inside = [p for p in source.rglob("*") if p.is_file() and not p.name.startswith(".")]
        inside = [p for p in inside if p.suffix.lower() in (*SUFFIXES, *videos)]
        for path in sorted(inside, key=lambda p: (str(p.parent), natural_key(p))):
            yield from _shots_of_file(path, f"{source.name}/{path.relative_to(source).as_posix()}", videos, every, say)
    elif source.is_dir() or source.suffix.lower() == ".zip":
        names, read = listed(source)
        for k, name in enumerate(names):
            yield Shot(f"{source.name}/{name}", None, read_image(read, k))
    else:
        yield from _shots_of_file(source, source.name, videos, every, say)


def _shots_of_file(
    path: Path, name: str, videos: Sequence[str], every: float, say: Callable[[str], None]
) -> Iterator[Shot]:
    if path.suffix.lower() in SUFFIXES:
        yield Shot(name, None, read_image(lambda _: path.read_bytes(), 0))
        return
    try:
        with VideoReader(path) as reader:
            due = -1.0
            for frame in reader:
                if frame.time >= due:
                    due = frame.time + every - 1e-6
                    yield Shot(name, round(float(frame.time), 6), frame.rgb)
            for notice in reader.notices:
                say(f"{name}: {notice}")
    except InputError as error:
        yield Shot(name, None, str(error))


# ---- which squares


def squares_of(
    shot: Shot, detector: Detector | None, fresh: dict[str, Any], config: PrepareConfig
) -> Iterator[np.ndarray | Dropped]:
    """The squares [4,2] of an image, and what is left out of it."""
    source, time, rgb = shot
    if isinstance(rgb, str):
        yield Dropped(source, time, DAMAGED, rgb)
        return
    if detector is None:
        quads = [_middle(rgb)]
    else:
        detector.restore(fresh)  # every image by itself
        faces = _chosen(detector.update(rgb, 0.0), config.faces)
        if not faces:
            yield Dropped(source, time, NO_FACE)
        yield from (Dropped(source, time, TURNED, f"{f.yaw:.0f} degrees") for f in faces if abs(f.yaw) > YAW[0])
        quads = [ffhq_quad(face.landmarks) for face in faces if abs(face.yaw) <= YAW[0]]
    for k, quad in enumerate(quads):
        if config.crop == "unaligned":
            quad = shifted(quad, config.shift, config.seed, f"{source}@{time}#{k}")
        yield _refusal(shot, quad, config) or quad


def shifted(quad: np.ndarray, shift: float, seed: int, name: str) -> np.ndarray:
    """An upright square as large as `quad` [4,2], moved by N(0, shift) of its side along each axis."""
    centre, x = axes_of(quad)
    half = float(np.linalg.norm(x))
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return quad_from_axes(centre + 2 * half * shift * rng.standard_normal(2), np.array([half, 0.0]))


def share_outside(quad: np.ndarray, height: int, width: int) -> float:
    """The part of the area of `quad` [4,2] that lies beyond an image."""
    import cv2

    frame = np.array([[0, 0], [0, height], [width, height], [width, 0]], np.float32)
    inside, _ = cv2.intersectConvexConvex(quad.astype(np.float32), frame)
    return 1 - inside / float(np.sum((quad[3] - quad[0]) ** 2))


def _middle(rgb: np.ndarray) -> np.ndarray:
    height, width = rgb.shape[:2]
    return quad_from_axes(np.array([width / 2, height / 2]), np.array([min(height, width) / 2, 0.0]))


def _chosen(faces: Sequence[Face], which: str) -> list[Face]:
    """By size, the largest first."""
    ordered = sorted(faces, key=lambda face: -face.area)
    return ordered[:1] if which == "largest" else ordered


def _refusal(shot: Shot, quad: np.ndarray, config: PrepareConfig) -> Dropped | None:
    assert isinstance(shot.rgb, np.ndarray)
    side = float(np.linalg.norm(quad[3] - quad[0]))
    least = config.size / 2 if config.min_side is None else config.min_side
    if side < least:
        return Dropped(shot.source, shot.time, SMALL, f"{side:.0f} pixels of {least:.0f}")
    share = share_outside(quad, *shot.rgb.shape[:2])
    if share > config.outside:
        return Dropped(shot.source, shot.time, OUTSIDE, f"{share:.0%} of {config.outside:.0%}")
    return None


# ---- writing them


def prepare(
    sources: Sequence[Path], out: Path, config: PrepareConfig, videos: Sequence[str], say: Callable[[str], None],
    progress: Callable[[Iterable[Shot]], Iterable[Shot]], pull: bool = False,
) -> Prepared:  # fmt: skip
    """Write the squares as PNGs into `out`, a folder or a .zip, with a record of what was kept and dropped.

    `out` appears when all is done. `videos`: suffixes of what counts as a video in a folder. Raises `InputError` when a
    source is not there, when `out` is in use, and when nothing is left.
    """
    check_sources(sources, out)
    detector = None if config.crop == "none" else make_detector(config.landmarks, pull)
    fresh = detector.state() if detector is not None else {}
    done = Prepared()
    with _target(out) as add:
        shots = (shot for source in sources for shot in shots_of(source, videos, config.every, say))
        for shot in progress(shots):
            for found in squares_of(shot, detector, fresh, config):
                if isinstance(found, Dropped):
                    done.dropped.append(found)
                    continue
                name = IN_FOLDER % len(done.kept)
                add(name, png_bytes(_pixels(shot, found, config.size)))
                done.kept.append(Kept(name, shot.source, shot.time, np.round(found, 2).tolist()))
        if not done.kept:
            raise InputError(f"nothing is left of {', '.join(map(str, sources))}: {summary(done)}", _hint(done))
        add(RECORD, json.dumps(record_of(done, config), indent=1).encode())
    return done


def check_sources(sources: Sequence[Path], out: Path) -> None:
    """Everything that can be known beforehand. Raises `InputError`."""
    for source in sources:
        if not source.exists():
            raise InputError(f"cannot prepare {source}: there is no such file or folder", "check the path")
        if source.resolve() == out.resolve() or (source.is_dir() and source.resolve() in out.resolve().parents):
            raise InputError(f"{out} lies in {source}, which is to be read", "write it to another place")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out} is not empty", "name a new folder; what is in it is not touched")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is there already", "name a new file, or remove it")


def summary(done: Prepared, named: int = 3) -> str:
    """`12 no face (a.jpg, b.jpg, ...), 1 damaged (c.png)`."""
    parts = []
    for why, count in done.reasons().items():
        names = list(dict.fromkeys(d.source for d in done.dropped if d.why == why))
        more = ", ..." if len(names) > named else ""
        parts.append(f"{count} {why} ({', '.join(names[:named])}{more})")
    return ", ".join(parts) or "it holds no pictures"


def record_of(done: Prepared, config: PrepareConfig) -> dict[str, Any]:
    """What `prepared.json` says."""
    return {
        "schema": 1,
        "tool": __version__,
        "settings": asdict(config),
        "dropped_for": done.reasons(),
        "kept": [k._asdict() for k in done.kept],
        "dropped": [d._asdict() for d in done.dropped],
    }


def _pixels(shot: Shot, quad: np.ndarray, size: int) -> np.ndarray:
    assert isinstance(shot.rgb, np.ndarray)
    return np.clip(np.rint(warp_quad(shot.rgb, quad, size)), 0, 255).astype(np.uint8)


def _hint(done: Prepared) -> str:
    return {
        NO_FACE: "give pictures in which a face is seen from the front, or --crop none",
        TURNED: "give pictures in which a face is seen from the front",
        SMALL: "choose a smaller --size or --min-side",
        OUTSIDE: "allow more with --outside",
    }.get(next(iter(done.reasons()), ""), f"pictures end in {', '.join(SUFFIXES)}")


@contextmanager
def _target(out: Path) -> Iterator[Add]:
    """Where files and the record go; `out` appears at the end, and nothing is left when something fails."""
    if out.suffix.lower() == ".zip":
        with atomic_path(out) as temp, zipfile.ZipFile(temp, "w", zipfile.ZIP_STORED) as archive:
            yield archive.writestr
        return
    part = temporary_name(out, ".part")
    try:
        if out.parent.is_dir():
            sweep(out, ".part")  # of a run that was killed
        part.mkdir(parents=True)
        yield lambda name, data: (part / name).write_bytes(data)
        if out.is_dir():
            out.rmdir()  # it is empty
        part.replace(out)
    except OSError as error:
        raise write_error(out, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
