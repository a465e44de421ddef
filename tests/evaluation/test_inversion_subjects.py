"""Aligned and unaligned pictures of one face, and the transform between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_generator

from sg3cli.console import Console
from sg3cli.drawing.images import write_png
from sg3cli.errors import InputError
from sg3cli.evaluation.inversion_subjects import SHIFT, TURN, of_pictures
from sg3cli.geometry import rotation_degrees
from sg3cli.latents.rendering import render_crops
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.levels import to_signed, to_uint8

SIZE = 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures that the tiny generator drew."""
    G = tiny_generator()
    for k, image in enumerate(render_crops(G, Sampler(G, GenerateConfig()).codes(range(3)))):
        write_png(tmp_path / f"{k}.png", image)
    return tmp_path


def error(a: np.ndarray, b: np.ndarray) -> float:
    """In the inner circle, where no mirrored border is seen."""
    axis = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    inside = axis[None] ** 2 + axis[:, None] ** 2 < 0.3**2
    return float(np.square(a - b)[inside].mean())


def test_the_transform_draws_what_the_unaligned_picture_shows(folder: Path) -> None:
    """The other way round, and without it, the drawing is far off."""
    G = tiny_generator()
    ws = Sampler(G, GenerateConfig()).codes(range(3))
    for w, subject in zip(ws, of_pictures(folder, 3, SIZE, Console()), strict=True):
        drawn = {}
        for name, transform in (
            ("right", subject.transform),
            ("inverse", np.linalg.inv(subject.transform)),
            ("none", np.eye(3)),
        ):
            (image,) = render_crops(G, w[None], transform[None])
            drawn[name] = error(to_signed(image), subject.unaligned)
        (still,) = render_crops(G, w[None])
        assert error(to_signed(still), subject.aligned) < 1e-4
        assert drawn["right"] < 0.2 * min(drawn["inverse"], drawn["none"])


def test_what_is_unaligned_can_be_brought_upright_again(folder: Path) -> None:
    for subject in of_pictures(folder, 3, SIZE, Console()):
        upright = subject.upright(to_uint8(subject.unaligned))
        assert error(upright, subject.aligned) < 0.3 * error(subject.unaligned, subject.aligned)


def test_pictures_are_turned_and_shifted_within_bounds_and_always_alike(folder: Path) -> None:
    first, second = (of_pictures(folder, 3, SIZE, Console()) for _ in range(2))
    assert [s.name for s in first] == ["0.png", "1.png", "2.png"]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.unaligned, b.unaligned)
        assert 0 < abs(rotation_degrees(a.transform)) <= TURN
        assert np.abs(a.transform[:2, 2]).max() <= 1.5 * SHIFT
    assert len({float(s.transform[0, 0]) for s in first}) == 3
    assert [s.name for s in of_pictures(folder, 2, SIZE, Console())] == ["0.png", "2.png"]


def test_what_cannot_be_inverted_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "3.png").write_bytes(b"damaged")
    console = Console(quiet=True)
    assert len(of_pictures(folder, 4, SIZE, console)) == 3 and "3.png is left out" in console.notices[0]
    write_png(folder / "4.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(InputError, match=r"4\.png .* is 30x20, no aligned face"):
        of_pictures(folder, 9, SIZE, Console(quiet=True))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="no pictures of faces"):
        of_pictures(empty, 2, SIZE, Console())
