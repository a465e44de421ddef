"""Who is who: shots, people from sightings, the choice of a face, frames that can be trusted, faces that overlap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from schematic_faces import frontal_face as face

from sg3cli.compositing.face_overlap import AllFaces
from sg3cli.errors import InputError, ModelError, UsageError
from sg3cli.faces.appearance import unit
from sg3cli.faces.clustering import Person, Sightings, find_people
from sg3cli.faces.identity_embedding import PLACES, make_embedder, similarity_to
from sg3cli.faces.selection import FaceCandidates, choose
from sg3cli.faces.visibility import hidden, trusted, yaw_of_landmarks
from sg3cli.training.people128.appearance import fit
from sg3cli.video.shot_detection import find_shots, is_abrupt, thumbnail

RATE = 25.0
SIZE = (240, 400)


def sightings(rows, seed=0):
    """From rows (frame, track, who, x): `who` has an appearance of their own, seen with noise; None: none was taken."""
    rng = np.random.default_rng(seed)
    appearances = {who: unit(np.eye(12)[who]) for who in range(8)}
    rows = sorted(rows, key=lambda row: row[:2])
    points = np.array([face((x, 120), 30) for *_, x in rows], np.float32)
    boxes = np.concatenate([points.min(1), points.max(1)], axis=1)
    seen = [
        np.full(12, np.nan) if who is None else unit(appearances[who] + rng.normal(0, 0.08, 12))
        for _, _, who, _ in rows
    ]
    frames, tracks = (np.array([row[k] for row in rows], np.int64) for k in (0, 1))
    ones = np.ones(len(rows), np.float32)
    return Sightings(frames, tracks, boxes, points, ones, 0 * ones, np.array(seen, np.float32))


def who_is(seen, shots=None, count=None):
    count = count or int(seen.frames.max()) + 1
    shots = np.zeros(count, np.int32) if shots is None else shots
    return find_people(seen, shots, np.arange(count) / RATE)


def tracks_of(seen, person):
    return sorted(set(seen.tracks[person.rows].tolist()))


# ---- people


def test_people_keep_their_numbers_across_a_crossing_and_a_cut_that_swaps_sides():
    """0 and 1 change sides; after the cut the detector's tracks go on, on the wrong people; then 2 comes in alone."""
    rows = [(t, 0, 0, 100 + 4 * t) for t in range(40)] + [(t, 1, 1, 300 - 4 * t) for t in range(40)]
    rows += [(t, 0, 1, 260) for t in range(40, 70)] + [(t, 1, 0, 140) for t in range(44, 70)]
    rows += [(t, 5, 2, 200) for t in range(80, 100)]
    seen = sightings(rows)
    shots = np.array([0] * 40 + [1] * 30 + [2] * 30, np.int32)
    people = who_is(seen, shots)
    assert [len(p.rows) for p in people] == [40 + 26, 40 + 30, 20]
    frames = seen.frames
    assert (seen.tracks[people[0].rows] == np.where(frames[people[0].rows] < 40, 0, 1)).all()
    assert (seen.tracks[people[1].rows] == np.where(frames[people[1].rows] < 40, 1, 0)).all()


def test_a_track_that_slides_from_one_person_to_another_is_cut():
    rows = [(t, 0, 0, 100 + t) for t in range(30)] + [(t, 0, 1, 131) for t in range(30, 60)]
    rows += [(t, 1, 1, 300) for t in range(30)]
    seen = sightings(rows)
    people = who_is(seen)
    assert len(people) == 2
    assert seen.frames[people[0].rows].tolist() == list(range(30))
    assert len(people[1].rows) == 60


def test_two_in_one_frame_are_never_one_person_however_alike():
    rows = [(t, k, 3, 100 + 200 * k) for t in range(20) for k in (0, 1)]
    assert [len(p.rows) for p in who_is(sightings(rows))] == [20, 20]


def test_after_an_absence_appearance_decides():
    """The detector gives the old number to whoever stands there: the same person is one, a stranger is another."""
    for back, count in ((0, 1), (4, 2)):
        rows = [(t, 0, 0, 100) for t in range(20)] + [(t, 0, back, 100) for t in range(60, 80)]
        assert len(who_is(sightings(rows))) == count


def test_a_short_loss_at_the_same_place_needs_no_appearance():
    rows = [(t, 0, None, 100) for t in range(20)] + [(t, 1, None, 104) for t in range(24, 40)]
    assert len(who_is(sightings(rows))) == 1


def test_those_seen_for_an_instant_are_numbered_last():
    seen = sightings([(0, 0, 5, 300), *((t, 1, 1, 100) for t in range(3, 40))])
    assert [len(p.rows) for p in who_is(seen)] == [37, 1]


@settings(deadline=None, max_examples=20)
@given(st.permutations(range(4)), st.integers(0, 100))
def test_numbers_do_not_depend_on_the_detector_s(order, seed):
    """People are numbered by first appearance whatever the tracks are called."""
    rows = [(t, order[k], k, 60 + 90 * k) for k in range(4) for t in range(3 * k, 40)]
    seen = sightings(rows, seed)
    assert [tracks_of(seen, p) for p in who_is(seen)] == [[order[k]] for k in range(4)]


# ---- shots


def images(*levels):
    """One plain frame for each level, with a little gradient."""
    ramp = np.linspace(0, 20, 64)[None, :, None] * np.ones((36, 1, 3))
    return np.array([thumbnail(np.clip(ramp + level, 0, 255).astype(np.uint8)) for level in levels])


def test_a_hard_cut_parts_shots_and_a_flash_or_a_fade_does_not():
    assert find_shots(images(*[60] * 5, *[150] * 5)).tolist() == [0] * 5 + [1] * 5
    assert find_shots(images(*[60] * 5, 230, *[60] * 5)).max() == 0
    assert find_shots(images(*[60] * 5, 230, 225, *[61] * 5)).max() == 0
    assert find_shots(images(*range(0, 200, 14))).max() == 0
    assert find_shots(images(100)).tolist() == [0]


def test_a_jump_within_a_calm_scene_is_a_cut_and_the_same_among_others_like_it_is_none():
    assert find_shots(images(60, 60, 60.5, 60, 60, 80, 80, 80, 80)).tolist() == [0] * 5 + [1] * 4
    assert find_shots(images(60, 66, 60, 67, 60, 80, 88, 81, 86)).max() == 0
    assert find_shots(images(*np.repeat(range(60, 200, 20), 2))).max() == 0  # each frame twice
    assert find_shots(images(60, 60, 60, 60, 80, 60, 60, 60)).max() == 0  # a flash


def test_a_step_is_abrupt_if_it_is_large_or_the_scene_was_calm():
    assert is_abrupt(10.0, []) and is_abrupt(10.0, [9.0])
    assert is_abrupt(5.0, [0.2, 0.4]) and not is_abrupt(5.0, [0.2, 0.6])
    assert not is_abrupt(5.0, []) and not is_abrupt(3.9, [0.0])


def test_where_files_were_joined_a_small_step_is_a_cut_and_none_is_none():
    calm = images(60, 60, 60, 60, 60, 64, 64, 64, 64)
    assert find_shots(calm).max() == 0
    for join in (4, 5, 6):
        assert find_shots(calm, (join,)).tolist() == [0] * 5 + [1] * 4
    assert find_shots(images(*[60] * 9), (5,)).max() == 0  # a recording whose times start again goes on
    assert find_shots(images(*range(60, 96, 4)), (5,)).max() == 0  # it moves as before
    assert find_shots(images(100), (1,)).tolist() == [0]


# ---- the choice


@pytest.fixture
def candidates():
    """A small face on the left, a large one on the right that comes second, one in the middle for a single frame."""
    rows = [(t, 0, 0, 60) for t in range(30)] + [(t, 1, 1, 300) for t in range(4, 30)] + [(9, 2, 2, 180)]
    seen = sightings(rows)
    grown = seen.boxes.copy()
    grown[seen.tracks == 1] += np.array([-20, -20, 20, 20], np.float32)
    seen = replace(seen, boxes=grown)
    return FaceCandidates(who_is(seen), seen, np.arange(30) / RATE, SIZE)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("largest", [1]),
        ("left", [0]),
        ("right", [1]),
        ("0", [0]),
        ("2", [2]),
        ("all", [0, 1]),
        ("1+0", [0, 1]),
        ("left+left", [0]),
        ("300,130", [1]),
        ("0.15,0.5", [0]),
        ("60,120@0s", [0]),
        ("180,120@0.36s", [2]),
        ("250,80,350,180", [1]),
        ("0.05,0.3,0.3,0.8@1s", [0]),
    ],
)
def test_choices(candidates, text, numbers):
    assert [person.number for person in choose(candidates, text)] == numbers


@pytest.mark.parametrize("text", ["nearest", "-1", "1,2,3", "x,y", "30,20,10,10", "", "0+", "gone.png"])
def test_what_is_no_choice(candidates, text):
    with pytest.raises(UsageError):
        choose(candidates, text)


@pytest.mark.parametrize(
    ("text", "named"), [("3", "shows 3: 0 .at"), ("5,5@0s", "0 .at 60"), ("120,10", "no face is at")]
)
def test_a_choice_of_nobody_names_who_is_there(candidates, text, named):
    with pytest.raises(InputError, match=named):
        choose(candidates, text)


def test_nobody_at_all(candidates):
    with pytest.raises(InputError, match="no face was found"):
        choose(FaceCandidates([], candidates.seen, candidates.times, SIZE), "largest")


def test_an_image_means_whoever_looks_like_it(candidates, tmp_path: Path):
    image = tmp_path / "ref.png"
    image.touch()
    appearance = unit(np.eye(12)[1] + 0.1)
    assert [p.number for p in choose(candidates, str(image), {str(image): appearance})] == [1]
    with pytest.raises(InputError, match=r"distances 0: 1.4"):
        choose(candidates, str(image), {str(image): unit(np.eye(12)[7])})


# ---- trust


def test_a_profile_is_let_go_and_taken_up_with_hysteresis():
    points = np.tile(face((200, 120), 30), (9, 1, 1))
    yaws = np.array([0, 62, 68, 71, 66, 68, 63, 68, -75.0])
    good = trusted(points, yaws, np.ones(9, bool), SIZE)
    assert good.tolist() == [True, True, True, False, False, False, True, True, False]


def test_a_face_that_leaves_the_image_is_let_go():
    points = np.array([face((x, 120), 30) for x in (200, 30, 5, -15, -40)])
    good = trusted(points, np.zeros(5), np.ones(5, bool), SIZE)
    assert good[:2].all() and not good[3:].any()


def test_a_gap_behind_another_face_is_hidden():
    boxes = np.array([[10, 10, 50, 60]] * 3 + [[np.nan] * 4] * 2 + [[10, 10, 50, 60]], float)
    other = np.array([[300, 10, 350, 60]] * 3 + [[30, 10, 80, 60], [np.nan] * 4, [300, 10, 350, 60]], float)[:, None]
    assert hidden(boxes, np.isfinite(boxes[:, 0]), other).tolist() == [False, False, False, True, False, False]


def test_yaw_of_a_frontal_and_a_turned_face():
    points = face((0, 0), 60)
    points[27:31] = (0, 20)
    assert yaw_of_landmarks(points) == pytest.approx(0, abs=1)
    points[27:31] += (20, 0)
    assert 20 < yaw_of_landmarks(points) < 50


# ---- face overlap


def all_faces(*places):
    """Two people at places (x, size) in one frame."""
    points = np.array([face((x, 150), size) for x, size in places], np.float32)
    zeros = np.zeros(2, np.int64)
    return AllFaces.of(zeros, np.array([0, 1]), points, np.zeros(1), np.zeros(1, np.int32)), points


WINDOW = np.array([[0, 0], [0, 300], [300, 300], [300, 0]], float)


def at(opacity, x, y=150):
    return float(opacity[y * len(opacity) // 300, x * len(opacity) // 300])


def test_faces_beside_each_other_end_half_way():
    both, points = all_faces((90, 30), (210, 30))
    left, right = (both.overlap(k, 0, points[k], WINDOW, 128) for k in (0, 1))
    assert at(left, 90) == at(right, 210) == 1.0
    assert at(left, 210) == at(right, 90) == 0.0
    assert (np.minimum(left, right) == 0).all(), "no pixel belongs to both"


def test_the_face_behind_keeps_off_the_one_in_front():
    both, points = all_faces((130, 30), (190, 45))
    behind, front = (both.overlap(k, 0, points[k], WINDOW, 256) for k in (0, 1))
    assert at(behind, 190) == at(behind, 165) == 0.0 and at(behind, 90) > 0.99
    assert at(front, 190) == 1.0
    assert (np.minimum(behind, front) == 0).all()


def test_a_far_face_costs_nothing():
    both, points = all_faces((90, 20), (2000, 20))
    assert both.overlap(0, 0, points[0], WINDOW, 128) == 1.0


# ---- appearance


def test_the_discriminant_finds_what_tells_people_apart():
    """Of three coordinates one differs between people, one changes within them, one is noise."""
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(60), 5)
    x = np.stack([rng.normal(0, 1, 60)[people], rng.normal(0, 5, 300), rng.normal(0, 0.01, 300)], axis=1)
    x[:, 0] += rng.normal(0, 0.1, 300)
    _, matrix = fit(x, people)
    seen = np.abs(matrix[:, 0]) * x.std(0)
    assert seen[0] > 5 * seen[1:].max()


@settings(deadline=None, max_examples=20)
@given(st.floats(-3, 3), st.floats(0.1, 10), st.floats(-500, 500))
def test_the_similarity_undoes_turn_scale_and_shift(angle, scale, shift):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity_to(PLACES @ turn.T + shift, PLACES)
    np.testing.assert_allclose((PLACES @ turn.T + shift) @ matrix[:, :2].T + matrix[:, 2], PLACES, atol=1e-6)


def test_what_is_no_network_is_named(tmp_path: Path):
    path = tmp_path / "faces.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(ModelError, match=r"faces\.onnx"):
        make_embedder(str(path))


def test_people_have_rows_of_their_own(candidates):
    rows = np.concatenate([person.rows for person in candidates.people])
    assert sorted(rows.tolist()) == list(range(len(candidates.seen)))
    assert all(isinstance(person, Person) for person in candidates.people)


def test_chunks_without_faces_or_appearances_can_be_read():
    """A clip may begin with an empty room, or show somebody only between two looks."""
    from sg3cli.faces.face import Face
    from sg3cli.pipeline.align import Row, collect, pack

    thumb = images(90)[0]
    points = face((100, 100), 20).astype(np.float32)
    seen = Face(np.array([80, 90, 120, 130], np.float32), points, 1.0, 0)
    empty, unlooked = pack([Row(0, 0, 0.0, thumb, [], [])]), pack([Row(1, 1, 0.04, thumb, [seen], [])])
    for chunks, count in (([empty], 0), ([empty, unlooked], 1), ([], 0)):
        found, _, times, _ = collect(chunks)
        assert len(found) == count and np.isnan(found.appearances).all()
        assert count == 0 or found.appearances.shape[1] > 0
        assert len(times) == 0 or len(who_is(found, count=len(times))) == count
    looked = pack([Row(2, 2, 0.08, thumb, [seen], [np.ones(24, np.float32)])])
    found, *_ = collect([empty, unlooked, looked])
    assert found.appearances.shape == (2, 24) and np.isfinite(found.appearances).any(axis=1).tolist() == [False, True]
