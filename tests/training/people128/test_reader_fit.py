"""Heads in closed form: known maps are found, people come apart, labels of photographs and renders have one scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pair_sets import make_edits, make_photos

from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.face_reader import load_face_reader
from sg3cli.training.people128 import reader_fit
from sg3cli.training.people128.pair_data import PictureSet, split_groups
from sg3cli.training.people128.reader_fit import VIEWS, auc, look, people_apart, ridge_heads, verification_auc
from sg3cli.training.people128.reader_labels import reader_labels


def test_a_linear_map_is_found_from_what_is_known() -> None:
    rng = np.random.default_rng(0)
    x, true = rng.standard_normal((300, 6)), rng.standard_normal((6, 2))
    labels = x @ true + [4.0, -1.0]
    labels[:150, 1] = np.nan
    labels[0, 0] = 1e6  # a wrong label
    weight = np.ones(300)
    weight[0] = 0
    heads, bias = ridge_heads(x, labels, weight, 1e-9)
    np.testing.assert_allclose(heads, true, atol=1e-5)
    np.testing.assert_allclose(bias, [4.0, -1.0], atol=1e-5)


def test_people_come_apart_where_their_pictures_agree() -> None:
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(40), 5)
    z = 3 * rng.standard_normal((200, 12))  # loud, and says nothing
    z[:, :3] = rng.standard_normal((40, 3))[person] + 0.1 * rng.standard_normal((200, 3))
    projection = people_apart(torch.from_numpy(z).float(), person).numpy()
    embedded = z @ projection[:, :3]
    embedded /= np.linalg.norm(embedded, axis=1, keepdims=True)
    found, count = verification_auc(embedded, person)
    assert count == 40 * 10 and found > 0.97
    assert verification_auc(z / np.linalg.norm(z, axis=1, keepdims=True), person)[0] < 0.8


def test_areas_by_hand() -> None:
    values = np.array([3.0, 1.0, 2.0, 0.0])
    assert auc(values, np.array([1, 0, 1, 0], bool), np.array([0, 1, 0, 1], bool)) == 1.0
    assert auc(values, np.array([1, 1, 0, 0], bool), np.array([0, 0, 1, 1], bool)) == 0.75
    assert np.isnan(auc(values, np.zeros(4, bool), np.ones(4, bool)))


def test_labels_of_photographs_are_on_the_scale_of_renders(tmp_path: Path) -> None:
    photos, edits = PictureSet(make_photos(tmp_path / "photos")), PictureSet(make_edits(tmp_path / "edits"))
    photos.columns = (*photos.columns, "mouth_corner_lift", "eye_open_left", "eye_open_right", "sex")
    known = np.array([[0.01, 0.3, 0.3, 0.0], [0.055, 0.1, 0.1, 1.0]] * 5, np.float32)
    photos.labels = np.concatenate([photos.labels, known], 1)
    labels = reader_labels(photos)
    np.testing.assert_allclose(labels["smile"][:2], [0.0, 0.6], atol=1e-6)
    np.testing.assert_array_equal(labels["eyes_closed"][:2], [0.0, np.nan])  # half shut or small: not known
    np.testing.assert_array_equal(labels["beard"][:2], [0.0, np.nan])
    assert np.isnan(labels["glasses"]).all()
    assert list(reader_labels(edits)) == list(labels)
    assert reader_labels(edits)["eyes_closed"].max() == 1.0


def test_a_reader_is_fitted_scored_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(reader_fit, "load_efficientnet_lite", lambda path, config: EfficientNetLite(config))
    monkeypatch.setattr(reader_fit, "split_groups", lambda edits: split_groups(edits, held_out=2))
    make_photos(tmp_path / "photos", people=30)
    make_edits(tmp_path / "edits", groups=8)
    reader_fit.main([
        "--photos", str(tmp_path / "photos"), "--edits", str(tmp_path / "edits"), "--backbone", str(tmp_path),
        "--renders", "12", "--out", str(tmp_path / "reader.safetensors"),
    ])  # fmt: skip
    reader = load_face_reader(tmp_path / "reader.safetensors", EfficientNetLite())
    assert reader.names[0] == "age" and reader.weight.abs().max() > 0


def test_what_is_mirrored_turns_the_other_way(tmp_path: Path) -> None:
    edits = PictureSet(make_edits(tmp_path / "edits"))
    torch.manual_seed(0)
    seen = look(EfficientNetLite(), edits, np.arange(3))
    yaw, age = list(reader_labels(edits)).index("yaw"), 0
    plain, mirrored = (seen.view == k for k in (0, [n for n, _ in VIEWS].index("mirrored")))
    np.testing.assert_array_equal(seen.labels[mirrored, yaw], -seen.labels[plain, yaw])
    np.testing.assert_array_equal(seen.labels[mirrored, age], seen.labels[plain, age])
    assert np.abs(seen.features[mirrored] - seen.features[plain]).max() > 1e-4
