"""A run of EQ that goes on in the middle measures what a whole one does."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_generator

from sg3cli.metrics.equivariance import decibels, eq_r, eq_t, shift_errors, turn_errors


def test_errors_from_the_middle_on_are_those_of_the_whole() -> None:
    G = tiny_generator()
    ws = G.mapping(torch.randn(4, G.config.z_dim, generator=torch.Generator().manual_seed(0)))
    for errors, whole in ((shift_errors, eq_t), (turn_errors, eq_r)):
        found = list(errors(G, ws))
        assert list(errors(G, ws, first=2)) == found[2:] and len(set(found)) == 4
        assert decibels(found) == pytest.approx(whole(G, ws))


def test_decibels_of_a_mean_error() -> None:
    assert decibels([0.03, 0.05]) == pytest.approx(20) and decibels([0.0]) == float("inf")
