"""KID: its arithmetic, and that it is without bias."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.metrics.kernel_distance import discrepancy, kernel_distance


def normal(count: int, seed: int, at: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)) + at


def test_the_estimate_is_the_sum_over_pairs() -> None:
    a, b = normal(5, 0), normal(5, 1, 0.5)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 6 + 1) ** 3)

    within = sum(k(x[i], x[j]) for x in (a, b) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(k(x, y) for x in a for y in b) / 25
    assert discrepancy(a, b) == pytest.approx(within - 2 * across)


def test_equal_distributions_are_at_0_on_average_even_in_small_sets() -> None:
    found = np.array([discrepancy(normal(8, 2 * k), normal(8, 2 * k + 1)) for k in range(400)])
    assert abs(found.mean()) < 3 * found.std() / 20
    assert 0.2 < (found < 0).mean() < 0.8  # a biased one would be above 0 always


def test_it_grows_with_the_distance() -> None:
    near, far = (kernel_distance(normal(200, 0), normal(200, 1, at))[0] for at in (0.3, 1.0))
    assert 0.05 < near < far


def test_draws_of_subsets_tell_their_spread_and_all_at_once_has_none() -> None:
    a, b = normal(300, 0), normal(200, 1, 0.3)
    mean, spread = kernel_distance(a, b, subset=100, subsets=20)
    assert spread is not None and 0 < spread < mean
    assert mean == pytest.approx(kernel_distance(a, b)[0], rel=0.3)
    assert kernel_distance(a[:200], b)[1] is None
    assert kernel_distance(a, b, 100, 20) == kernel_distance(a, b, 100, 20)
    with pytest.raises(ValueError, match="too few"):
        kernel_distance(a[:1], b)
