"""Training of generator and encoder together, on a handful of drawn faces and tiny networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_faces import drawn_faces
from tiny import tiny_config, tiny_encoder

from sg3cli.training.people128.autoencoder import (
    AutoencoderConfig,
    AutoencoderTrainer,
    face_weight,
    feature_weight,
    pixel_loss,
)
from sg3cli.training.people128.conditions import make_conditions


def test_the_face_weighs_more_than_the_corner() -> None:
    weight = face_weight(32)[0, 0]
    assert weight.mean() == pytest.approx(1.0, abs=1e-5) and weight[17, 16] > 3 * weight[0, 0]
    x = torch.zeros(1, 3, 32, 32)
    assert pixel_loss(x, x, face_weight(32)) == 0 and pixel_loss(x + 0.1, x, face_weight(32)) > 0.2


def make_trainer(steps: int = 6) -> AutoencoderTrainer:
    faces = drawn_faces()
    G, encoder = tiny_config(), tiny_encoder().config
    config = AutoencoderConfig(steps=steps, batch=4, encoded=8, warmup=2, second_pass_from=0.3, second_pass_share=0.7)
    return AutoencoderTrainer(faces, make_conditions(faces, shapes=2), None, config, G, replace(encoder, kind="e4e"))


def test_training_continues_exactly_where_it_stopped() -> None:
    whole, first = make_trainer(), make_trainer()
    logs = list(whole.run())
    list(first.run(until=3))
    second = make_trainer()
    second.restore(first.state())
    list(second.run())
    assert all(np.isfinite(list(log.values())).all() for log in logs) and second.now == 6
    for ours, theirs in zip(second.ema.state_dict().values(), whole.ema.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_training_lowers_the_loss() -> None:
    logs = [log["pixel"] for log in make_trainer(steps=30).run()]
    assert np.mean(logs[-5:]) < 0.8 * np.mean(logs[:5])


def test_bfloat16_is_used_on_request_only_and_changes_little() -> None:
    plain, half = make_trainer(), make_trainer()
    half.use_bf16()
    a, b = next(plain.run())["pixel"], next(half.run())["pixel"]
    assert a != b and abs(a - b) < 0.02 * a
    assert {p.dtype for p in half.ema.parameters()} == {torch.float32}


def test_feature_weight_is_one_at_the_mouth_and_nothing_at_the_corners() -> None:
    landmarks = torch.full((2, 68, 2), 10.0)
    landmarks[0, 48:68] = torch.tensor([20.5, 25.5])
    weight = feature_weight(landmarks, 32)
    assert weight.shape == (2, 1, 32, 32) and weight.max() <= 1
    assert weight[0, 0, 25, 20] > 0.999 and weight[1, 0, 25, 20] < 1e-3  # row is y, column is x
    assert weight[:, :, -1, 0].max() < 1e-6
