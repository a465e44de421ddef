"""DCI, MIG and separability of codes whose structure is known."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.metrics import linear_models
from sg3cli.metrics.disentanglement import (
    bins_for,
    conditional_entropy,
    dci,
    entropy_scores,
    mutual_information,
    mutual_information_gap,
    separability,
)

pytest.importorskip("sklearn")


def codes(count: int = 400, width: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width))


def turned(values: np.ndarray) -> np.ndarray:
    """By an orthogonal matrix that mixes all coordinates."""
    q, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(values.shape[1],) * 2))
    return values @ q


def test_importance_of_one_for_one_and_of_all_for_all() -> None:
    assert entropy_scores(np.eye(3)) == pytest.approx((1, 1))
    assert entropy_scores(np.ones((3, 3))) == pytest.approx((0, 0))


def test_disentanglement_is_of_coordinates_and_completeness_of_attributes() -> None:
    assert entropy_scores(np.array([[1.0, 1], [0, 0]])) == pytest.approx((0, 1))  # one coordinate for both
    assert entropy_scores(np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])) == pytest.approx((1, 0.5))


def test_coordinates_count_by_their_share_of_the_importance() -> None:
    found, _ = entropy_scores(np.array([[9.0, 0], [0.5, 0.5], [0, 10]]))
    assert found == pytest.approx(0.95)


def test_one_coordinate_for_each_attribute_is_disentangled_and_a_turned_code_is_not() -> None:
    z = codes()
    factors = z[:, :3] * (2, -30, 0.1) + (5, 0, -1)
    plain, mixed = dci(z, factors), dci(turned(z), factors)
    assert min(plain.disentanglement, plain.completeness, plain.informativeness) > 0.97
    assert mixed.disentanglement < 0.6 and mixed.completeness < 0.6
    assert mixed.informativeness > 0.97  # a turn hides nothing
    assert plain.predicted.all() and plain.explained.shape == (3,)


def test_an_attribute_that_codes_do_not_know_is_told_and_left_out() -> None:
    z, noise = codes(), codes(seed=9)[:, :1]
    found = dci(z, np.concatenate([z[:, :2], noise], axis=1))
    assert found.predicted.tolist() == [True, True, False]
    assert found.disentanglement > 0.97 and found.explained[2] < 0.05
    assert found.informativeness == pytest.approx(found.explained.mean())
    assert np.isnan(dci(z, noise).disentanglement)


def test_a_lasso_finds_signs_and_leaves_out_what_does_nothing() -> None:
    x = codes(300, 20)
    x -= x.mean(0)
    y = 2 * x[:, 3] - x[:, 7]
    weights = linear_models.sparse_weights(x, y)
    assert weights[3] == pytest.approx(2, abs=0.1) and weights[7] == pytest.approx(-1, abs=0.1)
    assert np.abs(np.delete(weights, [3, 7])).max() < 0.05
    assert not linear_models.sparse_weights(x, np.zeros(300)).any()


def test_gap_of_one_coordinate_for_each_attribute() -> None:
    z = codes(1000)
    assert mutual_information_gap(z, z[:, :2], 10) > 0.9
    assert mutual_information_gap(z, -np.exp(z[:, :2]), 10) > 0.9  # bins know no scale and no sign
    assert mutual_information_gap(turned(z), z[:, :2], 10) < 0.4
    twice = np.concatenate([z[:, :1], z[:, :1]], axis=1)
    assert mutual_information_gap(twice, z[:, :1], 10) == pytest.approx(0, abs=1e-12)


def test_mutual_information_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import mutual_info_score

    z = codes(500, 2)
    noisy = z[:, :1] + 0.5 * codes(500, 1, seed=3)
    sorted_in = [np.searchsorted(np.quantile(v, np.arange(1, 8) / 8), v) for v in (z[:, 0], noisy[:, 0])]
    information, entropy = mutual_information(z, noisy, 8)
    assert information[0, 0] == pytest.approx(mutual_info_score(*sorted_in), abs=1e-9)
    assert information[1, 0] < 0.1 and entropy[0] == pytest.approx(np.log(8), abs=1e-3)


def test_bins_hold_enough_codes() -> None:
    assert [bins_for(n) for n in (40, 400, 4000, 40_000)] == [2, 8, 20, 20]


def test_what_a_hyperplane_leaves_unknown() -> None:
    guessed = np.array([True, True, False, False])
    assert conditional_entropy(guessed, guessed) == conditional_entropy(~guessed, guessed) == 0
    assert conditional_entropy(guessed, np.array([True, False, True, False])) == pytest.approx(np.log(2))


def test_separability_is_1_where_planes_tell_all_and_twice_that_for_each_coin() -> None:
    z, noise = codes(800), codes(800, 2, seed=7)
    clear = separability(z, z[:, :2] + z[:, 2:])
    assert clear.score < 1.1 and clear.accuracy.min() > 0.97
    coins = separability(z, noise)
    assert coins.score == pytest.approx(4, rel=0.05) and abs(coins.accuracy.mean() - 0.5) < 0.12
