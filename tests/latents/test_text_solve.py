"""Styles solved for a text: what is asked for comes, what is held stays, cheap styles go first."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.errors import UsageError
from sg3cli.latents.text_solve import Readings, solve_styles

# what four styles do to two readings: the first moves both, the second only the held one, the third the text alone
RESPONSES = np.array([[1.0, 1.0], [0.0, 0.5], [0.2, 0.0], [0.0, 0.0]])
FREE = np.eye(4)


def test_what_is_held_stays_and_the_text_rises_by_one() -> None:
    rows = np.eye(2)
    styles, reached = solve_styles(RESPONSES, FREE, Readings(rows, np.array([1.0, 0.0])), price=1e-9)
    assert reached == pytest.approx([1.0, 0.0], abs=1e-6)
    assert styles @ RESPONSES == pytest.approx([1.0, 0.0], abs=1e-5) and styles[1] < 0 < styles[0] and styles[3] == 0
    alone, reached = solve_styles(RESPONSES, FREE, Readings(rows[:1], np.array([1.0])), price=1e-9)
    assert reached == pytest.approx([1.0]) and alone[1] == 0 and (alone @ RESPONSES)[1] > 0.5


def test_named_labels_rise_and_fall_as_the_text_says() -> None:
    styles, _ = solve_styles(RESPONSES, FREE, Readings(np.eye(2), np.array([1.0, -1.0])), price=1e-9)
    assert styles @ RESPONSES == pytest.approx([1.0, -1.0], abs=1e-5)


def test_readings_count_in_deviations_and_styles_in_theirs() -> None:
    """A style that hardly varies between faces hardly moves; twice the spread of a reading is twice the change."""
    rare = np.diag([1.0, 1.0, 100.0, 1.0])
    plain = solve_styles(RESPONSES, FREE, Readings(np.eye(2)[:1], np.array([1.0])))[0]
    moved = solve_styles(RESPONSES, rare, Readings(np.eye(2)[:1], np.array([1.0])))[0]
    assert moved[2] / moved[0] == pytest.approx(100 * plain[2] / plain[0], rel=1e-4)
    wide = solve_styles(RESPONSES, FREE, Readings(np.eye(2)[:1] / 2, np.array([1.0])))[0]
    assert wide == pytest.approx(2 * plain, rel=1e-4)


def test_a_text_that_no_style_answers_to_is_refused() -> None:
    with pytest.raises(UsageError, match="no style of this model answers"):
        solve_styles(np.zeros((4, 2)), FREE, Readings(np.eye(2)[:1], np.array([1.0])))
