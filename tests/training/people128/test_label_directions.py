"""Directions from the label matrix: what they move, and that the editor reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_faces import drawn_faces
from safetensors.numpy import load_file

from sg3cli.training.people128.conditions import make_conditions
from sg3cli.training.people128.label_directions import (
    SPECS,
    DirectionSpec,
    direction_vectors,
    label_step,
    regress_codes,
    save_directions,
)
from sg3cli.weights.direction_file import load_direction


def test_a_direction_takes_along_what_follows_its_label() -> None:
    conditions = make_conditions(drawn_faces(400), shapes=2)
    step = label_step(conditions, DirectionSpec("age", 2.0, "", {"wrinkles": 0.5}))
    assert step[conditions.index("age")] == pytest.approx(2 / conditions.std[conditions.index("age")])
    assert step[conditions.index("wrinkles")] == pytest.approx(0.5 * step[conditions.index("age")], rel=0.1)
    assert not step[conditions.index("smile")]


def test_regression_finds_the_label_matrix() -> None:
    conditions = make_conditions(drawn_faces(400), shapes=2)
    M = torch.randn(16, len(conditions.names), generator=torch.Generator().manual_seed(0))
    codes = torch.from_numpy(conditions.vectors) @ M.T + 3
    found, explained = regress_codes(codes, conditions)
    smile = conditions.index("smile")
    assert torch.cosine_similarity(found[:, smile], M[:, smile], 0) > 0.99 and explained > 0.99


def test_saved_directions_are_read_by_the_editor(tmp_path) -> None:
    conditions = make_conditions(drawn_faces(60), shapes=2)
    vectors = direction_vectors(torch.ones(8, len(conditions.names)), conditions, ("age", "smile"))
    save_directions(tmp_path, vectors, "sha256:x", {"age": 1.2, "smile": 1.0})
    loaded = load_direction(tmp_path / "age.safetensors")
    assert loaded.generator == "sha256:x" and loaded.meta["aim"] == SPECS["age"].means
    assert np.allclose(loaded.vector, vectors["age"].numpy())
    layered = torch.arange(12.0).view(3, 4)
    save_directions(tmp_path, {"smile": layered}, "sha256:x", {"smile": 1.0})
    assert load_file(tmp_path / "smile.safetensors")["direction"].shape == (3, 4)
    assert np.array_equal(load_direction(tmp_path / "smile.safetensors").vector, layered.numpy())
