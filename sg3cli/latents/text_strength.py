"""How strong a text edit has to be: alpha found by bisection, so that drawings fit the text better by a stated share.

Fit is `(1 + s) / 2` of the similarity `s` in -1..1: 0 for the opposite, 1 for what cannot be fitted better. A share of
0.2 brings a fit of 0.5 to 0.6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sg3cli.errors import UsageError

FIRST, MOST = 0.5, 16.0  # alphas between which the fit may be reached
TOLERANCE = 0.01  # of alpha


@dataclass(frozen=True)
class Strength:
    """`alpha` and the fit before and with it."""

    alpha: float
    before: float
    after: float


def fit_of(rows: np.ndarray, text: np.ndarray) -> float:
    """Mean fit of images' rows `[n,D]` to a text's row `[D]`, all of length 1."""
    return float((1 + rows @ text).mean() / 2)


def strength_for(fit: Callable[[float], float], share: float, most: float = MOST) -> Strength:
    """The least alpha whose fit is `1 + share` times that of 0; `fit` draws and looks, once for each alpha.

    Raises `UsageError` for a share that is not reached, and says how far it goes.
    """
    if not share > 0:
        raise UsageError(f"--target-change is {share:g}", "give a share above 0: 0.2 for a fit that is a fifth better")
    before = fit(0.0)
    wanted = (1 + share) * before
    low, high, found, best = 0.0, FIRST, fit(FIRST), (0.0, before)
    while found < wanted:
        best = max(best, (high, found), key=lambda pair: pair[1])
        if high >= most or found < best[1] - 0.02:  # the drawing is falling apart
            reached = f"alpha {best[0]:g} makes it {best[1] / before - 1:.0%} better"
            raise UsageError(f"the faces do not come to fit the text {share:.0%} better: {reached}",
                             "ask for a smaller --target-change, or give --alpha")  # fmt: skip
        low, high = high, min(2 * high, most)
        found = fit(high)
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2
        value = fit(middle)
        low, high, found = (low, middle, value) if value >= wanted else (middle, high, found)
    return Strength(round(high, 3), before, found)
