"""Sets as sources of captions: the held-out people of all are those of the largest; labels under one set of names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pair_sets import make_edits, make_photos

from sg3cli.training.people128.pair_data import PictureSet, first_held_out_person
from sg3cli.training.text import run
from sg3cli.training.text.facts import facts_of
from sg3cli.training.text.run import TextRunConfig, open_sources


def test_people_are_held_out_by_the_largest_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sg3cli.training.people128.pair_data.HELD_OUT_GROUPS", 1)
    many, few = make_photos(tmp_path / "many", 20), make_photos(tmp_path / "few", 10)
    first = first_held_out_person(PictureSet(many).identity)
    table = dict(np.load(few / "labels.npz"))
    table["identity"] = np.arange(first - 3, first + 7)
    np.savez(few / "labels.npz", **table)
    monkeypatch.setattr(run, "split_groups", lambda pictures: (np.array([10, 11]), np.array([12, 13])))
    edits, photos, others = open_sources([make_edits(tmp_path / "edits"), many, few], TextRunConfig())
    assert (len(edits), len(photos), len(others)) == (6, 18, 3)
    assert edits.facts["age"][:2].tolist() == [25.0, 65.0] and others.load(np.array([0, 2])).shape == (2, 3, 128, 128)
    (chosen,) = open_sources([many], TextRunConfig(pictures=5))
    assert len(chosen) == 5 and chosen.load(np.arange(5)).shape == (5, 3, 128, 128)


VALUES = {
    "hair_style": [1, 8, 4, 0], "hair_r": [20, 180, 140, 60], "hair_g": [20, 150, 140, 40],
    "hair_b": [20, 100, 138, 20],
    "skin_r": [90, 200, 150, 200], "skin_g": [70, 190, 140, 190], "skin_b": [60, 180, 130, 180],
}  # fmt: skip


class Renders:
    """Hair and skin of four renders: black, blond, grey; the last one bald."""

    group = np.arange(4)

    def column(self, name: str) -> np.ndarray:
        return np.array(VALUES.get(name, [np.nan] * 4), np.float32)


def test_hair_and_skin_have_names() -> None:
    facts = facts_of(Renders(), ("none", "short01", "x", "x", "bob01", "x", "x", "x", "long01"))  # type: ignore[arg-type]
    assert facts["bald"].tolist() == [0, 0, 0, 1] and facts["long_hair"].tolist() == [0, 1, 0, 0]
    for name, expected in (("black_hair", [1, 0, 0]), ("blond", [0, 1, 0]), ("grey_hair", [0, 0, 1])):
        assert facts[name][:3].tolist() == expected and np.isnan(facts[name][3]), name
    assert facts["skin_light"][0] < 0.4 < 0.6 < facts["skin_light"][1]
