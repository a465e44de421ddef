"""Many edited videos side by side: a row of figures each, their means, and distances over all of them together.

The columns are those of `sg3 evaluate video` over many clips and of the index of a report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sg3cli.evaluation.figure_words import MISSING, frechet_rows, number

Better = Literal["high", "low", "one", ""]  # which value is the best: 1 is as in the source

ASKED = "asked "  # begins the key of a label's column
NAMED_MOST = 40  # characters of a clip's name in a table of text


@dataclass(frozen=True)
class Column:
    """A figure of a clip: `path` is where `video_figures` has it, `scale` turns it into the unit of the heading."""

    key: str
    heading: str
    meaning: str
    path: tuple[str, ...]
    digits: int = 3
    better: Better = ""
    scale: float = 1.0

    def value(self, figures: Mapping[str, Any] | None) -> float | None:
        """The clip's figure; None where it is not computed."""
        found: Any = figures
        for name in self.path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return None if found is None else self.scale * float(found)

    def text(self, value: float | None) -> str:
        """The figure as it is shown."""
        return number(value, self.digits)


COLUMNS = (
    Column("frames", "frames", "frames of the edited video that were judged", ("judged",), 0),
    Column("likeness", "likeness", "cosine of the face and the source's, mean", ("identity", "mean"), 3, "high"),
    Column("likeness_min", "least", "cosine of the face and the source's, least", ("identity", "min"), 3, "high"),
    Column("tl_id", "TL-ID", "how constant the face is from frame to frame", ("identity", "local"), 3, "one"),
    Column("tg_id", "TG-ID", "how constant the face is over the clip", ("identity", "global"), 3, "one"),
    Column("lpips", "LPIPS", "perceptual distance from the source, mean", ("distance", "mean"), 4),
    Column("tlpips", "tLPIPS", "difference of change from frame to frame", ("temporal", "mean"), 4, "low"),
    Column("warping", "warping", "warping error, edited over source", ("warping", "ratio"), 2, "one"),
    Column("jitter", "jitter", "landmark jitter, edited over source", ("jitter", "ratio"), 2, "one"),
    Column("flicker", "flicker", "flicker, edited over source", ("flicker", "ratio"), 2, "one"),
    Column("frozen", "frozen", "steps in which the video stands still and the source moves", ("frozen",), 0, "low"),
    Column("sharpness", "sharpness", "sharpness of the face, edited over source", ("sharpness",), 2, "one"),
    Column("seam", "seam", "step at the face's edge, levels per pixel", ("seam",), 3, "low"),
    Column("outside", "outside %", "pixels outside changed by more than coding", ("outside", "share"), 2, "low", 100.0),
    Column("sound", "sound ms", "by which the sound comes later than in the source", ("sound", "offset"), 1, "", 1e3),
)


def columns_of(clips: Sequence[Mapping[str, Any] | None]) -> tuple[Column, ...]:
    """The columns of these clips' figures: those of all clips, and one for each label that an edit asked for."""
    asked: dict[str, Column] = {}
    for figures in clips:
        attributes = (figures or {}).get("attributes") or {"labels": {}}
        for label, entry in attributes["labels"].items():
            if "asked" in entry:
                path = ("attributes", "labels", label, "change_std")
                asked[label] = Column(ASKED + label, label, f"change of {label}, in standard deviations", path, 2)
    return (*COLUMNS, *asked.values())


def means(columns: Sequence[Column], clips: Sequence[Mapping[str, Any] | None]) -> dict[str, float | None]:
    """Mean of each column over the clips that have it."""
    found: dict[str, float | None] = {}
    for column in columns:
        values = [value for value in map(column.value, clips) if value is not None]
        found[column.key] = float(np.mean(values)) if values else None
    return found


def table_lines(names: Sequence[str], clips: Sequence[Mapping[str, Any]], pooled: Mapping[str, Any]) -> list[str]:
    """The clips as a table of text: a line each, their mean, and the distances over all of them.

    `pooled` are the figures of `video_figures.frechet` over all clips.
    """
    columns = columns_of(clips)
    average = means(columns, clips)
    rows = [["clip", *(column.heading for column in columns)]]
    for name, figures in zip(names, clips, strict=True):
        rows.append([shortened(name), *(_cell(column, column.value(figures)) for column in columns)])
    rows.append(["mean", *("" if column.digits == 0 else _cell(column, average[column.key]) for column in columns)])
    wide = [max(len(row[k]) for row in rows) for k in range(len(columns) + 1)]
    lines = [_line(row, wide) for row in rows]
    if any("-" in row[1:] for row in rows):
        lines.append(f"{'-':<{wide[0]}}  {MISSING}")
    return [*lines, *(f"{name:<26}{words}" for name, words in frechet_rows(dict(pooled)))]


def _cell(column: Column, value: float | None) -> str:
    return "-" if value is None else column.text(value)


def _line(row: Sequence[str], wide: Sequence[int]) -> str:
    figures = (f"{cell:>{width}}" for cell, width in zip(row[1:], wide[1:], strict=True))
    return "  ".join([f"{row[0]:<{wide[0]}}", *figures]).rstrip()


def shortened(name: str) -> str:
    """The end of a long name, which tells more than its beginning."""
    return name if len(name) <= NAMED_MOST else "…" + name[1 - NAMED_MOST :]
