"""Photographs with the age of renders: what is carried over, where it lands, and whose."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pair_sets import make_edits, make_photos

from sg3cli.errors import InputError
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.training.people128.pair_data import PictureSet, make_pairs
from sg3cli.training.people128.photo_ageing import (
    COLOURED,
    DEEPEST,
    GAIN,
    SIZE,
    Ageing,
    Donors,
    aged,
    ageing_between,
    held,
    places,
    skin,
    write_aged,
)
from sg3cli.training.people128.picture_writer import PictureWriter

FOLD = (slice(150, 154), slice(148, 168))  # on a cheek of `face`


@pytest.fixture
def face(people: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A rendered person, `SIZE` pixels a side, and the landmarks."""
    images, landmarks = people
    scale = SIZE / images.shape[1]
    return cv2.resize(images[0], (SIZE, SIZE), interpolation=cv2.INTER_AREA), landmarks[0] * scale


def here() -> np.ndarray:
    """Every pixel of a photograph at its own place in the render."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    return np.stack([x, y], axis=-1).astype(np.float32)


def folded(image: np.ndarray, factor: float = 0.85) -> np.ndarray:
    """The face with a dark fold on its cheek."""
    result = image.astype(np.float32)
    result[FOLD] *= factor
    return np.rint(result).astype(np.uint8)


def test_nobody_ages_by_a_pair_that_does_not(face: tuple[np.ndarray, np.ndarray]) -> None:
    image, landmarks = face
    age = ageing_between(image, image)
    assert not age.factor.any() and np.abs(age.motion).max() < 0.05
    still = Ageing(np.zeros((SIZE, SIZE, 2), np.float32), age.factor)
    assert np.array_equal(aged(image, landmarks, here(), still), image)


def test_a_fold_lands_where_it_is_on_the_render_and_is_deeper(face: tuple[np.ndarray, np.ndarray]) -> None:
    image, landmarks = face
    age = ageing_between(image, folded(image))
    inside = age.factor[FOLD][1:-1, 3:-3].mean()
    assert -0.2 < inside < -0.08
    result = aged(image, landmarks, here(), age._replace(motion=np.zeros_like(age.motion))).astype(np.float32)
    ratio = np.log((result[FOLD] + 6) / (image[FOLD] + np.float32(6)))[1:-1, 3:-3].mean()
    assert ratio == pytest.approx(GAIN * inside, rel=0.25)
    moved = here() + np.float32([0, 10])  # this photograph's face lies 10 pixels higher
    higher = aged(image, landmarks, moved, age._replace(motion=np.zeros_like(age.motion))).astype(int) - image
    place = np.argwhere(np.abs(higher).sum(axis=2) > 20).mean(axis=0)
    assert place == pytest.approx([151.5 - 10, 157.5], abs=1.5)


def test_a_line_is_as_deep_as_it_is_and_an_area_is_held() -> None:
    line, area = np.zeros((2, 64, 64, 3), np.float32)
    line[32] = -0.4
    area[16:48, 16:48] = -0.8
    assert held(line)[32, 32].mean() < -0.38
    assert held(area)[32, 32].mean() == pytest.approx(-DEEPEST, abs=0.01)
    assert not held(0 * line).any()


def test_a_fold_beside_the_mouth_does_not_draw_the_lips_out(face: tuple[np.ndarray, np.ndarray]) -> None:
    image, landmarks = face
    x, y = (int(v) for v in landmarks[48])
    wrinkled = image.astype(np.float32)
    for k in range(18):
        wrinkled[y - 6 + k, x - 5 - k // 3 : x - 2 - k // 3] *= 0.7
    age = ageing_between(image, np.rint(wrinkled).astype(np.uint8))
    assert np.abs(age.motion[y - 12 : y + 12, x - 12 : x + 12]).max() < 0.5


def test_eyes_nose_and_mouth_do_not_age_and_colour_less_than_light(face: tuple[np.ndarray, np.ndarray]) -> None:
    image, landmarks = face
    mask = skin(landmarks, SIZE)
    for part in (range(36, 42), range(42, 48), range(29, 36), range(60, 68)):
        point = landmarks[list(part)].mean(axis=0)
        assert mask[int(point[1]), int(point[0])] == 0
    assert mask[FOLD].min() > 0.9
    red = np.zeros((SIZE, SIZE, 3), np.float32)
    red[..., 0] = 0.04
    result = aged(np.full_like(image, 128), landmarks, here(), Ageing(np.zeros((SIZE, SIZE, 2), np.float32), red))
    change = np.log((result[FOLD].mean(axis=(0, 1)) + 6) / 134) / GAIN
    light = 0.04 * 0.299
    assert change == pytest.approx([light + COLOURED * (0.04 - light), *[light * (1 - COLOURED)] * 2], abs=0.004)


def test_hair_or_a_rim_that_comes_is_no_age(face: tuple[np.ndarray, np.ndarray]) -> None:
    image, _ = face
    assert not ageing_between(image, folded(image, 0.2)).factor[FOLD].any()


def test_the_points_of_two_faces_say_where_one_lies_in_the_other() -> None:
    points = np.random.default_rng(0).uniform(60, 200, (468, 2))
    assert np.abs(places(points, points, SIZE) - here())[8:-8, 8:-8].max() < 0.1
    shifted = places(points, points + np.array([7.0, -4.0]), SIZE)
    assert (shifted - here())[120:136, 120:136].mean(axis=(0, 1)) == pytest.approx([7, -4], abs=0.05)


def test_donors_are_bare_faces_from_young_to_old_turned_alike(tmp_path: Path) -> None:
    pictures = PictureSet(make_edits(tmp_path / "edits"))
    pictures.labels[3, pictures.columns.index("glasses")] = 1.0  # of the second group
    donors = Donors(pictures, mesh=None)  # type: ignore[arg-type]
    ages = pictures.column("age")[donors.rows]
    assert len(donors.rows) == 3 and (ages[:, 1] - ages[:, 0] == 40).all() and (donors.units == 2).all()
    found = dict(donors.like(np.array([5.0, 0.0]), np.random.default_rng(0)))
    assert set(found) == {0, 1, 2}
    assert set(dict(donors.like(np.array([-12.0, 0.0]), np.random.default_rng(0))).values()) == {True}
    assert not list(donors.like(np.array([40.0, 0.0]), np.random.default_rng(0)))
    plain, mirrored = donors.pair(0, False), donors.pair(0, True)
    assert all(np.array_equal(a[:, ::-1], b) for a, b in zip(plain, mirrored, strict=True))
    pictures.labels[:, pictures.columns.index("beard")] = 1.0
    with pytest.raises(InputError, match="without glasses and beard"):
        Donors(pictures, mesh=None)  # type: ignore[arg-type]


def test_a_set_of_aged_photographs_is_one_of_pairs(
    tmp_path: Path, face: tuple[np.ndarray, np.ndarray], face_model: None
) -> None:
    image, landmarks = face
    for name, second, age in (("photos", image, {}), ("renders", folded(image), {"age": 2.0})):
        writer = PictureWriter()
        writer.add(image, landmarks, 1, 0, {})
        writer.add(second, landmarks, 1, 0, age or {"smile": 1.0})
        writer.write(tmp_path / name, "")
    mesh = DrawnMesh.load()
    assert mesh is not None
    photos, donors = PictureSet(tmp_path / "photos"), Donors(PictureSet(tmp_path / "renders"), mesh)
    assert write_aged(photos, np.array([0]), donors, tmp_path / "aged") == 1
    made = PictureSet(tmp_path / "aged")
    pairs = make_pairs(made, np.unique(np.asarray(made.group)))
    assert pairs.rows.tolist() == [[0, 1]] and pairs.delta[0].tolist() == [2.0] + [0.0] * (pairs.delta.shape[1] - 1)
    change = made.picture(1).astype(int).mean(axis=2) - made.picture(0).mean(axis=2)
    assert change[FOLD].mean() < -10 and np.abs(change[:60]).max() < 12


def test_a_set_without_pairs_says_why(tmp_path: Path) -> None:
    photos = PictureSet(make_photos(tmp_path / "photos"))
    writer = PictureWriter()
    writer.add(photos.picture(0), photos.landmarks[0], 1, 0, {})
    with pytest.raises(InputError, match="no photograph"):
        writer.write(tmp_path / "none", "no photograph")
    assert not (tmp_path / "none").exists()
