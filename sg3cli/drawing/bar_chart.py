"""Figures as bars: panels beside and below each other, each with an axis of its own, and images under them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sg3cli.drawing.figure import blank, pixels, share_of, swatch
from sg3cli.drawing.line_plot import FAINT, GRID, HEADING, INK, LETTERS, PALETTE, PAPER
from sg3cli.drawing.text import Colour

WIDTH = 1280
COLUMNS = 3
TOP, TITLE, BAR, GAP, BOTTOM, MARGIN = 76, 44, 17, 10, 16, 14  # pixels
NAMES = 0.36  # share of a panel's width that is left to the names
ROOM = 1.3  # of the longest bar, so that its number has a place
MISSING = "not computed"


@dataclass(frozen=True)
class Bars:
    """A bar for each of `names` and each series; None: not computed. `digits` after the point of the numbers."""

    title: str
    names: Sequence[str]
    series: Mapping[str, Sequence[float | None]]
    digits: int = 3

    @property
    def height(self) -> int:
        """Pixels of its bars."""
        return len(self.names) * (BAR * len(self.series) + GAP)


def draw(title: str, subtitle: str, panels: Sequence[Bars], below: Sequence[np.ndarray] = ()) -> np.ndarray:
    """All panels `[H, WIDTH, 3]` uint8 RGB, and images of at most that width under them."""
    rows = [panels[first : first + COLUMNS] for first in range(0, len(panels), COLUMNS)]
    heights = [max(panel.height for panel in row) + TITLE for row in rows]
    height = TOP + sum(heights) + BOTTOM
    figure = blank(WIDTH, height, PAPER)
    figure.text(MARGIN / WIDTH, 1 - 26 / height, title, fontsize=HEADING + 2, color=share_of(INK), va="center")
    figure.text(MARGIN / WIDTH, 1 - 52 / height, subtitle, fontsize=LETTERS, color=share_of(FAINT), va="center")
    top = TOP
    for row, tall in zip(rows, heights, strict=True):
        for number, panel in enumerate(row):
            across = (WIDTH - 2 * MARGIN) / COLUMNS
            left = MARGIN + across * (number + NAMES)
            box = (left, height - top - TITLE - panel.height, across * (1 - NAMES) - MARGIN, panel.height)
            _panel(figure.add_axes((box[0] / WIDTH, box[1] / height, box[2] / WIDTH, box[3] / height)), panel)
        top += tall
    return np.concatenate([pixels(figure), *(_fitted(image) for image in below)])


def _panel(axes: Any, panel: Bars) -> None:
    pad = 4 + 14 * (len(panel.series) > 1)  # above the legend
    axes.set_title(panel.title, loc="left", x=-NAMES / (1 - NAMES), fontsize=HEADING, color=share_of(INK), pad=pad)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.axvline(0, color=share_of(GRID), linewidth=1)
    axes.set_xticks([])
    count, step = len(panel.series), BAR * len(panel.series) + GAP
    axes.set_ylim(len(panel.names) * step, 0)
    axes.set_yticks([step * (k + 0.5) for k in range(len(panel.names))], list(panel.names))
    axes.tick_params(labelsize=LETTERS, colors=share_of(INK), length=0)
    known = [
        value for values in panel.series.values() for value in values if value is not None and math.isfinite(value)
    ]
    most, least = max([*known, 1e-9]), min([*known, 0.0])
    axes.set_xlim(ROOM * least, ROOM * most)
    for number, values in enumerate(panel.series.values()):
        for k, value in enumerate(values):
            _bar(axes, panel, step * k + GAP / 2 + BAR * (number + 0.5), value, PALETTE[number % len(PALETTE)])
    if count > 1:
        named = [swatch(PALETTE[k % len(PALETTE)], PAPER, label) for k, label in enumerate(panel.series)]
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.99), "ncols": count, "columnspacing": 1.0}
        axes.legend(handles=named, fontsize=LETTERS - 1, frameon=False, labelcolor=share_of(INK), borderpad=0, **place)


def _bar(axes: Any, panel: Bars, place: float, value: float | None, colour: Colour) -> None:
    """A bar and its number behind it; words where there is no number."""
    if value is not None and math.isfinite(value):
        axes.barh(place, value, height=BAR - 3, color=share_of(colour))
        words, start, ink = f"{value:.{panel.digits}f}", max(value, 0.0), INK
    else:
        words, start, ink = MISSING if value is None else f"{value}", 0.0, FAINT
    axes.text(start, place, f" {words}", fontsize=LETTERS, color=share_of(ink), va="center")


def _fitted(image: np.ndarray) -> np.ndarray:
    """`[H, W, 3]` with paper on its right, `[H, WIDTH, 3]`; too wide ones are cut."""
    page = np.full((len(image), WIDTH, 3), PAPER, np.uint8)
    page[:, : min(image.shape[1], WIDTH)] = image[:, :WIDTH]
    return page
