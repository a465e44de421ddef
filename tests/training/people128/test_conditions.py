"""Conditions made of labels."""

from __future__ import annotations

import numpy as np
from drawn_faces import drawn_faces

from sg3cli.training.people128.conditions import FARTHEST, make_conditions


def test_conditions_are_standardised_and_bounded() -> None:
    conditions = make_conditions(drawn_faces(400), shapes=2)
    inside = conditions.vectors[:, conditions.index("smile")]
    assert abs(inside.mean()) < 0.05 and abs(inside.std() - 1) < 0.05
    assert np.abs(conditions.vectors).max() <= FARTHEST
    assert {"hair_style_2", "gaze_x", "shape_1"} <= set(conditions.names) and "hair_style" not in conditions.names
