"""The mesh of two drawings: the mouth of a person, widened by a known warp, and what shows no face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from models import face_mesh  # noqa: F401  (fixture)

from sg3cli.faces.drawn_mesh import LIPS, DrawnMesh
from sg3cli.faces.mesh_detector import MeshDetector
from sg3cli.geometry import ffhq_quad, warp_quad
from sg3cli.video import VideoReader
from tests.running import example_clip

SIDE = 128


@pytest.fixture(scope="module")
def crop(face_mesh) -> np.ndarray:  # noqa: F811
    """A talking woman, aligned, `[128, 128, 3]` uint8."""
    with VideoReader(example_clip("woman_talks.mp4")) as reader:
        frame = next(reader.frames(0)).rgb
    (face,) = MeshDetector.load().update(frame)
    return np.rint(warp_quad(frame, ffhq_quad(face.landmarks), (SIDE, SIDE))).clip(0, 255).astype(np.uint8)


def widened(image: np.ndarray, middle: np.ndarray, factor: float) -> np.ndarray:
    """`image` with what is around `middle` drawn `factor` wider."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    near = np.exp(-0.5 * (((x - middle[0]) / 22) ** 2 + ((y - middle[1]) / 14) ** 2))
    x_from = middle[0] + (x - middle[0]) * (1 + near * (1 / factor - 1))
    return cv2.remap(image, x_from.astype(np.float32), y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def test_a_wider_mouth_is_seen(crop: np.ndarray) -> None:
    mesh = DrawnMesh.load()
    assert mesh is not None
    before, same = mesh.alike([crop, crop], SIDE)
    assert before is not None and same is not None
    np.testing.assert_array_equal(before, same)
    assert 0.55 * SIDE < before[LIPS, 1].mean() < 0.85 * SIDE and 0.4 * SIDE < before[LIPS, 0].mean() < 0.6 * SIDE
    pair = mesh.alike([crop, widened(crop, before[LIPS].mean(0), 1.3)], SIDE)
    width = [np.ptp(points[LIPS, 0]) for points in pair if points is not None]
    assert 1.08 < width[1] / width[0] < 1.35


def test_where_there_is_no_face_nothing_is_said(crop: np.ndarray) -> None:
    mesh = DrawnMesh.load()
    assert mesh is not None
    noise = np.random.default_rng(0).integers(0, 256, crop.shape, dtype=np.uint8)
    wall = np.full_like(crop, 200)
    assert mesh.alike([noise], SIDE) == [None]
    seen, none = mesh.alike([crop, wall], SIDE)
    assert seen is not None and none is None


def test_without_the_model_there_is_no_mesh(monkeypatch: pytest.MonkeyPatch) -> None:
    from sg3cli.weights import store

    monkeypatch.setattr(store, "is_present", lambda name: False)
    assert DrawnMesh.load() is None
