"""Smoothing over time at the ends of a shot, where there is nothing more to average."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.smoothing import PAPER_KERNEL, smooth_paper


@given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_the_ends_are_mirrored_with_their_own_frame(count: int, seed: int) -> None:
    """As numpy's `symmetric`: d c b a | a b c d | d c b a, every frame of it, the outermost ones too."""
    values = np.random.default_rng(seed).normal(size=count)
    padded = np.pad(values, len(PAPER_KERNEL) // 2, mode="symmetric")
    expected = np.convolve(padded, np.asarray(PAPER_KERNEL)[::-1], mode="valid")
    np.testing.assert_allclose(smooth_paper(values), expected, atol=1e-12)


@pytest.mark.parametrize("end", [0, -1])
def test_a_step_at_either_end_reaches_exactly_as_far_as_the_kernel(end: int) -> None:
    values = np.zeros(8)
    values[end] = 1.0
    kernel = np.asarray(PAPER_KERNEL)
    smooth = smooth_paper(values)
    smooth = smooth if end == 0 else smooth[::-1]
    np.testing.assert_allclose(smooth[:3], [kernel[2] + kernel[1], kernel[1] + kernel[0], kernel[0]], atol=1e-12)
    assert np.abs(smooth[3:]).max() == 0
