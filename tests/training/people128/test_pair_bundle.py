"""A bundle from a run on pairs: what it holds, what its directions are, and that another run can start from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_sets import _write
from tiny import tiny_encoder, tiny_generator

from sg3cli.training.people128.pair_bundle import SHIPPED, hair_levels, photo_difference, write_pair_bundle
from sg3cli.training.people128.pair_data import ATTRIBUTES, PictureSet
from sg3cli.training.people128.pair_net import PairNet, load_start
from sg3cli.training.people128.photo_directions import COVARIATES
from sg3cli.weights.bundle import load_model

COLUMNS = ("age", "sex", "source", *(name for name in COVARIATES if name != "sex"))


@pytest.fixture
def photos(tmp_path: Path) -> PictureSet:
    """Sixty noisy pictures of sixty people; every label is drawn on its own."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (60, 32, 32, 3)).astype(np.uint8)
    labels = rng.normal(size=(60, len(COLUMNS))).astype(np.float32)
    labels[:, 0] = rng.uniform(20, 70, 60)
    labels[:, 1] = np.arange(60) % 2
    labels[:, 2] = np.arange(60) % 3
    folder = _write(tmp_path / "photos", pictures, columns=np.array(COLUMNS), labels=labels, identity=np.arange(60))
    return PictureSet(folder)


def test_a_difference_of_photographs_is_the_label_s_own_and_leaves_the_first_code(photos: PictureSet) -> None:
    """Codes that move with age and with luminance: only what age does by itself is found."""
    age, light = photos.column("age"), photos.column("luminance")
    effect, other = np.random.default_rng(1).normal(size=(2, 4, 8)).astype(np.float32)
    codes = age[:, None, None] * effect + light[:, None, None] * other
    found = photo_difference(photos, np.arange(60), codes, "age")
    np.testing.assert_allclose(found[1:], effect[1:], atol=0.02)
    assert not found[0].any()


def test_hair_is_read_where_it_is(photos: PictureSet) -> None:
    levels = hair_levels(photos, np.arange(4))
    assert levels.shape[0] == 4 and levels.min() >= 0 and levels.max() <= 1


def test_a_bundle_holds_its_parts_and_starts_another_run(photos: PictureSet, tmp_path: Path) -> None:
    torch.manual_seed(0)
    G = tiny_generator()
    net = PairNet(G, tiny_encoder(), torch.randn(len(ATTRIBUTES), G.num_ws, G.w_dim)).eval()
    (tmp_path / "probe.safetensors").write_bytes(b"as it is")
    start = G.mapping.w_avg.clone()
    vectors = write_pair_bundle(tmp_path / "model", net, photos, tmp_path / "probe.safetensors", {"steps": 3})
    model = load_model(tmp_path / "model")
    assert set(model.directions) == set(SHIPPED) == set(vectors)
    torch.testing.assert_close(model.generator().mapping.w_avg, start, atol=1e-3, rtol=1e-3)  # inversion begins there
    glasses = model.directions["glasses"]
    assert glasses.range == SHIPPED["glasses"].range and glasses.generator == model.digest and glasses.does
    trained = (net.directions * net.free).detach().numpy()[list(ATTRIBUTES).index("glasses")]
    np.testing.assert_allclose(glasses.vector, SHIPPED["glasses"].factor * trained, atol=1e-5)
    meta = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf8"))
    assert meta["training"]["steps"] == 3 and any("CC BY 4.0" in credit for credit in meta["credits"])
    again = load_start(tmp_path / "model", 0)
    torch.testing.assert_close(again.directions, net.directions, atol=5e-3, rtol=1e-2)


def test_the_embedded_model_s_directions_say_what_they_do_and_only_pose_moves_the_picture() -> None:
    model = load_model("people-128")
    assert set(model.directions) == set(SHIPPED)
    for name, direction in model.directions.items():
        moved = np.abs(direction.vector).max(1) > 0
        assert direction.vector.shape == (10, 256) and moved[1:].all()
        assert moved[0] == (name in ("yaw", "pitch"))
        assert direction.does == SHIPPED[name].aim and direction.range == SHIPPED[name].range
        assert direction.generator == model.digest
    assert model.meta["name"] == "people-128" and any("CC BY 4.0" in credit for credit in model.meta["credits"])
