"""The lines that a face has stay: what is added there is an area's lightness; elsewhere it is as it was."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sg3cli.compositing.own_lines import RIM, OwnLines, beside_own_lines, line_depth, sagging

SIZE = 96
EVERYWHERE = np.ones((SIZE // 2, SIZE // 2), np.float32)


@pytest.fixture
def added() -> np.ndarray:
    """A wide shadow with fine stripes."""
    x = np.arange(SIZE, dtype=np.float32)
    stripes = 12 * np.where(np.arange(SIZE) % 4 < 2, 1, -1).astype(np.float32)
    row = -20 * np.exp(-(((x - 48) / 20) ** 2)) + stripes
    return np.repeat(np.repeat(row[None, :, None], SIZE, axis=0), 3, axis=2)


def skin_with_line(depth: float = 60.0) -> np.ndarray:
    source = np.full((SIZE, SIZE, 3), 170, np.float32)
    source[:, 46:49] -= depth
    return cv2.GaussianBlur(source, (0, 0), 1.0)


def fine(image: np.ndarray) -> np.ndarray:
    return np.asarray(image - cv2.GaussianBlur(image, (0, 0), 3.0))


def test_on_smooth_skin_all_stays_to_the_bit(added: np.ndarray) -> None:
    source = np.full((SIZE, SIZE, 3), 170, np.float32) + np.linspace(-30, 30, SIZE, dtype=np.float32)[:, None, None]
    np.testing.assert_array_equal(beside_own_lines(added, source, OwnLines(EVERYWHERE)), added)


def test_where_skin_has_a_line_the_area_alone_changes(added: np.ndarray) -> None:
    kept = beside_own_lines(added, skin_with_line(), OwnLines(EVERYWHERE))
    line, far = np.s_[20:-20, 44:52], np.s_[20:-20, 5:25]
    assert np.abs(fine(kept)[line]).max() < 0.1 * np.abs(fine(added)[line]).max()
    assert added[line].mean() < kept[line].mean() < 0.7 * added[line].mean()
    np.testing.assert_array_equal(kept[far], added[far])


def test_the_deeper_the_line_the_less_is_added_and_a_pore_is_none(added: np.ndarray) -> None:
    def left(depth: float) -> float:
        return float(
            np.abs(fine(beside_own_lines(added, skin_with_line(depth), OwnLines(EVERYWHERE))))[30:-30, 44:52].mean()
        )

    assert left(6) == left(0) > left(25) > left(60)


def test_somebody_younger_loses_wrinkles_and_keeps_rims(added: np.ndarray) -> None:
    wrinkle, rim = (beside_own_lines(added, skin_with_line(d), OwnLines(EVERYWHERE, RIM)) for d in (60, 140))
    np.testing.assert_array_equal(wrinkle, added)
    assert np.abs(fine(rim)[20:-20, 45:50]).max() < 0.2 * np.abs(fine(added)[20:-20, 45:50]).max()


def test_what_is_no_skin_keeps_what_is_added(added: np.ndarray) -> None:
    """A lip's edge is a line too, and changes with the edit."""
    skin = EVERYWHERE.copy()
    skin[:, 16:32] = 0
    np.testing.assert_array_equal(beside_own_lines(added, skin_with_line(), OwnLines(skin))[:, 40:56], added[:, 40:56])


def test_lines_are_as_deep_in_the_dark_as_in_light() -> None:
    light = skin_with_line()
    dark = (light + 6) * 0.4 - 6
    np.testing.assert_allclose(line_depth(light), line_depth(dark), atol=1e-4)
    assert line_depth(light)[48, 47] > 0.2 > 0.01 > line_depth(light)[48, 10]


def test_skin_sags_as_a_whole() -> None:
    motion = np.full((64, 64, 2), 0.02, np.float32)
    np.testing.assert_allclose(sagging(motion), motion, atol=1e-7)
    motion[31:33, :, 1] += 0.05  # a line that flow took for a thing that moved
    assert np.abs(sagging(motion)[..., 1] - 0.02).max() < 0.01


def test_lips_that_smile_move_as_they_did_in_a_face_that_sags() -> None:
    motion = np.random.default_rng(0).normal(0, 0.01, (SIZE, SIZE, 2)).astype(np.float32)
    lips = np.array([[40, 60], [56, 60], [48, 56], [48, 64]], np.float32)
    sags = sagging(motion, lips)
    np.testing.assert_allclose(sags[57:63, 42:54], motion[57:63, 42:54], atol=1e-7)
    np.testing.assert_array_equal(sags[:30], sagging(motion)[:30])
