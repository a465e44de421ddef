"""Captions say what is the case, exchanged ones what is not, and the table of a batch knows which is which."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.training.text.captions import Captioner
from sg3cli.training.text.phrases import AXES, STATES, age_states, all_states

FACTS = {
    "age": np.array([25.0, 70.0, np.nan, 46.0]),
    "male": np.array([0.0, 1.0, 1.0, 0.5]),
    "glasses": np.array([0.0, 1.0, np.nan, 0.35]),
}


@pytest.fixture
def captions() -> Captioner:
    return Captioner(FACTS)


def state_of(captions: Captioner, phrase: str) -> int:
    for k, state in enumerate(captions.states):
        if phrase in (*state.before, *state.nouns, *state.with_, *state.after):
            return k
    raise AssertionError(phrase)


def test_states_hold_by_their_labels_and_between_the_margins_nothing_is_said(captions: Captioner) -> None:
    table = {p: captions.holds[:, state_of(captions, p)].tolist() for p in ("young", "old", "woman", "man")}
    assert table == {"young": [1, -1, 0, -1], "old": [-1, 1, 0, -1], "woman": [1, -1, -1, 0], "man": [-1, 1, 1, 0]}
    assert captions.holds[:, state_of(captions, "wearing glasses")].tolist() == [-1, 1, 0, 0]
    assert captions.holds[:, state_of(captions, "without glasses")].tolist() == [1, -1, 0, 0]
    assert captions.holds[:, state_of(captions, "70 years old")].tolist() == [-1, 1, 0, -1]
    assert captions.holds[:, state_of(captions, "in her twenties")].tolist() == [1, -1, 0, -1]


def test_a_caption_fits_where_all_holds_and_not_where_anything_does_not(captions: Captioner) -> None:
    old, man = state_of(captions, "old"), state_of(captions, "man")
    fits = captions.fits(np.arange(4), [[old], [old, man], []])
    assert fits.T.tolist() == [[-1, 1, 0, -1], [-1, 1, 0, -1], [1, 1, 1, 1]]


def test_own_captions_hold_and_exchanged_ones_do_not(captions: Captioner) -> None:
    rng = np.random.default_rng(0)
    for row in [0, 1] * 40:
        said = captions.said_of(row, rng)
        wrong = captions.changed(said, row, rng)
        assert captions.fits(np.array([row]), [said])[0, 0] == 1
        assert len({captions.labels[k] for k in said}) == len(said)
        if said:
            assert sum(a != b for a, b in zip(said, wrong, strict=True)) == 1
            assert captions.fits(np.array([row]), [wrong])[0, 0] == -1


def test_the_words_of_every_state_are_in_its_sentence(captions: Captioner) -> None:
    rng = np.random.default_rng(1)
    for row in [0, 1] * 30:
        said = captions.said_of(row, rng)
        text = captions.sentence(said, rng)
        for state in (captions.states[k] for k in said):
            phrases = (*state.before, *state.nouns, *state.with_, *state.after)
            assert any(phrase in text for phrase in phrases), text


def test_each_kind_of_picture_is_drawn_as_often_where_it_has_the_state() -> None:
    facts = {"glasses": np.array([1.0] * 99 + [0.0] * 99 + [1.0, 0.0])}
    kinds = np.array([0] * 198 + [1, 1])
    rows = Captioner(facts, kinds).draw_rows(400, np.random.default_rng(0))
    assert 150 < np.isin(rows, [198, 199]).sum() < 250


def test_ages_and_opposites_are_where_they_belong() -> None:
    assert {state.label for state in age_states()} == {"age"} and len(all_states()) == len(STATES) + len(age_states())
    right, left = (next(s for s in STATES if f"turned to the {side}" in s.after) for side in ("right", "left"))
    assert right.low > 0 > left.high  # yaw above 0 turns to the right of the picture
    down = next(s for s in STATES if "looking down" in s.after)
    assert down.low > 0 and set(AXES) <= {state.label for state in STATES}
