"""PPL and path length of generators whose speed is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sg3cli.metrics.path_length import between, lengths, speeds, trimmed_mean

A = np.random.default_rng(0).normal(size=(12, 5))


def linear(points: np.ndarray) -> Tensor:
    """Images [n,3,2,2] that are a linear map of points [n,5]."""
    return torch.from_numpy(points.astype(np.float64) @ A.T).view(-1, 3, 2, 2)


def plain(points: np.ndarray) -> Tensor:
    return torch.from_numpy(points.astype(np.float64)).view(len(points), 1, 1, -1)


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum(dim=(1, 2, 3))


def ends(count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, 5)), rng.normal(size=(count, 5))


def test_speed_of_a_linear_generator_is_the_square_of_the_whole_way() -> None:
    a, b = ends()
    expected = np.square((b - a) @ A.T).sum(axis=1)
    assert speeds(linear, squared, a, b) == pytest.approx(expected, rel=1e-6)
    assert speeds(linear, squared, a, b, epsilon=0.1) == pytest.approx(expected, rel=1e-9)


def test_length_of_a_linear_generator_s_way_is_that_of_its_image_in_any_number_of_pieces() -> None:
    a, b = ends()
    expected = np.linalg.norm((b - a) @ A.T, axis=1)
    for pieces in (1, 7):
        assert lengths(linear, squared, a, b, pieces) == pytest.approx(expected, rel=1e-9)


def test_a_bent_way_is_longer_than_the_straight_one() -> None:
    """On a quarter of a circle: pi / 2, not the root of 2 that its chord has."""
    a, b = np.array([[1.0, 0]]), np.array([[0, 1.0]])
    assert lengths(plain, squared, a, b, 200, spherical=True) == pytest.approx(np.pi / 2, rel=1e-4)
    assert lengths(plain, squared, a, b, 1, spherical=True) == pytest.approx(np.sqrt(2), rel=1e-9)
    assert speeds(plain, squared, a, b, spherical=True) == pytest.approx((np.pi / 2) ** 2, rel=1e-3)


def test_between_ends_at_its_ends_and_turns_evenly() -> None:
    a, b = (x.astype(np.float32) for x in ends())
    for spherical in (False, True):
        assert between(a, b, 0.0, spherical) == pytest.approx(a, abs=1e-6)
        assert between(a, b, 1.0, spherical) == pytest.approx(b, abs=1e-6)
        assert between(a, b, 0.3, spherical).dtype == np.float32
    assert between(np.array([[3.0, 0]]), np.array([[0, 3.0]]), 1 / 3, True) == pytest.approx(
        np.array([[3 * np.cos(np.pi / 6), 1.5]])
    )
    assert between(np.zeros((1, 2, 2)), np.ones((1, 2, 2)), 0.25) == pytest.approx(np.full((1, 2, 2), 0.25))


def test_the_trimmed_mean_leaves_out_both_ends() -> None:
    values = np.concatenate([[-1e9], np.full(98, 2.0), [1e9]])
    assert trimmed_mean(values, 0.02) == 2.0
    assert trimmed_mean(np.array([1.0, 3.0])) == 2.0
