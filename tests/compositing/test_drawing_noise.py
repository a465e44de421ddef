from dataclasses import replace

import cv2
import numpy as np
import pytest

from sg3cli.compositing.drawing_noise import FINEST, right, without_noise
from sg3cli.compositing.motion_maps import maps_of, motion_maps

N = 128


def pores(seed: int, size: int = N) -> np.ndarray:
    """A picture `[size, size, 3]` whose structure is finer than two pixels of the grid."""
    noise = np.random.default_rng(seed).normal(0, 40, (size, size, 3)).astype(np.float32)
    return (128 + cv2.GaussianBlur(noise, (0, 0), 0.6 * size / N)).clip(0, 255)


def wrinkle() -> np.ndarray:
    """A change `[N, N, 3]` of one thin dark line."""
    line = np.zeros((N, N, 3), np.float32)
    line[60:61, 30:100] = -60
    return line


def still(plain: np.ndarray, edited: np.ndarray):
    return maps_of(plain, edited, np.zeros((N, N, 2), np.float32))


def test_a_drawing_that_shows_the_source_is_believed_to_the_pixel():
    plain = pores(1)
    edited = plain + wrinkle()
    source = cv2.resize(plain, (2 * N, 2 * N), interpolation=cv2.INTER_NEAREST)
    assert np.abs(without_noise(source, plain, edited, still(plain, edited)) - edited).max() < 0.5


@pytest.mark.parametrize("size", [N, 2 * N])
def test_the_finest_of_a_change_goes_where_the_drawing_invents_its_own(size):
    plain, source = pores(1, size), pores(2, 2 * N)
    line = cv2.resize(wrinkle(), (size, size), interpolation=cv2.INTER_NEAREST)
    edited = plain + line
    maps = still(*(cv2.resize(i, (N, N), interpolation=cv2.INTER_AREA) for i in (plain, edited)))
    maps = replace(maps, gain=0 * maps.gain)
    left = without_noise(source, plain, edited, maps) - plain
    wide = cv2.GaussianBlur(line, (0, 0), FINEST * size / N)
    assert np.abs(left - wide).max() < 3  # of 60 levels
    assert np.abs(left.sum() / line.sum() - 1) < 0.01


def test_what_motion_and_light_explain_is_no_noise():
    plain, source = pores(1), pores(2, 2 * N)
    edited = 0.8 * np.roll(plain, 1, axis=1)
    maps = still(plain, edited)
    maps = replace(maps, gain=0 * maps.gain - np.float32(0.2), motion=maps.motion + np.float32([-1 / N, 0]))
    inside = np.s_[8:-8, 8:-8]
    assert np.abs(without_noise(source, plain, edited, maps) - edited)[inside].max() < 0.01


def test_equal_drawings_stay_to_the_bit():
    plain = pores(1).astype(np.uint8)
    maps = motion_maps(plain, plain)
    assert np.array_equal(without_noise(pores(2, 2 * N), plain, plain, maps), plain)


def test_a_smooth_drawing_of_a_smooth_face_is_right_and_a_soft_one_of_pores_is_not_wrong():
    flat = np.zeros((N, N, 3), np.float32)
    fine = pores(1) - 128
    assert right(flat, flat).min() == 1
    assert right(fine, 0.4 * fine).min() == 1
    assert right(0.4 * fine, fine).max() < 0.1
    assert right(pores(2) - 128, fine).max() < 0.2
