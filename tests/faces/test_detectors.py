"""Face detection, landmarks and tracks, on frames composed of two rendered people with exact landmarks."""

import json
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import face_mesh  # noqa: F401  (fixture)
from running import SHARED
from schematic_faces import (
    scene,
)

from sg3cli.errors import ModelError, UsageError
from sg3cli.faces.association import Roi, Tracks
from sg3cli.faces.blazeface import MIN_TILE, Detection, anchors, iou, suppress, tile_levels, turned_back
from sg3cli.faces.detectors import make_detector
from sg3cli.faces.landmarks68 import OFFSET_TABLE, VERTICES, landmarks_of_mesh
from sg3cli.faces.mesh_detector import MeshDetector
from sg3cli.geometry import axes_of, ffhq_quad

CLIPS = SHARED / "clips"


@pytest.fixture
def detector(face_mesh):  # noqa: F811
    return MeshDetector.load()


def eye_distance(landmarks):
    return np.linalg.norm(landmarks[36:42].mean(0) - landmarks[42:48].mean(0))


def errors(found, exact):
    """Distances of eye centres and mouth corners in shares of the eye distance."""
    parts = [slice(36, 42), slice(42, 48), slice(48, 49), slice(54, 55)]
    away = [np.linalg.norm(found[p].mean(0) - exact[p].mean(0)) for p in parts]
    return np.array(away) / eye_distance(exact)


# --- Landmarks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("degrees", [0, 25, -40])
def test_landmarks_are_close_to_the_exact_ones(people, detector, who, degrees):
    frame, (exact,) = scene(people, (who, 330, 180, 1.0, degrees))
    (face,) = detector.update(frame)
    assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == np.float32
    assert face.score > 0.9 and face.track == 0
    away = errors(face.landmarks, exact)
    assert away[:2].max() < 0.06 and away[2:].max() < 0.10
    (centre, x), (true_centre, true_x) = axes_of(ffhq_quad(face.landmarks)), axes_of(ffhq_quad(exact))
    assert np.linalg.norm(centre - true_centre) < 0.06 * eye_distance(exact)
    assert np.linalg.norm(x) == pytest.approx(np.linalg.norm(true_x), rel=0.06)
    assert np.linalg.norm(x / np.linalg.norm(x) - true_x / np.linalg.norm(true_x)) < 0.06
    inside = (face.box[:2] - 3 <= face.landmarks).all() and (face.landmarks <= face.box[2:] + 3).all()
    assert inside


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("degrees", [180, 165, -150, 90, -100])
def test_a_face_upside_down_is_found_with_its_landmarks(people, detector, who, degrees):
    """The camera hung from the ceiling; eyes stay this person's right and left."""
    frame, (exact,) = scene(people, (who, 330, 180, 1.0, degrees))
    for index in range(3):  # found, and followed
        (face,) = detector.update(frame, index / 25)
        assert face.track == 0
        away = errors(face.landmarks, exact)
        assert away[:2].max() < 0.08 and away[2:].max() < 0.12


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_what_is_found_in_a_turned_frame_is_where_it_is_in_the_frame(turns):
    frame = np.zeros((60, 100), np.uint8)
    frame[10:20, 30:70] = 1  # a box that no turn maps to itself
    rows, columns = np.nonzero(np.rot90(frame, turns))
    box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float64)
    back = turned_back(Detection(box, box.reshape(2, 2), 0.9), turns, 100, 60)
    assert back.box.tolist() == [30, 10, 70, 20]
    assert sorted(map(tuple, back.points.tolist())) in ([(30, 10), (70, 20)], [(30, 20), (70, 10)])


def test_large_images_are_averaged_before_the_networks_see_them(people, detector):
    """The same face four times as large gives the same landmarks; sampling without averaging would not."""
    frame, _ = scene(people, (0, 320, 180, 1.0, 0))
    (small,) = detector.update(frame)
    (large,) = MeshDetector.load().update(cv2.resize(frame, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))
    assert np.abs(large.landmarks / 4 - small.landmarks).mean() < 0.02 * eye_distance(small.landmarks)


def test_mirrored_mesh_gives_mirrored_landmarks():
    """The mapping and its offsets treat the two sides of the face alike."""
    mirror = {36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46, 48: 54, 49: 53, 50: 52, 51: 51, 57: 57, 62: 62}
    for point, other in mirror.items():
        assert np.allclose(OFFSET_TABLE[point] * (-1, 1, 1), OFFSET_TABLE[other])
    assert len(set(VERTICES)) == 68 and VERTICES.max() < 468
    assert 0 < np.abs(OFFSET_TABLE).max() < 0.07  # a correction, no second model


@settings(deadline=None, max_examples=50)
@given(st.floats(-3, 3), st.floats(10, 500), st.floats(-1000, 1000))
def test_landmarks_move_with_the_mesh(angle, scale, shift):
    mesh = np.random.default_rng(0).normal(size=(468, 3))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    moved = np.hstack([mesh[:, :2] @ turn.T + shift, mesh[:, 2:] * scale])
    expected = landmarks_of_mesh(mesh) @ turn.T + shift
    np.testing.assert_allclose(landmarks_of_mesh(moved), expected, atol=1e-3 * scale + 1e-3)


# --- Detection ---------------------------------------------------------------------------------------------


def test_small_faces_are_found_in_tiles(people, detector):
    frame, (exact,) = scene(people, (0, 900, 420, 0.33, 0), size=(720, 1280))
    assert np.ptp(exact[:, 0]) < 43
    assert detector.detector.whole(frame) == []
    (face,) = detector.update(frame)
    assert errors(face.landmarks, exact).max() < 0.2


def test_no_face_is_invented(detector):
    rng = np.random.default_rng(0)
    flat = np.full((240, 320, 3), 128, np.uint8)
    noise = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    blobs = cv2.GaussianBlur(noise, (0, 0), 12)
    blobs = cv2.normalize(blobs, None, 0, 255, cv2.NORM_MINMAX)
    assert [detector.update(frame) for frame in (flat, noise, blobs)] == [[], [], []]


@pytest.mark.parametrize("size", [(48, 64), (500, 90), (1, 1)])
def test_odd_frame_sizes_do_not_fail(detector, size):
    assert detector.update(np.zeros((*size, 3), np.uint8)) == []


@settings(deadline=None, max_examples=50)
@given(st.integers(8, 3000), st.integers(8, 3000))
def test_tiles_cover_the_frame_and_stay_inside(height, width):
    for tiles in tile_levels(height, width):
        side = tiles[0][2]
        xs, ys = sorted({x for x, _, _ in tiles}), sorted({y for _, y, _ in tiles})
        for starts, length in ((xs, width), (ys, height)):
            assert starts[0] == 0 and starts[-1] == max(0, length - side)
            assert all(b - a <= side / 2 + 1 for a, b in pairwise(starts))
    assert side < 2 * MIN_TILE or side == max(height, width) // 2


def test_overlapping_detections_are_averaged_by_score():
    def detection(x, score):
        return Detection(np.array([x, 0, x + 10, 10.0]), np.full((6, 2), x, float), score)

    kept = suppress([detection(1, 0.6), detection(0, 0.9), detection(50, 0.7)])
    assert [d.score for d in kept] == [0.9, 0.7]
    np.testing.assert_allclose(kept[0].box, np.array([0.4, 0, 10.4, 10]))
    assert iou(np.array([0, 0, 2, 2.0]), np.array([1, 0, 3, 2.0])) == pytest.approx(1 / 3)


def test_anchor_layout():
    grid = anchors()
    assert grid.shape == (896, 2)
    np.testing.assert_allclose(grid[[0, 2, 32, 512, 895]], [[1, 1], [3, 1], [1, 3], [2, 2], [30, 30]] / np.float64(32))


# --- Tracks ------------------------------------------------------------------------------------------------


def tracks_of(detector, frames, rate=25.0):
    return [[face.track for face in detector.update(frame, k / rate)] for k, frame in enumerate(frames)]


def test_two_moving_people_keep_their_numbers(people, detector):
    places = [((0, 130 + 8 * k, 170, 0.7, 3 * k), (1, 520 - 4 * k, 190 + 3 * k, 0.75, 0)) for k in range(14)]
    scenes = [scene(people, *place) for place in places]
    first = detector.update(scenes[0][0], 0.0)
    order = [int(np.argmin([np.abs(f.landmarks - t).mean() for t in scenes[0][1]])) for f in first]
    assert sorted(order) == [0, 1]
    for k, (frame, exact) in enumerate(scenes[1:], 1):
        faces = detector.update(frame, k / 25)
        assert [face.track for face in faces] == [0, 1]
        for face in faces:
            assert errors(face.landmarks, exact[order[face.track]]).max() < 0.15


def test_newcomer_gets_a_number_within_half_a_second(people, detector):
    alone = scene(people, (0, 160, 180, 0.8, 0))[0]
    both = scene(people, (0, 160, 180, 0.8, 0), (1, 480, 180, 0.8, 0))[0]
    tracks = tracks_of(detector, [alone] * 3 + [both] * 14)
    assert tracks[:3] == [[0]] * 3
    assert tracks[-1] == [0, 1] and all(0 in seen for seen in tracks)


def test_lost_face_gets_its_number_back_and_a_stranger_does_not(people, detector):
    here, nobody = scene(people, (0, 160, 180, 0.8, 0))[0], scene(people)[0]
    back, other = scene(people, (0, 185, 180, 0.8, 0))[0], scene(people, (1, 560, 180, 0.5, 0))[0]
    assert tracks_of(detector, [here, here, nobody, nobody, back]) == [[0], [0], [], [], [0]]
    detector = MeshDetector.load()
    assert tracks_of(detector, [here, nobody, other]) == [[0], [], [1]]


def test_fast_motion_is_found_again_in_the_same_frame(people, detector):
    frames = [scene(people, (0, x, 180, 0.7, 0))[0] for x in (140, 142, 240, 242)]
    assert tracks_of(detector, frames) == [[0]] * 4


def test_resumed_run_is_identical(people, face_mesh):  # noqa: F811
    frames = [scene(people, (0, 140 + 6 * k, 180, 0.7, 2 * k), (1, 470, 180, 0.6, 0))[0] for k in range(10)]
    whole, first, second = MeshDetector.load(), MeshDetector.load(), MeshDetector.load()
    straight = [whole.update(frame, k / 20) for k, frame in enumerate(frames)]
    for k in range(5):
        first.update(frames[k], k / 20)
    second.restore(json.loads(json.dumps(first.state())))
    for k in range(5, 10):
        for a, b in zip(straight[k], second.update(frames[k], k / 20), strict=True):
            assert np.array_equal(a.landmarks, b.landmarks) and np.array_equal(a.box, b.box)
            assert (a.track, a.score) == (b.track, b.score)
    assert whole.state() == second.state()


def test_fresh_state_can_be_restored(detector):
    other = MeshDetector.load()
    other.restore(json.loads(json.dumps(detector.state())))
    assert other.state() == detector.state()


def test_track_numbers_are_never_shared_in_a_frame():
    tracks = Tracks()
    tracks.remember({0: Roi(100, 100, 60, 0), 1: Roi(160, 100, 60, 0)}, 0.0)
    nearest_to_both = Roi(110, 100, 60, 0)
    assert tracks.number(nearest_to_both, 0.04, {}) == 0
    assert tracks.number(nearest_to_both, 0.04, {0}) in (1, 2)
    assert tracks.number(Roi(100, 100, 300, 0), 0.04, {}) == 2  # five times as large: somebody else
    assert tracks.number(Roi(900, 100, 60, 0), 0.04, {}) == 2


# --- Real footage ------------------------------------------------------------------------------------------


@pytest.mark.skipif(not CLIPS.is_dir(), reason="real footage is not part of the repository")
@pytest.mark.parametrize(
    ("name", "people_seen"),
    [
        ("webcam_talk_400x300", 1),
        ("male_smile_480x270", 1),
        ("female_yaw_480x270", 1),
        ("two_faces_headroll_480x270", 2),
    ],
)
def test_no_frame_of_real_footage_is_missed(detector, name, people_seen):
    from sg3cli.video import VideoReader

    with VideoReader(CLIPS / f"{name}.mp4") as reader:
        frames = reader.frames()
        tracks = [[f.track for f in detector.update(next(frames).rgb, k / 12.5)] for k in range(23)]
    assert tracks == [list(range(people_seen))] * 23


# --- Kinds -------------------------------------------------------------------------------------------------


def test_unknown_kind_is_a_usage_error():
    with pytest.raises(UsageError):
        make_detector("dlib")


@pytest.mark.parametrize(("kind", "model"), [("mesh", "face-mesh"), ("fan", "fan")])
def test_missing_weights_name_the_command(monkeypatch, tmp_path, kind, model):
    monkeypatch.setenv("SG3_MODELS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        make_detector(kind)
    assert caught.value.hint == f"sg3 models pull {model}"


@pytest.mark.slow
def test_fan_runs_through_face_alignment(monkeypatch, tmp_path, people):
    """With random weights of the right shape: loading, calling conventions, tracks and state."""
    import torch
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models import FAN

    from sg3cli.faces.fan_detector import FanDetector
    from sg3cli.weights import store

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = store.torch_hub_dir()
    folder.mkdir(parents=True)
    torch.save(FAN(4).state_dict(), folder / "2DFAN4-11f355bf06.pth.tar")
    torch.save(s3fd().state_dict(), folder / "s3fd-619a316812.pth")
    detector = FanDetector.load(device="cpu")
    frame, (exact,) = scene(people, (0, 320, 180, 1.0, 0))
    box = np.array([[*exact.min(0), *exact.max(0), 0.9]])
    monkeypatch.setattr(detector.network.face_detector, "detect_from_image", lambda rgb: list(box))
    (face,) = detector.update(frame)
    (again,) = detector.update(frame)
    assert face.landmarks.shape == (68, 2) and np.isfinite(face.landmarks).all()
    assert face.track == again.track and np.array_equal(face.landmarks, again.landmarks)
    assert json.loads(json.dumps(detector.state()))["frame"] == 2
