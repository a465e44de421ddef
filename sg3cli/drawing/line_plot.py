"""Lines over time as an image: panels one above the other that share their time axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from sg3cli.drawing.text import Colour, fit, text_width, write

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
LETTERS, HEADING = 14, 17
SUBPIXEL = 4  # bits: lines are drawn to a sixteenth of a pixel


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
    canvas = np.full((height, WIDTH, 3), PAPER, np.uint8)
    x = Axis(0.0, max(duration, 1e-3), LEFT, WIDTH - RIGHT)
    _header(canvas, title, shades)
    for number, panel in enumerate(panels):
        top = TOP + number * (PANEL + TITLE) + TITLE
        for shade in shades:
            for first, last in shade.spans:
                canvas[top : top + PANEL, x.pixel(first) : max(x.pixel(last), x.pixel(first) + 1)] = shade.colour
        _panel(canvas, panel, x, top)
    _time_axis(canvas, x, height - BOTTOM)
    return canvas


# ---- axes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """A straight map from values `low` to `high` (or their logarithms) to pixels `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: np.ndarray | float) -> np.ndarray:
        """Where values are, in pixels."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        seen = np.log10(value) if self.log else value
        return np.asarray(self.start + (seen - low) / (high - low) * (self.end - self.start))

    def pixel(self, value: float) -> int:
        """The pixel that a value is nearest to."""
        return round(float(self.place(value)))

    def ticks(self) -> list[float]:
        """Round values within the range: 1, 2, 5 times a power of ten, or powers of ten."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            every = max(1, -(-(last - first) // 4))
            return [10.0**power for power in range(first, last + 1, every)]
        wanted = (self.high - self.low) / max(2, abs(self.end - self.start) / (110 if self.end > self.start else 40))
        step = nice_step(wanted)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def nice_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(k * power for k in (1.0, 2.0, 5.0, 10.0) if k * power >= least * (1 - 1e-9))


def value_axis(lines: Sequence[Line], log: bool, top: int) -> Axis | None:
    """The axis that shows all values with a little room; None when there are none to show."""
    values = np.concatenate([np.empty(0), *(line.values for line in lines)]).astype(np.float64)
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if len(values) == 0:
        return None
    low, high = float(values.min()), float(values.max())
    if log:
        low, high = 10 ** math.floor(math.log10(low) + 1e-9), 10 ** math.ceil(math.log10(high) - 1e-9)
        return Axis(low, high if high > low else 10 * low, top + PANEL, top, True)
    room = 0.08 * (high - low) or max(abs(high), 1.0) * 0.1
    return Axis(low - room, high + room, top + PANEL, top)


def number_text(value: float, step: float) -> str:
    """A tick's value with as many digits as its step needs."""
    if abs(value) >= 1e5 or 0 < abs(value) < 1e-3:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{value + 0.0:.{digits}f}"


# ---- drawing -------------------------------------------------------------------------------------------------------


def _header(canvas: np.ndarray, title: str, shades: Sequence[Shade]) -> None:
    x = WIDTH - RIGHT
    for shade in reversed([shade for shade in shades if shade.spans]):
        x -= text_width(shade.label, LETTERS)
        write(canvas, shade.label, x, 34, LETTERS, INK)
        x -= 22
        cv2.rectangle(canvas, (x, 22), (x + 15, 35), shade.colour, -1)
        cv2.rectangle(canvas, (x, 22), (x + 15, 35), FAINT, 1)
        x -= 18
    words, size = fit(title, HEADING + 3, x - LEFT)
    write(canvas, words, LEFT, 36, size, INK)


def _panel(canvas: np.ndarray, panel: Panel, x: Axis, top: int) -> None:
    y = value_axis(panel.lines, panel.log, top)
    write(canvas, panel.title, LEFT, top - 10, HEADING, INK)
    _vertical_grid(canvas, x, top)
    if y is not None:
        _value_grid(canvas, y)
        for number, line in enumerate(panel.lines):
            _line(canvas, line, x, y, PALETTE[number % len(PALETTE)])
        _legend(canvas, panel, top)
    if panel.note:
        middle = y is None
        size = HEADING if middle else LETTERS
        words, size = fit(panel.note, size, WIDTH - LEFT - RIGHT - 20)
        left = LEFT + (WIDTH - LEFT - RIGHT - text_width(words, size)) // 2 if middle else LEFT + 10
        write(canvas, words, left, top + (PANEL // 2 + 6 if middle else PANEL - 8), size, FAINT)
    cv2.rectangle(canvas, (LEFT, top), (WIDTH - RIGHT, top + PANEL), FAINT, 1)


def _vertical_grid(canvas: np.ndarray, x: Axis, top: int) -> None:
    for tick in x.ticks():
        at = x.pixel(tick)
        cv2.line(canvas, (at, top), (at, top + PANEL), GRID, 1)


def _value_grid(canvas: np.ndarray, y: Axis) -> None:
    ticks = y.ticks()
    step = ticks[1] - ticks[0] if len(ticks) > 1 else max(abs(ticks[0]), 1e-3) if ticks else 1.0
    for tick in ticks:
        at = y.pixel(tick)
        cv2.line(canvas, (LEFT, at), (WIDTH - RIGHT, at), GRID, 1)
        words = number_text(tick, tick if y.log else step)
        write(canvas, words, LEFT - 8 - text_width(words, LETTERS), at + 5, LETTERS, INK)


def _line(canvas: np.ndarray, line: Line, x: Axis, y: Axis, colour: Colour) -> None:
    """The stretches of values that can be shown; one value on its own is a dot."""
    values = np.where(np.isfinite(line.values) & ((line.values > 0) | (not y.log)), line.values, np.nan)
    known = np.isfinite(values)
    points = np.stack([x.place(line.times), y.place(np.where(known, values, y.low))], axis=-1)
    pixels = np.rint(points * (1 << SUBPIXEL)).astype(np.int32)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], known, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2):
        cv2.polylines(canvas, [pixels[first:last, None]], False, colour, 2, cv2.LINE_AA, SUBPIXEL)
        if line.dots or last - first == 1:
            for point in pixels[first:last]:
                cv2.circle(canvas, point.tolist(), 3 << SUBPIXEL, colour, -1, cv2.LINE_AA, SUBPIXEL)


def _legend(canvas: np.ndarray, panel: Panel, top: int) -> None:
    """Names of the lines, right of the panel's title."""
    x = WIDTH - RIGHT
    shown = list(enumerate(panel.lines))
    for number, line in reversed(shown):
        room = (WIDTH - RIGHT - LEFT - text_width(panel.title, HEADING) - 40) // max(len(shown), 1) - 50
        words, size = fit(line.label, LETTERS, max(room, 40))
        x -= text_width(words, size)
        write(canvas, words, x, top - 10, size, INK)
        x -= 30
        cv2.line(canvas, (x, top - 15), (x + 22, top - 15), PALETTE[number % len(PALETTE)], 3, cv2.LINE_AA)
        x -= 20


def _time_axis(canvas: np.ndarray, x: Axis, y: int) -> None:
    ticks = x.ticks()
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    for tick in ticks:
        words = number_text(tick, step)
        at = x.pixel(tick)
        cv2.line(canvas, (at, y), (at, y + 5), FAINT, 1)
        write(canvas, words, at - text_width(words, LETTERS) // 2, y + 20, LETTERS, INK)
    words = "time, s"
    write(canvas, words, (LEFT + WIDTH - RIGHT - text_width(words, LETTERS)) // 2, y + 38, LETTERS, INK)
