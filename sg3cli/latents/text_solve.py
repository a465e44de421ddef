"""An edit for a text that moves what the text speaks of and holds what it leaves open.

StyleCLIP lets every style move by its agreement with the text. Styles that agree also do other things, and in a small
model most do. Where a text model knows what can be said of a face (its axes), shares `c` of what a model can do
(`text_moves`) are solved for instead:

    text . J'c = 1,   named axes . J'c = 1 (if several are named),   held axes . J'c = 0,   |c|^2 as small as can be

J: what each move does to the rows of pictures, on average over faces. Everything that is read counts in its standard
deviation over people, so that strength 1 makes a face as much more like the text as people differ in that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg3cli.errors import UsageError

PRICE = 0.07  # of a move's size beside what is asked for, in units of the best that moves of size 1 could do
WEAK = 0.05  # share of a deviation for a move of size 1: less than that and the model cannot draw what the text says


@dataclass(frozen=True)
class Readings:
    """Rows `[m,D]` by which pictures are read, each in standard deviations over people, and the change asked for."""

    rows: np.ndarray
    wanted: np.ndarray  # [m]


def solve_moves(effects: np.ndarray, readings: Readings, price: float = PRICE) -> np.ndarray:
    """Shares `[M]` of moves, of effects `[M,D]`; the first reading, the text's own, changes by 1.

    Raises `UsageError` when hardly any move answers to it.
    """
    answer = effects.astype(np.float64) @ readings.rows.T  # [M,m]
    gram = answer.T @ answer
    if gram[0, 0] < WEAK**2:
        raise UsageError("nothing that this model can do answers to the text", "choose another text or --text-model")
    shares = answer @ np.linalg.solve(gram + price * gram[0, 0] * np.eye(len(gram)), readings.wanted)
    reached = float(answer[:, 0] @ shares)
    if reached < WEAK:
        raise UsageError("the text cannot be told from what it should leave as it is", "choose another text")
    found: np.ndarray = shares / reached
    return found
