"""Sharpness and unrest of frames."""

import cv2
import numpy as np
import pytest

from sg3cli.metrics.sharpness import frame_flow, sharpness, unrest


@pytest.fixture
def picture() -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=(80, 90, 3))
    return np.rint(128 + 60 * cv2.GaussianBlur(noise, (0, 0), 2) / 0.14).clip(0, 255).astype(np.uint8)


def test_a_blurred_face_is_less_sharp_and_what_is_around_does_not_count(picture):
    mask = np.zeros((80, 90), np.float32)
    mask[20:60, 20:60] = 1
    soft = cv2.GaussianBlur(picture, (0, 0), 2)
    assert sharpness(soft, mask) < 0.3 * sharpness(picture, mask)
    inner = np.zeros_like(mask)
    inner[22:58, 22:58] = 1
    mixed = np.where(mask[..., None] > 0, picture, soft)
    assert sharpness(mixed, inner) == pytest.approx(sharpness(picture, inner), rel=1e-5)
    assert np.isnan(sharpness(picture, 0 * mask))


def test_motion_that_the_source_has_is_no_unrest_and_a_pulse_is(picture):
    moved = np.roll(picture, 3, axis=1)
    flow, mask = frame_flow(picture, moved), np.zeros((80, 90), np.float32)
    mask[20:60, 20:70] = 1
    assert np.abs(flow[20:60, 20:70] - [-3, 0]).mean() < 0.3
    still = unrest(picture, moved, flow, mask)
    assert still < 0.2 * unrest(picture, moved, 0 * flow, mask)
    assert unrest(picture, np.clip(moved.astype(int) + 6, 0, 255), flow, mask) > still + 3
