"""Photographs of people who do not exist: what moves, what stays, and that they follow from their numbers."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.training.data.new_faces import bent, exchanged, face_mask, like_pose, lit, warped

SIDE = 96


def _points(width: float = 0.5, middle: float = 0.5) -> np.ndarray:
    """[68,2] in shares: a jaw, brows, nose, eyes and a mouth in their iBUG order."""
    jaw = np.linspace(np.pi, 0, 17)
    parts = [np.c_[middle + width / 2 * np.cos(jaw), 0.5 + 0.35 * np.sin(jaw)]]
    for x, y, count in (
        (-0.12, 0.38, 5),
        (0.12, 0.38, 5),
        (0, 0.5, 4),
        (0, 0.58, 5),
        (-0.12, 0.45, 6),
        (0.12, 0.45, 6),
    ):
        spread = np.linspace(-0.06, 0.06, count)
        parts.append(np.c_[middle + (x + spread) * width / 0.5, y + 0.02 * np.cos(40 * spread)])
    ring = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    parts.append(np.c_[middle + 0.1 * width / 0.5 * np.cos(ring), 0.7 + 0.04 * np.sin(ring)])
    return np.concatenate(parts)


def _dots(points: np.ndarray) -> np.ndarray:
    """A grey picture with a bright spot at the tip of the nose."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    px, py = points[30] * SIDE
    spot = 150 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)
    return (60 + spot)[..., None].repeat(3, 2).astype(np.uint8)


def _brightest(image: np.ndarray) -> np.ndarray:
    """Centre of the bright spot in shares."""
    weight = np.clip(image.astype(float).mean(-1) - 90, 0, None)
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() / SIDE


def test_a_landmark_goes_where_it_is_sent() -> None:
    points = _points()
    goal = points.copy()
    goal[17:] += [0.03, 0.02]
    moved = warped(_dots(points), points, goal)
    assert _brightest(moved) == pytest.approx(goal[30], abs=0.01)
    assert np.abs(warped(_dots(points), points, points) - _dots(points)).max() < 1


def test_the_face_is_the_others_and_the_surroundings_are_not() -> None:
    own, other = np.full((SIDE, SIDE, 3), 90, np.uint8), np.full((SIDE, SIDE, 3), 90, np.uint8)
    own[::2], other[:, ::2] = 130, 130  # rows here, columns there
    a, b = _points(0.5), _points(0.4)
    picture, goal = exchanged(own, a, other, b, 0.0)
    assert goal == pytest.approx(a)
    inside, outside = picture[44:60, 40:56].astype(float), picture[:8].astype(float)
    assert np.ptp(inside.mean((0, 2))) > 3 * np.ptp(inside.mean((1, 2)))  # columns
    assert np.array_equal(picture[:8], own[:8]) and np.ptp(outside.mean((1, 2))) > 30
    narrower = exchanged(own, a, other, b, 1.0)[1]
    assert np.ptp(narrower[:17, 0]) / np.ptp(narrower[36:48, 0]) == pytest.approx(
        np.ptp(b[:17, 0]) / np.ptp(b[36:48, 0]), rel=1e-3
    )


def test_the_others_colours_become_the_first_ones() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal((160, 120, 100), 6, (SIDE, SIDE, 3)).astype(np.uint8)
    other = rng.normal((90, 80, 120), 12, (SIDE, SIDE, 3)).astype(np.uint8)
    picture, points = exchanged(own, _points(), other, _points(), 0.5)
    mask = face_mask(points, SIDE) > 0.99
    assert picture[mask].mean(0) == pytest.approx([160, 120, 100], abs=2)


def test_a_random_warp_takes_the_landmarks_along() -> None:
    points, rng = _points(), np.random.default_rng(3)
    image, moved = bent(_dots(points), points, rng, 0.03)
    assert np.abs(moved - points).max() > 0.01
    assert _brightest(image) == pytest.approx(moved[30], abs=0.01)
    again = bent(_dots(points), points, np.random.default_rng(3), 0.03)
    assert np.array_equal(image, again[0])


def test_light_leaves_places_and_changes_levels() -> None:
    image = np.full((SIDE, SIDE, 3), (120, 100, 80), np.uint8)
    changed = lit(image, np.random.default_rng(1), 0.3)
    assert changed.dtype == np.uint8 and np.ptp(changed[..., 0].astype(int)) > 5
    assert np.array_equal(lit(image, np.random.default_rng(1), 0.0), image)


def test_only_somebody_else_who_looks_the_same_way_is_chosen() -> None:
    yaw, pitch = np.array([0, 2, 20, 1, np.nan], float), np.array([0, -3, 0, 30, 0], float)
    assert like_pose(yaw, pitch, 0, np.array([7, 8, 9, 10, 11])).tolist() == [1]
    assert like_pose(yaw, pitch, 0, np.array([7, 7, 9, 10, 11])).tolist() == []
