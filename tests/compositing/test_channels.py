"""Sums over channels are numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.compositing import channels


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_they_are_those_of_numpy(count: int) -> None:
    image = np.random.default_rng(count).uniform(-200, 200, (7, 11, count)).astype(np.float32)
    for result, expected in (
        (channels.total(image), image.sum(axis=2)),
        (channels.mean(image), image.mean(axis=2)),
        (channels.length(image), np.linalg.norm(image, axis=2)),
    ):
        assert result.shape == (7, 11) and result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-3)
