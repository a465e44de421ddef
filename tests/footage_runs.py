"""Footage of every kind, with a face in it, through `sg3 run`; what went in and came out is counted by another program.

`python tests/footage_runs.py [FILE...]` prints the table for all kinds, and for the files. The other program is the
`ffmpeg` of the path or of `$SG3_FFMPEG`; without one it is PyAV on its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import footage
import numpy as np
from footage import KINDS, Kind
from running import GOLDEN
from tiny import make_tiny_bundle

from sg3cli import cli

WIDTH, HEIGHT = 192, 144
FFMPEG = os.environ.get("SG3_FFMPEG") or shutil.which("ffmpeg")
HEADS = ("kind", "code", "frames in", "out", "seconds told in", "out", "shown in", "out", "sound packets in", "out",
         "notices or error")  # fmt: skip


@dataclass(frozen=True)
class Count:
    """What a decoder finds in a file: images, packets of sound, how long it says it lasts."""

    frames: int
    seconds: float
    packets: int
    span: float  # seconds from the first image to the end of the last


@dataclass(frozen=True)
class Row:
    """One run."""

    name: str
    code: int
    before: Count
    after: Count | None
    notices: list[str]  # of the run beside those that every run has; of a failure the error

    @property
    def silent(self) -> bool:
        """Whether something differs that nobody has said."""
        if self.code or self.after is None:
            return False
        # Some containers do not count the last image, or count from 0; others lengthen the last image.
        lengths = (self.after.seconds - self.before.seconds, self.after.span - self.before.span)
        longer = all(abs(difference) > 0.02 for difference in lengths)
        same = (self.before.frames, self.before.packets) == (self.after.frames, self.after.packets)
        return not self.notices and (longer or not same)

    def cells(self) -> list[str]:
        out = self.after or Count(-1, -1, -1, -1)
        columns = ("frames", "seconds", "span", "packets")
        pairs = [(getattr(self.before, c), getattr(out, c) if self.after else "-") for c in columns]
        numbers = [f"{n:.3f}" if isinstance(n, float) else str(n) for pair in pairs for n in pair]
        return [self.name, str(self.code), *numbers, "; ".join(self.notices)]


# ---- footage --------------------------------------------------------------------------------------------------------


def face(index: int, width: int, height: int) -> np.ndarray:
    """`[H, W, 3]`: a rendered person in the middle, a little further to the right in each image."""
    person = cv2.imread(str(GOLDEN / "E_rendered_face_a.jpg"))[:, :, ::-1]
    side = min(width, height)
    small = cv2.resize(person, (side, side), interpolation=cv2.INTER_AREA)
    picture = np.full((height, width, 3), 128, np.uint8)
    top, left = (height - side) // 2, min((width - side) // 2 + index % 3, width - side)
    picture[top : top + side, left : left + side] = small
    return picture


def made_with_a_face(kind: Kind, place: Path) -> Path:
    """The footage of a kind in which the bars are a person, upright once it is turned as its display matrix says."""
    turns = kind.clip.get("rotation", 0) // 90

    def stored(index: int, width: int, height: int) -> np.ndarray:
        if turns % 2:
            width, height = height, width
        return np.ascontiguousarray(np.rot90(face(index, width, height), -turns))

    before = footage.WIDTH, footage.HEIGHT, footage.numbered_bars
    footage.WIDTH, footage.HEIGHT, footage.numbered_bars = WIDTH, HEIGHT, stored
    try:
        return footage.made(kind, place)
    finally:
        footage.WIDTH, footage.HEIGHT, footage.numbered_bars = before


# ---- counting by another program ------------------------------------------------------------------------------------


def count(path: Path, rate: str | None = None) -> Count:
    """What another decoder finds in a file, a folder of images or a pattern."""
    if path.is_dir() or "%" in path.name or path.suffix in (".png", ".jpg"):
        found = path.iterdir() if path.is_dir() else path.parent.glob(re.sub("%0?\\d*d", "*", path.name))
        shown = [p for p in found if cv2.imread(str(p), cv2.IMREAD_UNCHANGED) is not None]
        numerator, _, denominator = (rate or "25").partition("/")
        seconds = len(shown) * float(denominator or 1) / float(numerator)
        return Count(len(shown), seconds, 0, seconds)
    return (by_ffmpeg(path) if FFMPEG else None) or by_pyav(path)


def by_ffmpeg(path: Path) -> Count | None:
    """Decoded images and packets of sound by its `framecrc`, and the length that it tells; None when it crashes."""
    images = _ffmpeg("-i", str(path), "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framecrc", "-")
    sound = _ffmpeg("-i", str(path), "-map", "0:a?", "-c", "copy", "-vn", "-sn", "-dn", "-f", "framecrc", "-")
    if images.returncode < 0 or sound.returncode < 0:  # static builds do on some systems
        return None
    rows = [[line for line in ran.stdout.splitlines() if line[:1].isdigit()] for ran in (images, sound)]
    base = re.search(r"#tb 0: (\d+)/(\d+)", images.stdout)
    times = [[int(part) for part in line.split(",")[2:4]] for line in rows[0]]
    span = max(pts + length for pts, length in times) - min(pts for pts, _ in times) if times else 0
    length = re.search(r"Duration: (\d+):(\d+):([\d.]+)", images.stderr)
    parts = [float(part) for part in length.groups()] if length else [0.0, 0.0, 0.0]
    seconds = 3600 * parts[0] + 60 * parts[1] + parts[2]
    return Count(len(rows[0]), seconds, len(rows[1]), span * int(base[1]) / int(base[2]) if base else 0.0)


def _ffmpeg(*words: str) -> subprocess.CompletedProcess[str]:
    line = [str(FFMPEG), "-hide_banner", "-nostdin", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def by_pyav(path: Path) -> Count:
    """The same by the library alone."""
    times, packets = [], 0
    with av.open(str(path)) as container:
        told = (container.duration or 0) / av.time_base
        video = container.streams.best("video")
        for packet in container.demux():
            if packet.stream.type == "audio":
                packets += bool(packet.size)
            elif video is not None and packet.stream.index == video.index:
                for frame in packet.decode():
                    times.append((float(frame.pts * frame.time_base), float((frame.duration or 0) * frame.time_base)))
    span = max(a + b for a, b in times) - min(a for a, _ in times) if times else 0.0
    return Count(len(times), told, packets, span)


# ---- runs -----------------------------------------------------------------------------------------------------------


USUAL = ("edit:", "align: up to date", "invert: up to date", "render: up to date")  # notices that tell no difference


def run_kind(kind: Kind, place: Path, model: Path) -> Row:
    """Make the footage and run on it."""
    place.mkdir()
    source = made_with_a_face(kind, place)
    flags = ["--codec", kind.encode.codec] if kind.encode.codec != footage.FINE.codec else []
    flags += ["--rate", kind.rate] if kind.rate else []
    return run(kind.name, source, place / f"out{kind.out}", model, flags, kind.piped, kind.rate)


def run(
    name: str, source: Path, out: Path, model: Path, flags: list[str] | None = None, piped: bool = False,
    rate: str | None = None,
) -> Row:  # fmt: skip
    """`sg3 run` on a source, and the counts before and after."""
    out.parent.mkdir(exist_ok=True)
    words = ["run", "-" if piped else str(source), "-o", str(out), "--edit=age=2", "--model", str(model)]
    words += ["--project", str(out.parent / "own.sg3"), "--no-finetune", "--preset=ultrafast", "--json", *(flags or [])]
    reply, code = io.StringIO(), 1
    stdin = sys.stdin
    quiet = contextlib.redirect_stderr(io.StringIO())
    with contextlib.redirect_stdout(reply), quiet, source_bytes(source, piped) as given:
        sys.stdin = given or stdin
        try:
            code = cli.run(words)
        finally:
            sys.stdin = stdin
    told = json.loads(reply.getvalue().strip().splitlines()[-1])
    notices = [notice for notice in told["notices"] if not notice.startswith(USUAL)]
    if code:
        notices = [told["error"]["what"]]
    return Row(name, code, count(source, rate), count(out, rate) if not code else None, notices)


@contextlib.contextmanager
def source_bytes(source: Path, piped: bool):
    """Standard input that holds the source, or nothing."""
    if not piped:
        yield None
        return
    with source.open("rb") as file, io.TextIOWrapper(file) as text:
        yield text


def table(rows: list[Row]) -> str:
    lines = ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    return "\n".join([*lines, *("| " + " | ".join(row.cells()) + " |" for row in rows)])


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model = make_tiny_bundle(place / "tiny")
        rows = [run_kind(kind, place / str(number), model) for number, kind in enumerate(KINDS)]
        for number, name in enumerate(sys.argv[1:]):
            path = Path(name)
            rows.append(run(path.name, path, place / f"file{number}" / "out.mkv", model))
    print(table(rows))
    silent = [row.name for row in rows if row.silent]
    print(f"\n{len(rows)} rows, counted by {FFMPEG or 'PyAV'}; differ without a word: {', '.join(silent) or 'none'}")


if __name__ == "__main__":
    main()
