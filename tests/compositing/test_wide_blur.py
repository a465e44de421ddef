"""A wide Gaussian is what OpenCV makes of it, in less time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sg3cli.compositing.wide_blur import wide_blur


@pytest.mark.parametrize("sigma", [0.8, 3.0, 5.0, 17.0])
@pytest.mark.parametrize("shape", [(120, 161), (120, 161, 3)])
def test_it_is_a_gaussian(sigma: float, shape: tuple[int, ...]) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).normal(128, 60, shape).astype(np.float32), (0, 0), 1.5)
    true = cv2.GaussianBlur(image, (0, 0), sigma)
    found = wide_blur(image, sigma)
    assert found.shape == shape and found.dtype == np.float32
    assert np.abs(found - true).std() < 0.03 * image.std()
    inner = np.s_[20:-20, 20:-20]
    assert np.abs((found - true)[inner]).max() < 0.08 * image.std()


def test_a_small_picture_is_blurred_as_it_is() -> None:
    image = np.random.default_rng(1).normal(size=(9, 9)).astype(np.float32)
    assert np.array_equal(wide_blur(image, 8.0), cv2.GaussianBlur(image, (0, 0), 8.0))
