"""Masks of eyes, nose, brows and mouth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sg3cli.compositing.face_parts import OUTSIDE, PARTS, REACH, SOFT, beyond_part, part_mask, with_parts
from sg3cli.settings import FACE_PARTS
from tests.compositing.test_skin import landmarks

PLACES = {"brows": (0.37, 0.4), "eyes": (0.61, 0.46), "nose": (0.5, 0.56), "mouth": (0.5, 0.69)}


@pytest.mark.parametrize("part", PLACES)
def test_a_part_is_covered_and_the_others_are_not(part: str) -> None:
    mask = part_mask(landmarks(), [part], (128, 128))
    at = {name: float(mask[int(128 * y), int(128 * x)]) for name, (x, y) in PLACES.items()}
    assert at.pop(part) == 1.0
    assert max(at.values()) < 0.8, at  # brows are near to the eyes of a small face
    assert mask[80, 40] == mask[10, 64] == mask[125, 64] == 0  # a cheek, the hair, the collar
    assert mask.dtype == np.float32 and mask.min() >= 0 and mask.max() <= 1


def test_several_parts_are_the_largest_of_each() -> None:
    points, shape = landmarks(), (96, 128)
    each = [part_mask(points, [part], shape) for part in PARTS]
    np.testing.assert_array_equal(part_mask(points, PARTS, shape), np.max(each, axis=0))
    assert not part_mask(points, [], shape).any()
    assert not part_mask(np.full((68, 2), np.nan), PARTS, shape).any()
    assert not part_mask(np.full((68, 2), 3.0), PARTS, shape).any()


def test_the_mask_is_one_at_every_size_and_moves_smoothly() -> None:
    points = landmarks(256)
    large = part_mask(points, ["eyes", "nose"], (256, 256))
    small = part_mask(landmarks(), ["eyes", "nose"], (128, 128))
    assert np.abs(cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA) - small).max() < 0.1
    moved = part_mask(points + 0.1, ["eyes", "nose"], (256, 256))
    assert 0 < np.abs(moved - large).max() < 0.05  # a tenth of a pixel is no flicker


def test_a_mouth_ends_sooner_beside_its_corners_than_above_and_below() -> None:
    """Folds pass close by; of a fold that was cut off there, two smudges were left."""
    points = landmarks(256)
    mask = part_mask(points, ["mouth"], (256, 256)) > 0
    alike = beyond_part(points, PARTS["mouth"][0], (256, 256)) < REACH + SOFT
    (right, top), (left, bottom) = points[48:68].min(axis=0), points[48:68].max(axis=0)
    reach = [np.flatnonzero(m[round((top + bottom) / 2)]) for m in (mask, alike)]
    wide, wide_alike = (np.ptp(row) - (left - right) for row in reach)
    assert 0 < wide < 0.55 * wide_alike
    middle, corner = round((right + left) / 2), round(left)
    assert abs(int(mask[:, middle].sum()) - int(alike[:, middle].sum())) <= 1
    assert mask[:, corner].sum() < 0.5 * alike[:, corner].sum()


def test_distance_is_in_shares_of_the_face_s_height() -> None:
    points = landmarks(100)  # brows at 40, chin at 83
    tall = points[8, 1] - points[17:27, 1].mean()
    found = beyond_part(points, range(48, 60), (100, 100))
    assert found[68, 50] < 0
    assert found[90, 50] == pytest.approx((90.5 - points[48:60, 1].max()) / tall, abs=0.01)


def test_settings_and_masks_know_the_same_parts() -> None:
    assert set(PARTS) == set(FACE_PARTS)


def drawing(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 60, (128, 128, 3)).astype(np.float32)
    return (128 + 3 * cv2.GaussianBlur(noise, (0, 0), 2.0)).clip(0, 255).astype(np.uint8)


def test_a_part_is_taken_from_the_drawing_that_changes_it_and_nothing_else_is() -> None:
    edited, other = drawing(1), drawing(2)
    result = with_parts(edited, other, other, landmarks(), ["mouth"])
    x, y = (round(128 * at) for at in PLACES["mouth"])
    np.testing.assert_array_equal(result[y - 2 : y + 3, x - 8 : x + 9], other[y - 2 : y + 3, x - 8 : x + 9])
    np.testing.assert_array_equal(result[:70], edited[:70])
    eyes = with_parts(edited, other, other, landmarks(), ["eyes"])
    x, y = (round(128 * at) for at in PLACES["brows"])  # the mask's edge would run through them
    np.testing.assert_array_equal(eyes[y - 1 : y + 2, x - 3 : x + 4], other[y - 1 : y + 2, x - 3 : x + 4])
    bare = with_parts(edited, other, other, landmarks(), [OUTSIDE])
    np.testing.assert_array_equal(bare[:4], other[:4])
    np.testing.assert_array_equal(bare[60:80, 50:78], edited[60:80, 50:78])
    assert with_parts(edited, other, other, np.full((68, 2), np.nan), ["mouth"]) is edited


def test_a_part_is_taken_from_where_it_lies_in_a_head_that_turned() -> None:
    plain, edited = drawing(3), np.zeros((128, 128, 3), np.uint8)
    turned = np.roll(plain, 5, axis=1)
    at = np.nonzero(with_parts(edited, turned, plain, landmarks(), ["nose"]).any(axis=2))
    still = np.nonzero(with_parts(edited, plain, plain, landmarks(), ["nose"]).any(axis=2))
    assert np.mean(at[1]) - np.mean(still[1]) == pytest.approx(5, abs=0.7)
    assert np.mean(at[0]) - np.mean(still[0]) == pytest.approx(0, abs=0.7)
