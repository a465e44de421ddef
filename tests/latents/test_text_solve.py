"""Moves solved for a text: what is asked for comes, what is held stays, the effective ones go first."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.errors import UsageError
from sg3cli.latents.text_solve import Readings, solve_moves

# what four moves do to two readings: the first moves both, the second only the held one, the third the text alone
EFFECTS = np.array([[1.0, 1.0], [0.0, 0.5], [0.2, 0.0], [0.0, 0.0]])


def test_what_is_held_stays_and_the_text_rises_by_one() -> None:
    shares = solve_moves(EFFECTS, Readings(np.eye(2), np.array([1.0, 0.0])), price=1e-9)
    assert shares @ EFFECTS == pytest.approx([1.0, 0.0], abs=1e-5) and shares[1] < 0 < shares[0] and shares[3] == 0
    alone = solve_moves(EFFECTS, Readings(np.eye(2)[:1], np.array([1.0])), price=1e-9)
    assert alone[1] == 0 and (alone @ EFFECTS)[0] == pytest.approx(1) and (alone @ EFFECTS)[1] > 0.5


def test_named_labels_rise_and_fall_as_the_text_says() -> None:
    shares = solve_moves(EFFECTS, Readings(np.eye(2), np.array([1.0, -1.0])), price=1e-9)
    assert shares @ EFFECTS == pytest.approx([1.0, -1.0], abs=1e-5)


def test_readings_count_in_deviations_and_large_moves_cost() -> None:
    """The move that does most of it with least is taken most; twice the spread of a reading is twice the change."""
    text = Readings(np.eye(2)[:1], np.array([1.0]))
    plain = solve_moves(EFFECTS, text)
    assert plain[0] == pytest.approx(5 * plain[2], rel=1e-6)
    wide = solve_moves(EFFECTS, Readings(np.eye(2)[:1] / 2, np.array([1.0])))
    assert wide == pytest.approx(2 * plain, rel=1e-6)
    held = Readings(np.eye(2), np.array([1.0, 0.0]))
    leaks = [abs((solve_moves(EFFECTS, held, price) @ EFFECTS)[1]) for price in (1e-6, 0.05, 1.0)]
    assert leaks[0] < leaks[1] < leaks[2]


def test_a_text_that_nothing_answers_to_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing that this model can do answers"):
        solve_moves(np.zeros((4, 2)), Readings(np.eye(2)[:1], np.array([1.0])))
    with pytest.raises(UsageError, match="cannot be told from"):  # the held reading is the same one
        solve_moves(EFFECTS[:1], Readings(np.eye(2), np.array([0.0, 0.0])))
