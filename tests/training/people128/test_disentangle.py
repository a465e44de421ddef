"""Directions that hold the other labels: the algebra, and measured responses of a model that is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_faces import COLUMNS, drawn_faces
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_config, tiny_encoder

from sg3cli.nets.attribute_net import AttributeNet, AttributeNetConfig
from sg3cli.nets.generator import Generator
from sg3cli.training.people128.autoencoder import Autoencoder
from sg3cli.training.people128.conditions import make_conditions
from sg3cli.training.people128.disentangle import HELD, column_responses, disentangled_step, disentangled_vectors
from sg3cli.training.people128.label_directions import SPECS, direction_vectors


@given(st.integers(0, 2**20))
def test_without_a_ridge_the_target_is_met_and_a_heavy_one_leaves_the_labels_mix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    R, step, target = np.eye(5) + 0.2 * rng.uniform(-1, 1, (5, 5)), rng.normal(size=5), rng.normal(size=5)
    assert R @ disentangled_step(step, R, target, 1e-9) == pytest.approx(target, abs=1e-5)
    assert disentangled_step(step, R, target, 1e9) == pytest.approx(step, abs=1e-5)


@given(st.integers(0, 2**20), st.floats(1e-3, 10))
def test_no_other_mix_is_better(seed: int, ridge: float) -> None:
    rng = np.random.default_rng(seed)
    R, step, target = rng.normal(size=(6, 4)), rng.normal(size=4), rng.normal(size=6)

    def cost(a: np.ndarray) -> float:
        return float(np.sum((R @ a - target) ** 2) + ridge * np.sum((a - step) ** 2))

    best = disentangled_step(step, R, target, ridge)
    assert all(cost(best) <= cost(best + 0.1 * rng.normal(size=4)) for _ in range(8))


def test_a_leak_that_was_measured_is_taken_back() -> None:
    faces = drawn_faces()
    conditions = make_conditions(faces)
    M = torch.randn(64, len(conditions.names), generator=torch.Generator().manual_seed(0))
    yaw, smile = COLUMNS.index("yaw"), COLUMNS.index("smile")
    R = torch.zeros(len(COLUMNS) + len(HELD), len(conditions.names))
    for k, name in enumerate(COLUMNS):
        if name in conditions.names:
            R[k, conditions.index(name)] = 1
    as_labelled = disentangled_vectors(M, conditions, R, COLUMNS, ["yaw"], ridge=1e-6)["yaw"]
    assert torch.allclose(as_labelled, direction_vectors(M, conditions, ["yaw"])["yaw"], atol=1e-3)

    R[smile, conditions.index("yaw")] = 0.5  # turning makes this model smile
    mended = disentangled_vectors(M, conditions, R, COLUMNS, ["yaw"], ridge=1e-6)["yaw"]
    mix = torch.linalg.lstsq(M, mended[0][:, None]).solution[:, 0]
    response = R @ mix
    assert abs(float(response[smile])) < 1e-3 < float(response[yaw])
    assert float(mix[conditions.index("smile")]) == pytest.approx(-0.5 * float(mix[conditions.index("yaw")]), rel=1e-2)


def test_responses_are_those_of_the_columns_in_order() -> None:
    """A column that is nothing moves nothing; one turned round moves all the other way."""
    torch.manual_seed(0)
    faces = drawn_faces(8)
    config = tiny_config()
    net = Autoencoder(Generator(config), tiny_encoder(), 3).eval().requires_grad_(False)
    attribute_net = AttributeNet(AttributeNetConfig(COLUMNS, 4)).eval().requires_grad_(False)
    net.M[:, 1] = 0
    net.M[:, 0] = 100 * torch.randn(config.w_dim)  # untrained, it hardly answers to less
    net.M[:, 2] = -net.M[:, 0]
    R = column_responses(net, attribute_net, faces)
    assert R.shape == (len(COLUMNS) + len(HELD), 3) and float(R[:, 0].abs().max()) > 1e-5
    assert float(R[:, 1].abs().max()) == 0
    assert torch.allclose(R[:, 2], -R[:, 0], atol=1e-7)
    assert float(column_responses(net, attribute_net, faces, slice(1, 1)).abs().max()) == 0
    part = column_responses(net, attribute_net, faces, slice(1, 4))
    assert float(part[:, 0].abs().max()) > 0 and not torch.allclose(part[:, 0], R[:, 0], atol=1e-7)


def test_shapes_leave_the_place_and_the_colours_alone() -> None:
    assert SPECS["age"].layers(10) == slice(1, 7) and SPECS["yaw"].layers(16) == slice(1, 11)
    assert SPECS["hair-light"].layers(10) == SPECS["beard"].layers(10) == slice(1, 10)
