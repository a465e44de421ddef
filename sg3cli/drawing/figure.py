"""Figures of matplotlib, which nothing else imports: a blank one, and its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.drawing.text import Colour

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100


def blank(width: int, height: int, paper: Colour) -> Figure:
    """A figure of so many pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((width / DPI, height / DPI), DPI, facecolor=share_of(paper))
    FigureCanvasAgg(figure)  # becomes the figure's own
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """What is drawn, `[H, W, 3]` uint8 RGB."""
    canvas: Any = figure.canvas
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def swatch(colour: Colour, edge: Colour, label: str) -> Any:
    """A coloured field of a legend."""
    from matplotlib.patches import Patch

    return Patch(facecolor=share_of(colour), edgecolor=share_of(edge), label=label)


def share_of(colour: Colour) -> tuple[float, float, float]:
    """Levels as matplotlib wants them, from 0 to 1."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
