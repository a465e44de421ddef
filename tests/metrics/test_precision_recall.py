"""Precision and recall of sets that are equal, apart, and part of one another."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.metrics import precision_recall as pr


def cluster(at: float, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)) + at


def test_equal_sets_and_sets_apart() -> None:
    a = cluster(0, 60, 0)
    assert pr.precision_recall(a, a) == (1, 1)
    assert pr.precision_recall(a, cluster(100, 50, 1)) == (0, 0)


def test_a_generator_that_draws_half_of_the_kinds_is_precise_and_does_not_recall() -> None:
    real = np.concatenate([cluster(0, 200, 0), cluster(50, 200, 1)])
    precision, recall = pr.precision_recall(real, cluster(0, 200, 2))
    assert precision > 0.8 and 0.35 < recall <= 0.5
    assert pr.precision_recall(cluster(0, 200, 2), real)[0] <= 0.5


def test_balls_reach_to_the_kth_other_feature() -> None:
    line = np.arange(10.0)[:, None]
    assert pr.inside(np.array([[11.9], [12.1]]), line, 3) == 0.5  # the last of the line reaches 3 further
    assert pr.inside(np.array([[11.9], [9.9]]), line, 1) == 0.5


def test_parts_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    real, drawn = cluster(0, 70, 0), cluster(0.8, 50, 1)
    whole = pr.precision_recall(real, drawn)
    monkeypatch.setattr(pr, "ROWS", 16)
    assert pr.precision_recall(real, drawn) == whole and 0 < whole[0] < 1


def test_too_few_features_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 features are too few"):
        pr.precision_recall(cluster(0, 3, 0), cluster(0, 9, 0))
