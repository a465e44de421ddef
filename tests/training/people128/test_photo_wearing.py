"""Photographs with a render's glasses, beard or closed lids: what is carried over, in which light, and whose."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sg3cli.errors import InputError
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.training.people128.pair_data import PictureSet, attribute_index, make_pairs
from sg3cli.training.people128.photo_ageing import SIZE
from sg3cli.training.people128.photo_wearing import (
    UNITS,
    Wearers,
    around_eyes,
    given_to,
    likest,
    without,
    worn,
    write_worn,
)
from sg3cli.training.people128.picture_writer import PictureWriter
from sg3cli.training.people128.transfer_drawings import Drawings

Face = tuple[np.ndarray, np.ndarray]
RIM = (slice(140, 148), slice(100, 160))  # across the cheeks and the nose of `face`


@pytest.fixture
def face(people: Face) -> Face:
    """A rendered person, `SIZE` pixels a side, and the landmarks."""
    images, landmarks = people
    return cv2.resize(images[0], (SIZE, SIZE), interpolation=cv2.INTER_AREA), landmarks[0] * SIZE / images.shape[1]


def here() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    return np.stack([x, y], axis=-1).astype(np.float32)


def rimmed(image: np.ndarray, colour: tuple[int, int, int] = (20, 20, 20), down: int = 0) -> np.ndarray:
    """The face with a bar before it."""
    result = image.copy()
    result[RIM[0].start + down : RIM[0].stop + down, RIM[1]] = colour
    return result


def test_who_is_given_nothing_stays(face: Face) -> None:
    image, landmarks = face
    assert np.array_equal(worn(image, landmarks, here(), (image, image)), image)


def test_a_rim_is_itself_and_lies_where_the_face_has_it(face: Face) -> None:
    image, landmarks = face
    result = worn(image, landmarks, here(), (image, rimmed(image)))
    assert np.abs(result[RIM][2:-2, 3:-3].astype(int) - 20).max() < 12
    away = np.ones((SIZE, SIZE), bool)
    away[130:158, 90:170] = False
    assert np.abs(result.astype(int) - image)[away].max() <= 1
    higher = worn(image, landmarks, here() + np.float32([0, 10]), (image, rimmed(image))).astype(int)
    dark = np.argwhere(higher.mean(axis=2) - image.mean(axis=2) < -60)
    assert dark.mean(axis=0) == pytest.approx([143.5 - 10, 129.5], abs=2)


def test_what_is_new_is_shown_in_the_light_of_the_photograph(face: Face) -> None:
    image, landmarks = face
    dim = np.rint(image * 0.5).astype(np.uint8)
    result = worn(dim, landmarks, here(), (image, rimmed(image, (250, 120, 60))))
    inside = result[RIM][2:-2, 10:-10].mean(axis=(0, 1))
    assert inside == pytest.approx([125, 60, 30], abs=14)


def test_only_the_eyes_close(face: Face) -> None:
    _, landmarks = face
    mask = around_eyes(landmarks, SIZE)[..., 0]
    for eye in (range(36, 42), range(42, 48)):
        x, y = landmarks[list(eye)].mean(axis=0)
        assert mask[int(y), int(x)] == 1
    for far in (8, 33, 57, 30):
        x, y = landmarks[far]
        assert mask[min(int(y), SIZE - 1), int(x)] == 0


def wearing_set(folder: Path, face: Face, attribute: str = "glasses", forms: tuple[int, ...] = (0, 30)) -> PictureSet:
    """Pairs of which the second wears a bar, at another height in each; the first pair in the order with, without."""
    image, landmarks = face
    writer = PictureWriter()
    for group, down in enumerate(forms):
        writer.add(image, landmarks, group, group, {})
        writer.add(rimmed(image, down=down), landmarks, group, group, {attribute: UNITS[attribute]})
    writer.write(folder, "")
    return PictureSet(folder)


def test_those_who_wear_it_come_second_and_turned_heads_are_left_to_others(tmp_path: Path, face: Face) -> None:
    pictures = wearing_set(tmp_path / "set", face)
    pictures.landmarks = pictures.landmarks.copy()
    wearers = Wearers(pictures, mesh=None, attribute="glasses", found={(0, True): None})  # type: ignore[arg-type]
    assert (pictures.column("glasses")[wearers.rows] == [[0, 1], [0, 1]]).all()
    assert all(
        np.array_equal(a[:, ::-1], b) for a, b in zip(wearers.pair(0, False), wearers.pair(0, True), strict=True)
    )
    assert not list(wearers.like(np.array([40.0, 0.0]), np.random.default_rng(0)))
    with pytest.raises(InputError, match="differ in beard"):
        Wearers(pictures, mesh=None, attribute="beard")  # type: ignore[arg-type]


def test_the_form_that_is_most_like_the_drawn_one_is_taken_and_makes_a_set(
    tmp_path: Path, face: Face, face_model: None
) -> None:
    image, landmarks = face
    wearers = Wearers(wearing_set(tmp_path / "renders", face), DrawnMesh.load(), "glasses")  # type: ignore[arg-type]
    small = cv2.resize(image, (128, 128), interpolation=cv2.INTER_AREA)
    for down in (0, 30):
        edited = cv2.resize(rimmed(image, down=down), (128, 128), interpolation=cv2.INTER_AREA)
        drawn = edited.astype(np.float32) - small
        result = likest(image, landmarks, np.zeros(2), wearers, drawn, np.random.default_rng(1))
        assert result is not None
        dark = np.argwhere(result.mean(axis=2) - image.mean(axis=2) < -60)
        assert dark[:, 0].mean() == pytest.approx(143.5 + down, abs=3)
    writer = PictureWriter()
    writer.add(image, landmarks, 1, 0, {})
    writer.add(image, landmarks, 1, 0, {"smile": 1.0})
    writer.write(tmp_path / "photos", "")
    drawings = Drawings(small[None], edited[None])
    rows = np.array([0])
    assert write_worn(PictureSet(tmp_path / "photos"), rows, wearers, drawings, tmp_path / "worn") == 1
    made = PictureSet(tmp_path / "worn")
    pairs = make_pairs(made, np.unique(np.asarray(made.group)))
    assert pairs.delta[0, attribute_index()["glasses"]] == 1 and np.count_nonzero(pairs.delta) == 1


def test_who_is_given_something_is_drawn_with_it_and_has_none_yet(tmp_path: Path, face: Face) -> None:
    pairs = given_to(np.array([3, 5]), "beard")
    assert pairs.rows.tolist() == [[3, 3], [5, 5]]
    assert np.count_nonzero(pairs.delta) == 2 and (pairs.delta[:, attribute_index()["beard"]] == UNITS["beard"]).all()

    class Reader(torch.nn.Module):
        def column(self, label: str) -> int:
            return ("glasses", "beard").index(label)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            dark = (x.mean((1, 2, 3)) < 0).float()
            return torch.stack([dark, torch.zeros_like(dark)], 1)

    image, landmarks = face
    writer = PictureWriter()
    writer.add(np.full_like(image, 220), landmarks, 1, 0, {})
    writer.add(np.full_like(image, 30), landmarks, 1, 0, {"smile": 1.0})
    writer.write(tmp_path / "photos", "")
    left = without(Reader(), PictureSet(tmp_path / "photos"), np.array([0, 1]), {"glasses": 0.4, "beard": 0.4})  # type: ignore[arg-type]
    assert left.tolist() == [0]
