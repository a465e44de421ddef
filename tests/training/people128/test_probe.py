"""Training of the attribute net."""

from __future__ import annotations

import numpy as np
import torch
from drawn_faces import COLUMNS, drawn_faces

from sg3cli.nets.attribute_net import AttributeNetConfig, load_attribute_net, perceptual_distance, save_attribute_net
from sg3cli.training.people128.probe import train_attribute_net


def test_an_attribute_net_learns_and_is_saved(tmp_path) -> None:
    faces = drawn_faces(48, size=64)
    run = list(train_attribute_net(faces, AttributeNetConfig(COLUMNS, 24, (8, 16, 16, 16), 8), steps=12, batch=16))
    losses, net = [loss for _, loss, _ in run], run[-1][2].eval()
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    save_attribute_net(tmp_path / "probe.safetensors", net)
    x = faces.batch(np.arange(4))
    assert torch.allclose(load_attribute_net(tmp_path / "probe.safetensors")(x)[0], net(x)[0], atol=0.02)
    assert torch.all(perceptual_distance(net, x, x) == 0) and torch.all(perceptual_distance(net, x + 0.3, x) > 0)
