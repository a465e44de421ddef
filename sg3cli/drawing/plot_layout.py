"""Panels of lines over time as places in a box of 1000 x 100, from which a page draws them at any width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sg3cli.drawing.line_plot import Line, Panel, Shade

WIDTH, HEIGHT = 1000.0, 100.0
MOST_POINTS = 800  # of a line's path
MARGIN = 0.08  # of the range of values, left free above and below
TICKS = 4  # at most, on an axis


@dataclass(frozen=True)
class Tick:
    """A label on an axis at a share 0..1 from its left, or from its top."""

    place: float
    text: str


@dataclass(frozen=True)
class DrawnLine:
    """`path` is SVG path data in the box; `dots` that of its values where each is marked."""

    label: str
    path: str
    dots: str = ""


@dataclass(frozen=True)
class Band:
    """A stretch of time with a ground of its own, in shares 0..1 of the width."""

    label: str
    start: float
    width: float


@dataclass(frozen=True)
class DrawnPanel:
    """A panel ready to be drawn. `note` says what is missing, and why."""

    title: str
    note: str
    lines: tuple[DrawnLine, ...]
    values: tuple[Tick, ...]
    times: tuple[Tick, ...]
    bands: tuple[Band, ...]


def layout(panel: Panel, duration: float, shades: Sequence[Shade] = ()) -> DrawnPanel:
    """Places of a panel's lines from 0 to `duration` seconds."""
    duration = max(duration, 1e-3)
    shown = [_shown(line, panel.log) for line in panel.lines]
    known = np.concatenate([values[np.isfinite(values)] for _, values in shown]) if shown else np.empty(0)
    low, high = _range(known)
    lines = []
    for line, (times, values) in zip(panel.lines, shown, strict=True):
        x, y = WIDTH * times / duration, HEIGHT * (high - values) / (high - low)
        lines.append(DrawnLine(line.label, _path(*thinned(x, y)), _dots(x, y) if line.dots else ""))
    return DrawnPanel(
        panel.title,
        panel.note,
        tuple(lines),
        tuple(Tick((high - place) / (high - low), text) for place, text in _value_ticks(low, high, panel.log, known)),
        tuple(Tick(place / duration, f"{place:g}") for place in steps(0.0, duration, TICKS + 1)),
        tuple(
            Band(shade.label, first / duration, (last - first) / duration)
            for shade in shades
            for first, last in shade.spans
        ),
    )


def _shown(line: Line, log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Times and values (their logarithms on such an axis, which leaves out what is not above 0)."""
    values = np.asarray(line.values, np.float64)
    if log:
        values = np.log10(np.where(values > 0, values, np.nan))
    return np.asarray(line.times, np.float64), values


def _range(known: np.ndarray) -> tuple[float, float]:
    if not len(known):
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    apart = max(high - low, 0.02 * max(abs(low), abs(high)), 1e-6)
    return low - MARGIN * apart, max(high, low + apart) + MARGIN * apart


def _value_ticks(low: float, high: float, log: bool, known: np.ndarray) -> list[tuple[float, str]]:
    if not len(known):
        return []
    if not log:
        return [(value, f"{value:g}") for value in steps(low, high, TICKS)]
    first, last = 10**low, 10**high
    values = [d * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for d in (1, 2, 5)]
    values = [value for value in values if first <= value <= last]
    values = values if 2 <= len(values) <= TICKS else [v for v in values if v == 10 ** round(math.log10(v))] or values
    values = values[:: max(1, -(-len(values) // TICKS))]
    return [(math.log10(value), f"{value:g}") for value in values]


def steps(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, at most `most` + 1 of them, evenly apart."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(k * step, 10) for k in range(first, last + 1)]


def thinned(x: np.ndarray, y: np.ndarray, most: int = MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """A line of at most about `most` points that keeps its peaks, its ends and its gaps (nan)."""
    if len(x) <= most:
        return x, y
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), most // 3):
        values = y[part]
        gaps = part[~np.isfinite(values)]
        kept.update(gaps[:1].tolist())
        if len(gaps) < len(part):
            kept.update((int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])))
    index = np.array(sorted(kept))
    return x[index], y[index]


def _path(x: np.ndarray, y: np.ndarray) -> str:
    parts, pen = [], "M"
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        if math.isfinite(b):
            parts.append(f"{pen}{a:.1f} {b:.2f}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def _dots(x: np.ndarray, y: np.ndarray) -> str:
    """Strokes without length, which round ends turn into dots."""
    places = zip(x.tolist(), y.tolist(), strict=True)
    return "".join(f"M{a:.1f} {b:.2f}h0.01" for a, b in places if math.isfinite(b))
