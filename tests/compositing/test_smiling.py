"""What goes with a smile: how much of one there is, what follows it, and what does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3cli.compositing.map_maker import MapMaker
from sg3cli.compositing.motion_maps import motion_maps
from sg3cli.compositing.optical_flow import GRID
from sg3cli.compositing.paste import paste
from sg3cli.compositing.smiling import LIDS, MORE, MOST, Smiling, smiled, smiles
from sg3cli.compositing.transfer import Transfer
from sg3cli.faces.drawn_mesh import LIPS, STILL, still_pose
from sg3cli.weights.bundle import load_model
from tests.told_mesh import ToldMesh

SHAPE = (GRID, GRID)
CHEEKS, LOWER_LIDS, CHIN, JAW = [50, 280], [145, 374], 152, [58, 288]
WINDOW = np.array([[0, 0], [0, 2 * GRID], [2 * GRID, 2 * GRID], [2 * GRID, 0]], np.float64)


@pytest.fixture(scope="module")
def smiling() -> Smiling:
    arrays = load_model("people-128").smile()
    assert arrays is not None
    return Smiling(**arrays)


def turned_by(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """`[3, 3]` for offsets as rows."""
    result = np.eye(3)
    for angle, (i, j) in zip(np.radians([yaw, pitch, roll]), ((0, 2), (1, 2), (0, 1)), strict=True):
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = np.sin(angle), -np.sin(angle)
        result = result @ turn
    return result


def face(smiling: Smiling, turn: np.ndarray | None = None) -> np.ndarray:
    """A neutral mesh `[468, 3]` in the middle of the grid."""
    return 42 * smiling.shape @ (np.eye(3) if turn is None else turn) + (64, 56, 0)


def one_smile(smiling: Smiling, before: np.ndarray) -> np.ndarray:
    return smiling.motion @ still_pose(smiling.shape, before)


def blank() -> Transfer:
    image = np.full((GRID, GRID, 3), 120, np.uint8)
    return motion_maps(image, image)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.55, 1.7), st.floats(-35, 35), st.floats(-20, 20), st.floats(-8, 8), st.booleans())
def test_as_many_smiles_are_seen_as_there_are(smiling, amount, yaw, pitch, roll, sad):
    """Whatever way the head is turned and wherever it moves to; a frown is less than none."""
    before = face(smiling, turned_by(yaw, pitch, roll))
    amount = -amount if sad else amount
    turned = one_smile(smiling, before)
    after = before + amount * turned + (3.0, -2.0, 1.0)
    assert smiles(before, after, turned) == pytest.approx(amount, abs=0.02)
    assert smiles(before, before + 5 * turned, turned) == MOST


def test_what_is_no_smile_is_none(smiling: Smiling) -> None:
    before, rng = face(smiling), np.random.default_rng(0)
    turned = one_smile(smiling, before)
    opened = before.copy()
    opened[[17, 14, CHIN]] += (0, 6, 0)
    opened[[61, 291]] += (0, 1.5, 0)
    further = face(smiling, turned_by(12, 0, 0))
    for after in (before, opened, further, before + rng.normal(0, 0.15, before.shape)):
        assert smiles(before, after, turned) == 0


def test_the_pose_of_a_head_is_found(smiling: Smiling) -> None:
    turn = turned_by(20, -10, 5)
    found = still_pose(smiling.shape, face(smiling, turn))
    np.testing.assert_allclose(found, 42 * turn, atol=1e-4)
    mirrored = still_pose(smiling.shape * (-1, 1, 1), smiling.shape)
    assert np.linalg.det(mirrored) > 0  # a turn, never a mirror


def test_cheeks_and_lids_follow_and_the_mouth_is_left_to_the_drawings(smiling: Smiling) -> None:
    before = face(smiling)
    turned = one_smile(smiling, before)
    maps, drawn = smiled(blank(), np.full((GRID, GRID, 3), 100.0), (before, before + turned), smiling)
    follows = maps.follows * GRID

    def at(point: int) -> np.ndarray:
        x, y = (before + MORE * turned)[point, :2]
        return follows[int(y), int(x)]

    for point, more in ((CHEEKS[0], 1.0), (CHEEKS[1], 1.0), (LOWER_LIDS[0], LIDS), (LOWER_LIDS[1], LIDS)):
        np.testing.assert_allclose(at(point), -MORE * more * turned[point, :2], atol=0.5)
        assert at(point)[1] > 0.4  # what is shown there lay further down
    lips = (before + turned)[LIPS].astype(int)
    assert np.abs(follows[lips[:, 1], lips[:, 0]]).max() < 1e-3
    for point in STILL[:4]:
        assert np.abs(at(int(point))).max() < 0.5
    assert not maps.motion.any()
    beside_nose, forehead = (before[[203, 423], :2].astype(int), before[STILL[:4], :2].astype(int))
    for picture in (100 * (1 + maps.gain), drawn):  # a fold is darker, in what is kept and in what is drawn
        assert picture[beside_nose[:, 1], beside_nose[:, 0]].max() < 99.2
        np.testing.assert_allclose(picture[forehead[:, 1], forehead[:, 0]], 100, atol=1.5)
    for edge in (follows[0], follows[-1], follows[:, 0], follows[:, -1]):
        assert np.abs(edge).max() < 0.3


def test_without_a_smile_all_stays_as_it_is(smiling: Smiling) -> None:
    maps, edited, before = blank(), np.zeros((GRID, GRID, 3)), face(smiling)
    same = smiled(maps, edited, (before, before + np.array([4.0, 0, 0])), smiling)
    assert same[0] is maps and same[1] is edited


def test_a_maker_adds_it_where_the_mouth_may_change(smiling: Smiling) -> None:
    rng, before = np.random.default_rng(1), face(smiling)
    frame = rng.integers(0, 255, (2 * GRID, 2 * GRID, 3), np.uint8)
    plain = np.full((GRID, GRID, 3), 120, np.uint8)
    edited = plain + np.uint8(20)
    mesh = ToldMesh((before, before + one_smile(smiling, before)))
    maker = MapMaker(mesh=mesh, smiling=smiling)
    assert maker.make(frame, WINDOW, plain, edited, SHAPE).transfer.follows.any()
    for other, mouth in ((maker, False), (MapMaker(mesh=mesh), True), (MapMaker(smiling=smiling), True)):
        assert not other.make(frame, WINDOW, plain, edited, SHAPE, mouth=mouth).transfer.follows.any()
    still = maker.make(frame, WINDOW, plain, plain, SHAPE)
    alpha = np.ones(SHAPE, np.float32)
    result = paste(frame, still.edited, WINDOW, alpha, plain=still.plain, transfer=still.transfer)
    np.testing.assert_array_equal(result, frame)


def test_what_follows_is_the_whole_result_moved() -> None:
    """R'(x) = R(x + f): by whole pixels it is the same picture, elsewhere."""
    rng = np.random.default_rng(2)
    frame = rng.integers(60, 190, (2 * GRID, 2 * GRID, 3)).astype(np.uint8)
    plain, edited = (rng.integers(90, 160, (GRID, GRID, 3)).astype(np.uint8) for _ in range(2))
    maps = motion_maps(plain, edited)
    shift = np.full((*SHAPE, 2), (5 / GRID, -3 / GRID), np.float32)
    moved = np.roll(edited, (3, -5), axis=(0, 1))
    alpha = np.ones(SHAPE, np.float32)
    there = paste(frame, edited, WINDOW, alpha, plain=plain, transfer=maps).astype(int)
    here = paste(frame, moved, WINDOW, alpha, plain=plain, transfer=maps.read_at(shift)).astype(int)
    inside = np.s_[40:-40, 40:-40]
    assert np.abs(here[inside] - np.roll(there, (6, -10), axis=(0, 1))[inside]).max() <= 1


def test_what_follows_does_so_where_other_motion_ends() -> None:
    maps = blank().read_at(np.full((*SHAPE, 2), 0.02, np.float32))
    nowhere, everywhere = np.zeros(SHAPE, np.float32), np.ones(SHAPE, np.float32)
    kept = maps.within(everywhere, nowhere, everywhere)
    assert np.allclose(kept.moves, 0.02) and not maps.within(everywhere, everywhere, nowhere).moves.any()
