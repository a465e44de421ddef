"""The coarse init of generator and label matrix."""

from __future__ import annotations

import numpy as np
import torch
from drawn_faces import drawn_faces
from tiny import tiny_config

from sg3cli.training.people128.coarse_init import run_coarse_init
from sg3cli.training.people128.conditions import make_conditions


def test_the_coarse_init_teaches_the_labels() -> None:
    faces = drawn_faces(48, size=64)
    conditions = make_conditions(faces, shapes=2)
    torch.manual_seed(0)
    from sg3cli.nets.generator import Generator
    from sg3cli.training.people128.autoencoder import label_matrix

    G = Generator(tiny_config(img_resolution=64))
    M = label_matrix(G.w_dim, len(conditions.names))
    before = M.detach().clone()
    losses = list(run_coarse_init(G, M, faces, conditions, steps=20, batch=8))
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4]) and not torch.equal(M, before)
