"""Alpha by bisection: the least one that reaches the share, or how far it goes."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.errors import UsageError
from sg3cli.latents.text_strength import fit_of, strength_for


def test_fit_is_half_of_one_and_the_similarity() -> None:
    rows, text = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), np.array([1.0, 0.0])
    assert [fit_of(row[None], text) for row in rows] == [1.0, 0.5, 0.0] and fit_of(rows, text) == 0.5


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_the_least_alpha_that_reaches_the_share_is_found(share: float) -> None:
    asked: list[float] = []

    def fit(alpha: float) -> float:
        asked.append(alpha)
        return 0.4 + 0.4 * np.tanh(alpha / 4)

    found = strength_for(fit, share)
    exact = 4 * np.arctanh(share)
    assert found.before == 0.4 and found.after == pytest.approx(0.4 * (1 + share), rel=0.01) and len(asked) < 16
    assert exact - 1e-3 <= found.alpha <= exact * 1.02 + 1e-3


def test_a_share_that_is_not_reached_is_refused_with_what_is() -> None:
    with pytest.raises(UsageError, match=r"fit the text 60% better: alpha 16 makes it 4\d% better"):
        strength_for(lambda alpha: 0.5 + 0.25 * np.tanh(alpha / 8), 0.6)
    with pytest.raises(UsageError, match=r"alpha 1 makes it 20% better"):  # falls apart beyond
        strength_for(lambda alpha: 0.5 + 0.1 * alpha if alpha <= 1 else 0.4, 0.6)
    with pytest.raises(UsageError, match=r"--target-change is -0\.1"):
        strength_for(lambda alpha: 0.5, -0.1)
