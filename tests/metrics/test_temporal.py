"""Jitter, flicker, identity over time and the figures of a paste."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3cli.metrics.temporal import flicker, identity_consistency, jitter, outside_difference, seam_error


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_jitter_ignores_uniform_motion_and_scales_with_acceleration(seed, k):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.02, 0.06, 12))  # variable frame rate
    start, velocity = rng.normal(size=(2, 68, 2)) * 30
    uniform = start + velocity * times[:, None, None]
    assert jitter(uniform, times) < 1e-6
    shake = rng.normal(size=(12, 68, 2))
    assert jitter(uniform + k * shake, times) == pytest.approx(k * jitter(shake, times), rel=1e-6)


def test_identity_consistency_is_one_for_the_identity_edit_and_falls_for_a_drift():
    rng = np.random.default_rng(0)
    source = rng.normal(size=16) + 0.05 * rng.normal(size=(10, 16))
    assert identity_consistency(source, 3 * source) == (pytest.approx(1), pytest.approx(1))
    drift = source + np.linspace(0, 2, 10)[:, None] * rng.normal(size=16)
    local, everywhere = identity_consistency(source, drift)
    assert everywhere < local < 1


def test_flicker_and_the_paste_figures():
    rng = np.random.default_rng(0)
    source = [np.full((20, 20, 3), 100 + 3 * t, dtype=np.uint8) for t in range(5)]
    assert flicker(source, source) == 0
    assert flicker(source, [x + 5 for x in source]) == 0  # a constant edit does not flicker
    assert flicker(source, [x + 10 * (t % 2) for t, x in enumerate(source)]) > 5
    alpha = np.zeros((20, 20), dtype=np.float32)
    alpha[5:15, 5:15], alpha[7:13, 7:13] = 0.5, 1
    hard = source[0].copy()
    hard[alpha > 0] += 30
    assert seam_error(source[0], source[0], alpha) == 0 < seam_error(source[0], hard, alpha)
    assert outside_difference(source[0], hard, alpha) == 0
    hard[0, 0] = rng.integers(0, 90, 3)
    assert outside_difference(source[0], hard, alpha) > 10
