"""Pairs, photographs and their batches."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_sets import make_edits, make_photos

from sg3cli.errors import InputError
from sg3cli.training.people128.pair_data import (
    ATTRIBUTES,
    MIRRORED_68,
    Augment,
    BatchConfig,
    BatchSource,
    PictureSet,
    attribute_index,
    first_held_out_person,
    make_pairs,
    photo_rows,
    split_groups,
)
from sg3cli.training.people128.photo_pairs import window_transform

INDEX = attribute_index()
STILL = Augment(False, np.ones(3), np.zeros(3), 0.0, 1.0, np.zeros(2))


@pytest.fixture(scope="module")
def edits(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return PictureSet(make_edits(tmp_path_factory.mktemp("edits")))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> PictureSet:
    return PictureSet(make_photos(tmp_path_factory.mktemp("photos")))


def _source(edits: PictureSet, photos: PictureSet, **changes: object) -> BatchSource:
    config = BatchConfig(pairs_per_step=4, photos_per_step=2, size=32, **changes)  # type: ignore[arg-type]
    return BatchSource([(edits, make_pairs(edits, split_groups(edits, 1)[0]), 1.0)], [(photos, np.arange(8))], config)


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\.bin is missing"):
        PictureSet(tmp_path)


def test_pairs_hold_what_changes_in_units(edits: PictureSet) -> None:
    pairs = make_pairs(edits, np.array([10, 12]))
    assert pairs.rows.tolist() == [[0, 1], [0, 2], [6, 7], [6, 8]]
    assert pairs.delta[0, INDEX["age"]] == 2  # 40 years in units of 20
    assert pairs.delta[1, INDEX["yaw"]] == 1 and pairs.delta[1, INDEX["eyes_closed"]] == 2
    assert (pairs.delta != 0).sum() == 6
    assert pairs.share[0] == ATTRIBUTES["age"].share and pairs.share[1] == ATTRIBUTES["eyes_closed"].share


def test_photographs_have_no_pairs(photos: PictureSet) -> None:
    with pytest.raises(InputError, match="no pairs"):
        make_pairs(photos, np.array([0]))


def test_unknown_labels_are_nan(photos: PictureSet) -> None:
    assert np.isnan(photos.attributes[0, INDEX["age"]]) and np.isnan(photos.attributes[:, INDEX["smile"]]).all()
    assert photos.attributes[1, INDEX["age"]] == pytest.approx(31 / 20)


def test_the_last_groups_and_people_are_held_out(edits: PictureSet, photos: PictureSet) -> None:
    train, held = split_groups(edits, 1)
    assert train.tolist() == [10, 11, 12] and held.tolist() == [13]
    first = first_held_out_person(photos.identity, 0.2)
    assert first == 56 and sorted(photos.identity)[-2:] == [56, 63]
    kept, judged = photo_rows(photos, first)
    assert sorted([*kept, *judged]) == list(range(10)) and set(photos.identity[judged]) == {56, 63}


def test_a_batch_follows_from_its_step(edits: PictureSet, photos: PictureSet) -> None:
    source = _source(edits, photos)
    first = source.batch(5)
    again = next(islice(_source(edits, photos).stream(3), 2, None))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.a, source.batch(6).a)
    assert first.seen.shape == (6, 3, 32, 32) and first.landmarks_photos.shape == (2, 68, 2)
    assert first.a.min() >= -1 and first.a.max() <= 1


def test_workers_change_nothing_but_the_time(edits: PictureSet, photos: PictureSet) -> None:
    source = _source(edits, photos)
    for step, batch in zip(range(3, 9), source.stream(3, workers=3), strict=False):
        expected = source.batch(step)
        assert all(torch.equal(x, y) for x, y in zip(batch, expected, strict=True))


def test_only_what_the_encoder_sees_is_spoiled(edits: PictureSet, photos: PictureSet) -> None:
    clean = _source(edits, photos, degraded=0.0).batch(0)
    spoiled = _source(edits, photos, degraded=1.0).batch(0)
    assert torch.equal(clean.seen, torch.cat([clean.a, clean.photos]))
    assert torch.equal(clean.b, spoiled.b) and torch.equal(clean.photos, spoiled.photos)
    assert not torch.equal(clean.seen, spoiled.seen)


def test_photographs_are_drawn_by_the_root_of_their_source_size(edits: PictureSet, photos: PictureSet) -> None:
    source = BatchSource([], [(photos, np.arange(10))], BatchConfig())
    share = np.diff(source._photo_cumulative, prepend=0)
    rare = share[photos.column("source") == 1].sum()
    assert rare == pytest.approx(2**0.5 / (2**0.5 + 8**0.5))


def test_a_mirrored_pair_turns_the_other_way(edits: PictureSet, photos: PictureSet) -> None:
    source, signs = _source(edits, photos), set()
    for step in range(12):
        batch = source.batch(step)
        turned = batch.delta[:, INDEX["yaw"]]
        closed = batch.delta[:, INDEX["eyes_closed"]]
        signs |= {float(t * c) for t, c in zip(turned, closed, strict=True) if t}
    assert signs == {2.0, -2.0}  # of yaw against closed eyes: equal, and opposite where the pair is mirrored


def test_mirroring_twice_gives_the_landmarks_back() -> None:
    assert sorted(MIRRORED_68) == list(range(68)) and (MIRRORED_68[MIRRORED_68] == np.arange(68)).all()
    assert MIRRORED_68[36] == 45 and MIRRORED_68[48] == 54 and MIRRORED_68[8] == 8


@pytest.mark.parametrize("mirror", [False, True])
def test_landmarks_move_with_the_picture(mirror: bool) -> None:
    side = 64
    image = np.zeros((side, side, 3), np.uint8)
    image[19:22, 39:42] = 255  # its middle is at (40.5, 20.5)
    landmarks = np.full((68, 2), [40.5 / side, 20.5 / side])
    augment = Augment(mirror, np.ones(3), np.zeros(3), 0.2, 1.1, np.array([0.05, -0.03]))
    moved, points = augment.apply(image, landmarks, side)
    weight = (moved[..., 0] + 1).clip(0)
    rows, columns = np.mgrid[:side, :side] + 0.5
    middle = [float((weight * axis).sum() / weight.sum()) for axis in (columns, rows)]
    assert points[0] == pytest.approx(middle, abs=0.1)


def test_colours_change_alike_in_both_pictures_of_a_pair(edits: PictureSet) -> None:
    augment = Augment(False, np.array([0.5, 1, 1]), np.array([0.1, 0, 0]), 0.0, 1.0, np.zeros(2))
    for row in (0, 1):
        plain, _ = STILL.apply(edits.picture(row), edits.landmarks[row], 32)
        changed, _ = augment.apply(edits.picture(row), edits.landmarks[row], 32)
        np.testing.assert_allclose(changed[..., 0], plain[..., 0] * 0.5 + 0.1, atol=1e-6)
        np.testing.assert_array_equal(changed[..., 1:], plain[..., 1:])


def test_window_transform_finds_turn_scale_and_shift() -> None:
    points = np.random.default_rng(0).normal(size=(8, 2))
    c, s = 1.2 * np.cos(0.3), 1.2 * np.sin(0.3)
    M = window_transform(points, points @ np.array([[c, -s], [s, c]]).T + [3, -2])
    np.testing.assert_allclose(M, [[c, -s, 3], [s, c, -2]], atol=1e-9)
