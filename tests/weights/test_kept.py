"""What files say that they leave alone."""

from __future__ import annotations

import numpy as np
import pytest

from sg3cli.weights.bundle import load_model
from sg3cli.weights.direction_file import Direction
from sg3cli.weights.direction_tools import combined
from sg3cli.weights.kept import kept_by, kept_by_labels, said


@pytest.mark.parametrize("aspects", [[], ["hue"], ["shade"], ["hue", "shade", "eyes"]])
def test_what_is_said_is_read(aspects: list[str]) -> None:
    kept = frozenset(aspects)
    assert kept_by(said(kept)) == kept
    assert kept_by({}) == frozenset()


def test_attributes_keep_what_none_of_them_concerns() -> None:
    assert kept_by_labels(["age"]) == {"hue", "shade", "outside", "eyes", "nose", "mouth"}
    assert kept_by_labels(["age", "smile"]) == {"hue", "shade", "outside", "eyes"}  # a smile lifts the nose
    assert kept_by_labels(["age", "mouth_open"]) == {"hue", "outside"}  # a mouth that opens is dark
    assert kept_by_labels(["age", "beard"]) == kept_by_labels([]) == frozenset()


def test_a_sum_keeps_what_all_parts_keep() -> None:
    parts = [
        (Direction(n, np.ones((1, 4), np.float32), meta=said(k)), 1.0)
        for n, k in (("a", ["hue", "shade"]), ("b", ["hue"]))
    ]
    assert combined("both", parts).keeps == {"hue"}


def test_a_sum_does_to_skin_what_its_parts_do() -> None:
    older, other = (Direction(n, np.ones((1, 4), np.float32), meta={"skin": s}) for n, s in (("a", 0.3), ("b", 0.1)))
    assert combined("both", [(older, 2.0), (other, -1.0)]).skin == pytest.approx(0.5)
    for wrong in ("a lot", None, 7.0):
        assert Direction("c", np.ones((1, 4), np.float32), meta={"skin": wrong}).skin == 0.0


def test_the_embedded_model_s_years_and_smiles_have_no_shadows_deeper_than_the_face_s() -> None:
    directions = load_model("people-128").directions
    assert {name for name, one in directions.items() if "shade" in one.keeps} == {"age", "smile"}
    assert {name for name, one in directions.items() if "hue" in one.keeps} == {
        "age", "smile", "mouth-open", "eyes-closed", "gender",
    }  # fmt: skip
    assert {name for name, one in directions.items() if "eyes" in one.keeps} == {"age", "smile"}
    assert {name for name, one in directions.items() if "outside" not in one.keeps} == {
        "yaw", "pitch", "glasses", "beard",
    }  # fmt: skip
