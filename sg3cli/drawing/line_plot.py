"""Lines over time as an image: panels one above the other that share their time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.drawing.figure import DPI, blank, pixels, share_of, swatch
from sg3cli.drawing.text import Colour

if TYPE_CHECKING:
    from sg3cli.drawing.figure import Figure

WIDTH = 1280
LEFT, RIGHT, TOP, BOTTOM = 84, 24, 58, 46  # margins
PANEL, TITLE = 150, 34  # height of a panel's plot, and of the words above it
PAPER, INK, FAINT, GRID = (255, 255, 255), (40, 40, 44), (120, 120, 126), (226, 226, 230)
PALETTE: tuple[Colour, ...] = (
    (31, 100, 180),
    (214, 96, 20),
    (40, 140, 70),
    (150, 60, 160),
    (190, 40, 50),
    (90, 90, 90),
)
BRIDGED, ABSENT = (255, 240, 200), (222, 222, 228)
LETTERS, HEADING = 8.5, 10.0  # points


@dataclass(frozen=True)
class Line:
    """`values [n]` at `times [n]` (seconds); nan breaks the line. `dots` marks each value: sampled, not continuous."""

    label: str
    times: np.ndarray
    values: np.ndarray
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    """Lines with a common value axis; `note` says what is not there, and why. `log` axes leave out what is not > 0."""

    title: str
    lines: Sequence[Line]
    log: bool = False
    note: str = ""


@dataclass(frozen=True)
class Shade:
    """Stretches of time with a coloured ground, named in the legend."""

    label: str
    colour: Colour
    spans: Sequence[tuple[float, float]] = field(default_factory=tuple)


def draw(title: str, panels: Sequence[Panel], duration: float, shades: Sequence[Shade] = ()) -> np.ndarray:
    """All panels from 0 to `duration` seconds as one image `[H, WIDTH, 3]` uint8 RGB."""
    height = TOP + len(panels) * (PANEL + TITLE) + BOTTOM
    figure = blank(WIDTH, height, PAPER)
    figure.text(LEFT / WIDTH, 1 - 30 / height, title, fontsize=HEADING + 2, color=share_of(INK), va="center")
    _legend_of_shades(figure, shades)
    for number, panel in enumerate(panels):
        top = TOP + number * (PANEL + TITLE) + TITLE
        size = ((WIDTH - LEFT - RIGHT) / WIDTH, PANEL / height)
        axes = figure.add_axes((LEFT / WIDTH, 1 - (top + PANEL) / height, *size))
        axes.set_xlim(0.0, max(duration, 1e-3))
        for shade in shades:
            for first, last in shade.spans:
                axes.axvspan(
                    first, last, facecolor=share_of(shade.colour), edgecolor="none", antialiased=False, zorder=0
                )
        _panel(axes, panel, last=number == len(panels) - 1)
    return pixels(figure)


def _panel(axes: Any, panel: Panel, last: bool) -> None:
    """One panel: its lines, its value axis, and the words above it, where no line runs."""
    axes.set_title(panel.title, loc="left", fontsize=HEADING, color=share_of(INK), pad=6)
    axes.grid(True, color=share_of(GRID), linewidth=0.8, zorder=1)
    axes.tick_params(labelsize=LETTERS, colors=share_of(FAINT), length=0, labelbottom=last)
    for spine in axes.spines.values():
        spine.set_color(share_of(GRID))
    known = [np.isfinite(line.values) & ((line.values > 0) | (not panel.log)) for line in panel.lines]
    if panel.log and any(shown.any() for shown in known):
        axes.set_yscale("log")
    for number, (line, shown) in enumerate(zip(panel.lines, known, strict=True)):
        alone = line.dots or _has_single_values(shown)
        values = np.where(shown, line.values, np.nan)
        style = {"color": share_of(PALETTE[number % len(PALETTE)]), "linewidth": 2.0, "zorder": 3}
        axes.plot(line.times, values, label=line.label, marker="o" if alone else None, markersize=4.5, **style)
    if not any(shown.any() for shown in known):
        axes.set_yticks([])
    if any(line.label for line in panel.lines):
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.99), "ncols": len(panel.lines)}
        axes.legend(fontsize=LETTERS, frameon=False, labelcolor=share_of(INK), borderpad=0.2, **place)
    if panel.note:
        middle = not any(shown.any() for shown in known)
        x, y, across, along = (0.5, 0.5, "center", "center") if middle else (0.995, 0.96, "right", "top")
        words = {"fontsize": LETTERS, "color": share_of(FAINT), "ha": across, "va": along, "zorder": 4}
        axes.text(x, y, panel.note, transform=axes.transAxes, **words)
    if last:
        axes.set_xlabel("seconds", fontsize=LETTERS, color=share_of(FAINT), labelpad=2)


def _has_single_values(known: np.ndarray) -> bool:
    """Whether a value stands between two that are not there, where a line of its own would be no line."""
    padded = np.concatenate([[False], known, [False]])
    return bool((padded[1:-1] & ~padded[:-2] & ~padded[2:]).any())


def _legend_of_shades(figure: Figure, shades: Sequence[Shade]) -> None:
    """What the grounds mean, at the right of the title."""
    named = [swatch(shade.colour, FAINT, shade.label) for shade in shades if shade.spans]
    if named:
        height = figure.get_size_inches()[1] * DPI
        place = {"loc": "center right", "bbox_to_anchor": (1 - RIGHT / WIDTH, 1 - 30 / height), "ncols": len(named)}
        figure.legend(handles=named, fontsize=LETTERS, frameon=False, labelcolor=share_of(INK), **place)
