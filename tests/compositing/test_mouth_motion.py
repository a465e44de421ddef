"""What the mesh says of a mouth counts there, beyond a tremble, and nowhere else."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sg3cli.compositing.motion_maps import motion_maps
from sg3cli.compositing.mouth_motion import around_mouth, spread, with_mouth
from sg3cli.compositing.optical_flow import GRID
from sg3cli.faces.drawn_mesh import LIPS

SHAPE = (GRID, GRID)
MIDDLE = np.array([64.0, 90.0])


def face(width: float = 14.0, shift: tuple[float, float] = (0.0, 0.0), seed: int = 0) -> np.ndarray:
    """Points `[468, 3]`: the lips on an ellipse around `MIDDLE`, the others anywhere above it."""
    rng = np.random.default_rng(seed)
    points = rng.uniform([30, 20, -20], [98, 70, 20], (468, 3))
    angle = np.linspace(0, 2 * np.pi, len(LIPS), endpoint=False)
    points[LIPS, :2] = MIDDLE + np.stack([width * np.cos(angle), 5 * np.sin(angle)], 1)
    return points + np.array([*shift, 0.0])


def still() -> np.ndarray:
    return np.zeros((*SHAPE, 2), np.float32)


def test_points_that_stay_leave_the_motion_as_it_is() -> None:
    motion = np.random.default_rng(1).normal(size=(*SHAPE, 2)).astype(np.float32)
    assert with_mouth(motion, (face(), face())) is motion


def test_a_mouth_that_widens_moves_its_corners_outwards() -> None:
    motion = with_mouth(still(), (face(14), face(20)))
    assert motion.dtype == np.float32
    right, left = (motion[90, column] * GRID for column in (64 + 18, 64 - 18))
    assert -7 < right[0] < -3 and 3 < left[0] < 7  # what is drawn further out now was nearer to the middle
    assert np.abs([right[1], left[1]]).max() < 1
    assert np.abs(motion[:60]).max() * GRID < 1e-3  # eyes and brows do not


def test_a_tremble_is_none() -> None:
    noise = np.random.default_rng(2).normal(0, 0.3, (468, 3))
    assert np.abs(with_mouth(still(), (face(), face() + noise))).max() * GRID < 0.05


def test_motion_that_flow_has_seen_is_not_counted_twice() -> None:
    seen = np.broadcast_to(np.float32([-3.0 / GRID, 0]), (*SHAPE, 2))
    motion = with_mouth(seen, (face(), face(shift=(3.0, 0.0))))
    assert np.abs(motion - seen).max() * GRID < 0.05


def test_a_field_has_at_each_point_what_the_point_says() -> None:
    at = np.array([[20.0, 30.0], [100.0, 30.0], [60.0, 100.0]])
    values = np.array([[1.0, 0.0], [0.0, -2.0], [3.0, 3.0]])
    field = spread(values, at, (128, 120))
    assert field.shape == (128, 120, 2)
    for (x, y), value in zip(at.astype(int), values, strict=True):
        np.testing.assert_allclose(field[y, x], value, atol=0.02)
    assert np.abs(field[64, 20]).max() < 1e-3  # far from all of them nothing is known


def test_the_mouth_s_surroundings_fade() -> None:
    share = around_mouth(face()[LIPS, :2], SHAPE)
    assert share[90, 64] == 1 and share[90, 64 + 17] == 1
    assert 0 < share[90, 64 + 30] < 1
    assert share[90, 64 + 45] == 0 and share[40, 64] == 0


def lips(width: float) -> np.ndarray:
    """A mouth of one colour on a cheek of one colour, `[GRID, GRID, 3]` uint8: nothing that flow could follow."""
    image = np.full((GRID, GRID, 3), (190, 150, 130), np.uint8)
    cv2.ellipse(image, (64, 90), (round(width), 5), 0, 0, 360, (150, 70, 80), -1)
    return cv2.GaussianBlur(image, (0, 0), 1.5)


def test_the_source_s_lips_go_where_the_drawn_ones_went() -> None:
    plain, edited, points = lips(14), lips(20), (face(14), face(20))
    flow, mesh = (motion_maps(plain, edited, points=told) for told in (None, points))
    assert mesh.motion[90, 64 + 17, 0] * GRID < -3
    darker = np.rint(plain * 0.97).astype(np.uint8)
    wrong = motion_maps(plain, darker, points=points)  # who looks sees that they have not
    assert abs(wrong.motion[90, 64 + 17, 0]) * GRID < 1
    nothing = motion_maps(plain, plain, points=(face(14), face(14)))
    assert not nothing.motion.any() and not nothing.gain.any()
    np.testing.assert_array_equal(motion_maps(plain, edited).motion, flow.motion)


@pytest.mark.parametrize("shape", [(128, 128), (160, 128), (128, 176)])
def test_expanded_windows_have_maps_of_their_own_shape(shape: tuple[int, int]) -> None:
    plain, edited = (
        cv2.copyMakeBorder(lips(w), 0, shape[0] - GRID, 0, shape[1] - GRID, cv2.BORDER_REPLICATE) for w in (14, 20)
    )
    maps = motion_maps(plain, edited, shape, (face(14), face(20)))
    assert maps.motion.shape == (*shape, 2) and maps.motion[90, 64 + 17, 0] * GRID < -3
