"""The report on inversion for people: as bars over the pictures themselves, and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sg3cli.drawing.bar_chart import WIDTH, Bars, draw
from sg3cli.drawing.labelled_grid import Cell, Row, labelled_grid
from sg3cli.evaluation.inversion_subjects import LIES, Subject
from sg3cli.evaluation.report_run import Figures
from sg3cli.levels import to_uint8

SHOWN = 3  # pictures under the bars, aligned and unaligned
TITLES = (
    ("l2", "L2: lower is nearer", 4), ("features", "feature distance: lower", 3), ("ms_ssim", "MS-SSIM: higher", 3),
    ("identity", "identity: higher", 3), ("seconds", "seconds a picture", 1), ("memory_mb", "memory at most, MB", 0),
)  # fmt: skip


def picture(figures: Figures, subjects: Sequence[Subject], rows: dict[str, dict[str, np.ndarray]]) -> np.ndarray:
    """Every figure as bars, and what the methods draw."""
    names = [row["method"].replace("encoder + refinement", "refinement") for row in figures["methods"]]
    panels = [
        Bars(title, names, {lie: [row[lie][key] for row in figures["methods"]] for lie in LIES}, digits)
        for key, title, digits in TITLES
    ]
    count, reader = len(subjects), figures["reader"] or "nobody"
    subtitle = f"{count} pictures; feature distance: {figures['distance']}; identity by {reader}"
    return draw(f"{figures['model']}: inversion", subtitle, panels, [drawings(subjects, rows)])


def drawings(subjects: Sequence[Subject], rows: dict[str, dict[str, np.ndarray]]) -> np.ndarray:
    """The first pictures, and beside each what every method draws."""
    side = WIDTH // (len(rows) + 1) - 5
    lines = []
    for k, subject in enumerate(subjects[:SHOWN]):
        for lie in LIES:
            source = to_uint8(subject.aligned if lie == "aligned" else subject.unaligned)
            cells = [Cell("source", source), *(Cell(name, found[lie][k]) for name, found in rows.items())]
            lines.append(Row(f"{subject.name}, {lie}", cells))
    return labelled_grid(lines, side)


def report_lines(figures: Figures) -> Iterator[str]:
    """The figures as a table."""
    missing = figures["not_computed"]
    yield f"{len(figures['pictures'])} pictures of {figures['target']}"
    yield f"feature distance: {figures['distance']}; identity by {figures['reader'] or 'nobody'}"
    for lie in LIES:
        heads = ("L2", "features", "MS-SSIM", "identity", "seconds", "MB")
        yield f"{lie:<34}" + "".join(f"{head:>10}" for head in heads)
        for row in figures["methods"]:
            values = (_number(row[lie][key], digits) for key, _, digits in TITLES)
            yield f"{row['method']:<34}" + "".join(values)
    for name, why in missing.items():
        yield f"{name:<34}not computed: {why}"


def _number(value: float | None, digits: int) -> str:
    return f"{'-':>10}" if value is None else f"{value:>10.{digits}f}"
