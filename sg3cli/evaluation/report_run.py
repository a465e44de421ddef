"""A report on a model: its files, and the rows that its measures are made of, kept on the way.

REPORT.json    the figures; a report may be replaced by a newer one, another file never
REPORT.png     the same as a picture
REPORT.parts/  rows of a run that has not ended: the same command goes on from there
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli import __version__
from sg3cli.console import SCHEMA, Console
from sg3cli.drawing.images import write_png
from sg3cli.errors import UsageError
from sg3cli.files import Chunks, in_chunks, remove, write_json
from sg3cli.project import content_key

MARK = "sg3 evaluate"  # inside the files, by which a report is known as one
SAVED = 64  # rows between two saves, or fewer if they take long

Row = Mapping[str, Any]  # arrays or numbers, the same of every row
Make = Callable[[int], Iterator[Row]]  # rows from that number on
Figures = dict[str, Any]


class ReportRun:
    """One run of `command`, whose report goes to `out`. Raises `UsageError` before any work when it cannot."""

    def __init__(self, out: Path, command: str, console: Console, **depends: Any) -> None:
        """`depends`: all that the rows depend on; rows of a run with others are not taken."""
        self.out, self.command, self.console = out, command, console
        self.picture, self.parts = out.with_suffix(".png"), out.with_suffix(".parts")
        check_name(out)
        self.key = content_key(command=command, **depends)

    def rows(self, name: str, count: int, make: Make, multiple: int = 1) -> dict[str, np.ndarray]:
        """`count` rows as arrays `[count, ...]`: those that are kept, and what `make(first)` yields from there on.

        `multiple`: rows that are computed together; only whole groups are kept.
        """
        chunks = Chunks(self.parts / name, content_key(key=self.key, name=name, count=count))
        for path in chunks.damaged:
            self.console.notice(f"{path.name} of {self.parts} was damaged and is made again")
        label = f"{self.command}: {name}"
        if chunks.rows > 0:
            self.console.notice(f"{label}: {chunks.rows} of {count} were there")
        if chunks.rows < count:
            made = self.console.progress(make(chunks.rows), count, label, chunks.rows)
            for some in in_chunks(made, max(SAVED // multiple, 1) * multiple, multiple):
                chunks.append({key: np.stack([row[key] for row in some]) for key in some[0]}, len(some))
        kept = list(chunks)
        return {key: np.concatenate([chunk[key] for chunk in kept]) for key in (kept[0] if kept else ())}

    def write(self, figures: Figures, image: np.ndarray) -> Figures:
        """Write both files and forget the rows; returns what stands in the JSON file."""
        whole = {"schema": SCHEMA, "command": f"{MARK} {self.command}", "version": __version__, **figures}
        write_json(self.out, plain(whole))
        write_png(self.picture, image, MARK)
        remove(self.parts)
        return whole


def check_name(out: Path) -> None:
    """Raise `UsageError` unless reports may be written to `out` and beside it."""
    if out.suffix.lower() != ".json" or out.is_dir():
        raise UsageError(f"{out} is not the name of a JSON file", "give -o NAME.json; the picture is NAME.png")
    for path in (out, out.with_suffix(".png")):
        if path.exists() and not _is_report(path):
            raise UsageError(f"{path} exists and is no report of sg3", "choose another name with -o")


def _is_report(path: Path) -> bool:
    try:
        with open(path, "rb") as handle:
            return MARK.encode() in handle.read(4096)
    except OSError:
        return False


def plain(value: Any) -> Any:
    """The same for JSON: arrays as lists, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
