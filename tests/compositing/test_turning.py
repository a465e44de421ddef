"""A head that turns: the face goes where the mesh says, the head around it follows, the wall stays."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sg3cli.compositing.map_maker import MapMaker
from sg3cli.compositing.motion_maps import motion_maps
from sg3cli.compositing.optical_flow import GRID
from sg3cli.compositing.own_lines import OwnLines
from sg3cli.compositing.transfer import Transfer
from sg3cli.compositing.turning import FLOW, INSET, degrees, head_around, hidden, told, turn_between, turn_share
from sg3cli.faces.drawn_mesh import OVAL, STILL
from sg3cli.nets.transfer_net import TransferConfig, TransferNet
from sg3cli.weights.bundle import load_model
from tests.told_mesh import ToldMesh

SHAPE = (GRID, GRID)
NECK = np.array([64.0, 70.0, 30.0])  # what the head turns around


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A mesh `[468, 3]` that looks straight out of the grid."""
    shape = load_model("people-128").smile()["shape"].astype(np.float64)
    return 45 * shape + np.array([64.0, 50.0, 0.0])


def turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points `[n, 3]` turned by `yaw` degrees: with more of it, the nose goes to the right."""
    rotation = cv2.Rodrigues(np.array([0.0, np.radians(yaw), 0.0]))[0]
    return (points - NECK) @ rotation + NECK


def inner(points: np.ndarray) -> np.ndarray:
    """Numbers of points that lie well inside the outline."""
    outline = points[OVAL, :2].astype(np.float32)
    far = [cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in points[:, :2]]
    return np.flatnonzero(np.array(far) > 5)


def test_the_angle_of_a_pose_does_not_depend_on_its_scale() -> None:
    rotation = cv2.Rodrigues(np.radians([3.0, 4.0, 12.0]))[0]
    assert degrees(1.3 * rotation) == pytest.approx(13, abs=1e-6) and degrees(np.eye(3)) == 0


def test_a_head_that_hardly_turns_does_not(face: np.ndarray) -> None:
    assert turn_between(None) is None and turn_between((face, face)) is None
    tremble = np.random.default_rng(0).normal(0, 0.2, face.shape)
    assert turn_between((face, turned(face, 2.0) + tremble)) is None
    shares = [turn.share for yaw in (3.5, 4.5, 8.0) if (turn := turn_between((face, turned(face, yaw)))) is not None]
    assert len(shares) == 3 and 0 < shares[0] < shares[1] < shares[2] == 1


@pytest.mark.parametrize("yaw", [-14.0, 9.0])
def test_the_face_goes_where_the_mesh_goes_and_the_wall_stays(face: np.ndarray, yaw: float) -> None:
    after = turned(face, yaw)
    turn = turn_between((face, after))
    assert turn is not None
    motion = turn.motion(SHAPE) * GRID
    assert motion.dtype == np.float32 and motion.shape == (*SHAPE, 2)
    on = inner(after)
    x, y = after[on, :2].round().astype(int).T
    off = motion[y, x] - (face - after)[on, :2]
    assert np.median(np.abs(off)) < 0.3 and np.abs(off).max() < 2.5  # a nose's side is steep
    assert np.sign(motion[y, x, 0].mean()) == -np.sign(yaw)
    for corner in (motion[:3, :3], motion[:3, -3:], motion[-3:, :3], motion[-3:, -3:]):
        assert np.abs(corner).max() < 0.6


def test_the_head_around_a_face_lies_outside_it_and_behind_it(face: np.ndarray) -> None:
    points, shares = head_around(face, np.eye(3))
    outline = face[OVAL, :2].astype(np.float32)
    assert all(cv2.pointPolygonTest(outline, (float(x), float(y)), False) < 0 for x, y in points[:, :2])
    assert points[:, 2].min() > face[OVAL, 2].min() and shares.max() == 1 and shares.min() == 0
    assert np.abs(np.diff(np.unique(shares))).max() < 0.5


def test_the_side_that_is_turned_away_is_hidden_and_comes_out_as_it_turns_back(face: np.ndarray) -> None:
    assert not hidden(face, face).any()
    away = turned(face, 30)
    gone = hidden(away, away)
    right = away[:, 0] > away[STILL, 0].mean()
    assert gone.any() and right[gone].all()
    back = turn_between((away, turned(face, 5)))
    further = turn_between((turned(face, 5), away))
    assert back is not None and further is not None
    assert back.exposed(SHAPE).max() > 0.9 and not further.exposed(SHAPE).any()
    columns = np.flatnonzero(back.exposed(SHAPE).max(axis=0) > 0.5)
    assert columns.min() > 64


def test_a_face_in_profile_is_not_turned_by_its_mesh(face: np.ndarray) -> None:
    assert turn_between((turned(face, 50), turned(face, 38))) is None
    shares = [turn_share((turned(face, aside), turned(face, aside - 12))) for aside in (25, 38, 44)]
    assert shares[0] == 1 > shares[1] > shares[2] == 0


def test_drawings_count_on_the_face_and_around_it_where_they_are_right(face: np.ndarray) -> None:
    after = turned(face, 10)
    turn = turn_between((face, after))
    assert turn is not None
    source = np.random.default_rng(1).integers(0, 256, (2 * GRID, 2 * GRID, 3)).astype(np.float32)
    right = cv2.resize(source, SHAPE, interpolation=cv2.INTER_AREA)
    middle = tuple(after[STILL, 1::-1].mean(axis=0).astype(int))
    for plain, around in ((right, 1.0), (right + 20, 0.0)):
        counts = told(turn, source, plain, (face, after))
        assert counts[middle] > 0.95 and np.allclose(counts[0], around, atol=1e-3)
    wide, narrow = (told(turn, None, right, (face, after), inset) for inset in (INSET, FLOW))
    assert (wide >= narrow).all() and wide.sum() > narrow.sum() + 100


def test_hair_that_is_drawn_wrongly_keeps_its_pixels(face: np.ndarray) -> None:
    """Beside the face the drawing shows other hair; the source's moves with the head, and nothing is laid on it."""
    rng = np.random.default_rng(2)
    plain, edited = (cv2.GaussianBlur(rng.uniform(40, 220, (*SHAPE, 3)), (0, 0), 2).astype(np.uint8) for _ in range(2))
    source = rng.uniform(0, 255, (2 * GRID, 2 * GRID, 3)).astype(np.float32)
    maps = motion_maps(plain, edited, points=(face, turned(face, 12)), source=source)
    beside = np.s_[60:80, 4:14]
    assert np.abs(maps.motion[beside]).max() * GRID > 0.5
    for values in (maps.gain, maps.added, maps.new, maps.texture):
        assert np.abs(values[beside]).max() < 1e-3
    still = motion_maps(plain, edited, points=(face, face + 1e-3), source=source)
    assert np.abs(still.gain[beside]).max() > 0.05


def test_a_network_adds_nothing_to_a_head_that_turned_but_its_age(face: np.ndarray) -> None:
    torch.manual_seed(0)
    net = TransferNet(TransferConfig(widths=(4, 8, 8, 8))).eval()
    torch.nn.init.normal_(net.head.weight, std=0.05)
    rng = np.random.default_rng(3)
    frame = rng.integers(0, 256, (2 * GRID, 2 * GRID, 3), dtype=np.uint8)
    plain, edited = (rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8) for _ in range(2))
    window = np.array([[0, 0], [0, 2 * GRID], [2 * GRID, 2 * GRID], [2 * GRID, 0]], np.float64)

    def maps(yaw: float, kept: OwnLines | None = None) -> Transfer:
        maker = MapMaker(net, ToldMesh((face, turned(face, yaw))))
        return maker.make(frame, window, plain, edited, SHAPE, kept).transfer

    def added(yaw: float, kept: OwnLines | None = None) -> float:
        return float(np.abs(maps(yaw, kept).residual).mean())

    beside = maps(12).mixed(
        np.array([0.5, 0.5]), [maps(4.5), maps(12)]
    )  # neighbours in a clip, before and after 6 degrees
    np.testing.assert_allclose(beside.residual, maps(4.5).residual / 2, atol=1e-5)
    assert added(0) > added(4.5) > 0 == added(12)
    assert added(12, OwnLines(np.ones(SHAPE, np.float32), person=np.zeros(12, np.float32))) > 0
