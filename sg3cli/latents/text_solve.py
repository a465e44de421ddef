"""A direction of S for a text that moves what the text speaks of and holds what it leaves open.

StyleCLIP lets every style move by its agreement with the text. Styles that agree also do other things, and in a small
model most do. Where a text model knows what can be said of a face (its axes), the styles `d` are solved for instead:

    text . J d = 1,   named axes . J d = 1 (if several are named),   held axes . J d = 0,   d' C^-1 d as small as can be

J: what each style does to the rows of pictures, on average over faces; C: how the styles of the model's own faces vary
together. Everything that is read counts in its standard deviation over people, so that strength 1 makes a face as much
more like the text as people differ in that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg3cli.errors import UsageError

PRICE = 3e-3  # of a style's size beside what is asked for, in units of the best that a style of size 1 could do
WEAK = 0.02  # share of a deviation for one of styles: less than that and the model cannot draw what the text says


@dataclass(frozen=True)
class Readings:
    """Rows `[m,D]` by which pictures are read, each in standard deviations over people, and the change asked for."""

    rows: np.ndarray
    wanted: np.ndarray  # [m]


def solve_styles(
    responses: np.ndarray, covariance: np.ndarray, readings: Readings, price: float = PRICE
) -> tuple[np.ndarray, np.ndarray]:
    """(styles `[channels]`, what they do to each reading `[m]`, as far as it goes in a straight line).

    responses `[channels,D]`: what one unit of each style does to a row; covariance `[channels,channels]` of styles. The
    first reading, the text's own, changes by 1. Raises `UsageError` when hardly any style answers to it.
    """
    answer = responses.astype(np.float64) @ readings.rows.T  # [channels,m]
    spread = covariance @ answer
    gram = answer.T @ spread
    if gram[0, 0] < WEAK**2:
        raise UsageError("no style of this model answers to the text", "choose another text, or another --text-model")
    share = np.linalg.solve(gram + price * gram[0, 0] * np.eye(len(gram)), readings.wanted)
    styles = spread @ share
    reached = answer.T @ styles
    if reached[0] <= 0:
        raise UsageError("the text cannot be told from what it should leave as it is", "choose another text")
    return (styles / reached[0]).astype(np.float32), reached / reached[0]
