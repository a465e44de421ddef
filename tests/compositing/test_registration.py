"""Drawings are laid onto the face that they are of, both alike, and only where they are off."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sg3cli.compositing.map_maker import MapMaker
from sg3cli.compositing.optical_flow import GRID
from sg3cli.compositing.registration import FARTHEST, laid, offset
from sg3cli.compositing.transfer import read_moved
from sg3cli.faces.drawn_mesh import LIPS

SHAPE = (GRID, GRID)
MOUTH = np.array([64.0, 90.0])
LOW = 4.0  # pixels by which the source's mouth is lower than the drawn one


def face(low: float = 0.0) -> np.ndarray:
    """Points `[468, 3]`: lips on an ellipse that lies `low` pixels lower, all others above it."""
    points = np.random.default_rng(0).uniform([30, 20, -20], [98, 66, 20], (468, 3))
    angle = np.linspace(0, 2 * np.pi, len(LIPS), endpoint=False)
    points[LIPS, :2] = MOUTH + np.stack([14 * np.cos(angle), 5 * np.sin(angle) + low], 1)
    return points


class KnownMesh:
    """Says that the source's mouth lies lower than the drawings'; or not `seen`, that the source shows none."""

    def __init__(self, seen: bool = True) -> None:
        self.seen = seen

    def alike(self, images: list[np.ndarray], side: float) -> list[np.ndarray | None]:
        return [face(), face(LOW) if self.seen else None, face() + np.array([1.0, 0.0, 0.0])]


def drawing(low: float = 0.0, mouth: int = 150) -> np.ndarray:
    """A face with a mouth, `[GRID, GRID, 3]` uint8."""
    image = cv2.GaussianBlur(np.random.default_rng(3).uniform(90, 160, (GRID, GRID, 3)), (0, 0), 3)
    cv2.ellipse(image, (64, round(90 + low)), (14, 5), 0, 0, 360, (mouth, 40, 60), -1)
    return image.astype(np.uint8)


def middle(image: np.ndarray) -> float:
    """The row around which a red mouth lies."""
    red = np.clip(image[70:110, 50:78, 0].astype(float) - image[70:110, 50:78, 1] - 40, 0, None)
    return float((red.sum(axis=1) @ np.arange(70, 110)) / red.sum())


def test_points_that_lie_together_leave_a_drawing_where_it_is() -> None:
    assert not offset(face()[:, :2], face()[:, :2], SHAPE).any()
    tremble = np.random.default_rng(1).normal(0, 0.3, (468, 2))
    assert np.abs(offset(face()[:, :2], face()[:, :2] + tremble, SHAPE)).max() * GRID < 0.1


def test_a_mouth_that_is_drawn_too_high_is_read_from_higher_up() -> None:
    off = offset(face()[:, :2], face(LOW)[:, :2], SHAPE) * GRID
    assert off.dtype == np.float32
    assert -LOW - 0.3 < off[94, 64, 1] < -0.7 * LOW and abs(off[94, 64, 0]) < 0.3
    assert np.abs(off[:50]).max() < 0.2  # the eyes are where they are


def test_a_mesh_that_sees_something_else_moves_little() -> None:
    off = offset(face()[:, :2], face()[:, :2] + np.array([40.0, 0.0]), SHAPE) * GRID
    assert np.linalg.norm(off, axis=2).max() <= FARTHEST + 1e-3


def test_both_drawings_are_moved_alike_and_lie_on_the_source() -> None:
    source, plain, edited = drawing(LOW), drawing(), drawing(mouth=230)
    before, after, points = laid(KnownMesh(), source, plain, edited, SHAPE)  # type: ignore[arg-type]
    assert middle(plain) == pytest.approx(90, abs=0.6)
    assert middle(before) == pytest.approx(middle(source), abs=0.8)
    assert middle(after) == pytest.approx(middle(source), abs=0.8)
    off = offset(face()[:, :2], face(LOW)[:, :2], SHAPE)
    for image, moved in ((plain, before), (edited, after)):
        assert np.abs(np.rint(read_moved(image, off, GRID)).clip(0, 255) - moved).max() == 0
    assert points is not None
    assert np.abs(points[0][LIPS] - face(LOW)[LIPS]).max() < 0.6  # the mesh lies where the drawing's mouth now is
    assert np.abs(points[1] - points[0] - np.array([1.0, 0.0, 0.0]))[LIPS].max() < 0.4


def test_without_a_mesh_or_an_edit_drawings_stay_as_they_are() -> None:
    source, plain, edited = drawing(LOW), drawing(), drawing(mouth=230)
    assert laid(None, source, plain, edited, SHAPE) == (plain, edited, None)
    kept = laid(KnownMesh(), source, plain, plain, SHAPE)  # type: ignore[arg-type]
    assert kept[0] is plain and kept[1] is plain


def test_where_the_source_shows_no_face_drawings_stay_and_say_what_moves() -> None:
    source, plain, edited = drawing(LOW), drawing(), drawing(mouth=230)
    before, after, points = laid(KnownMesh(seen=False), source, plain, edited, SHAPE)  # type: ignore[arg-type]
    assert before is plain and after is edited and points is not None
    np.testing.assert_array_equal(points[0], face())


def test_light_on_a_drawn_mouth_falls_on_the_mouth_of_the_frame() -> None:
    """The drawing's mouth becomes redder; it lies higher than the frame's, whose own mouth becomes redder."""
    frame, plain, edited = drawing(LOW), drawing(mouth=120), drawing(mouth=230)
    window = np.array([[0, 0], [0, GRID], [GRID, GRID], [GRID, 0]], np.float64)
    drawn = MapMaker(mesh=KnownMesh()).make(frame, window, plain, edited, SHAPE)  # type: ignore[arg-type]
    gain = drawn.transfer.gain[..., 0].mean(axis=1)
    assert abs(int(gain.argmax()) - (90 + LOW)) <= 1.5
