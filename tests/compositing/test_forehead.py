"""Lines on a forehead: fewer of the new ones, as uneven as a person's, and old ones go."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.compositing.forehead import FIELDS, LINES, character, fields, on_forehead, uneven

SIDE = 256


def lines() -> np.ndarray:
    """Equal dark lines all over, `[SIDE, SIDE, 3]` levels."""
    added = np.zeros((SIDE, SIDE, 3), np.float32)
    added[20:240:12, 60:200] = -30.0
    return added


def smooth() -> np.ndarray:
    return np.full((SIDE, SIDE, 3), 150, np.uint8)


def people(count: int, w_dim: int = 256) -> np.ndarray:
    """Codes that are alike, as an encoder's are, `[count, w_dim]`."""
    rng = np.random.default_rng(0)
    return rng.normal(size=w_dim) + 0.2 * rng.normal(size=(count, w_dim))


def depths(person: np.ndarray) -> np.ndarray:
    """How deep each line of the forehead is at a few places, 1: as it was added; `[6, 5]`."""
    shown = on_forehead(lines(), smooth(), person)[..., 0]
    deepest = [shown[row - 5 : row + 6, 70:190].min(axis=0) for row in range(20, 80, 12)]
    return np.stack(deepest)[:, ::28] / -30.0


def test_new_lines_on_a_forehead_are_fainter_and_old_ones_go_in_full() -> None:
    added, skin = lines(), smooth()
    shown = on_forehead(added, skin)
    np.testing.assert_allclose(shown[:80], LINES * added[:80], atol=0.1)
    np.testing.assert_array_equal(shown[104:], added[104:])
    lined = (skin + added).astype(np.uint8)
    assert np.abs(on_forehead(-added, lined)[:80] + added[:80]).max() < 1.5  # of 30
    np.testing.assert_allclose(on_forehead(added, lined)[30:70], LINES * added[30:70], atol=0.1)


def test_the_lines_of_a_person_are_uneven_and_stay_what_they_are_elsewhere() -> None:
    for code in people(4):
        person = character(code)
        deep = depths(person)
        assert deep.std() > 0.25 * LINES and deep.min() < 0.6 * LINES and deep.max() > 1.2 * LINES
        shown = on_forehead(lines(), smooth(), person)
        np.testing.assert_array_equal(shown[104:], lines()[104:])
        np.testing.assert_array_equal(shown, on_forehead(lines(), smooth(), person))


def test_by_and_large_as_much_is_shown_as_without_a_person() -> None:
    shown = [depths(character(code)).mean() for code in people(12)]
    assert 0.7 * LINES < np.mean(shown) < 1.3 * LINES


def test_nobody_s_lines_are_another_s_and_a_person_keeps_them() -> None:
    codes = people(6)
    of_people = np.stack([character(code) for code in codes])
    unlike = np.corrcoef(of_people)[np.triu_indices(6, 1)]
    assert np.abs(unlike.mean()) < 0.4 and unlike.max() < 0.95
    rng = np.random.default_rng(3)
    again = np.stack([character(code + 0.03 * rng.normal(size=code.shape)) for code in codes])
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(of_people, again, strict=True)) > 0.9
    assert of_people.shape == (6, FIELDS) and np.isfinite(character(np.zeros(512))).all()


def test_lines_that_a_younger_person_loses_go_in_full() -> None:
    lined, person = (smooth() + lines()).astype(np.uint8), character(people(1)[0])
    assert np.abs(on_forehead(-lines(), lined, person)[:80] + lines()[:80]).max() < 4  # of 30


def test_light_over_an_area_is_not_uneven() -> None:
    wide = np.full((SIDE, SIDE, 3), -20, np.float32)
    shown = uneven(wide, np.ones((SIDE, 1), np.float32), character(people(1)[0]))
    np.testing.assert_allclose(shown, wide, atol=1e-3)
    nothing = np.zeros_like(wide)
    assert not on_forehead(nothing, smooth(), character(people(1)[0])).any()


@pytest.mark.parametrize("shape", [(256, 256), (320, 256), (512, 384)])
def test_fields_fit_any_window(shape: tuple[int, int]) -> None:
    found = fields(shape, 0, (20.0, 5.0))
    assert found.shape == (FIELDS, *shape)
    np.testing.assert_allclose(found.std(axis=(1, 2)), 1, atol=1e-3)
    along, across = (np.abs(np.diff(found, axis=axis)).mean() for axis in (2, 1))
    assert along < 0.5 * across  # lines run from left to right
