"""Figures of edits as a judge reads them, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pair_sets import make_photos
from tiny import make_tiny_bundle

from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.face_reader import FaceReader
from sg3cli.training.people128.pair_data import PictureSet
from sg3cli.training.people128.read_scores import STRENGTHS, response, scores, smiling_share
from sg3cli.weights.bundle import load_model


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    torch.manual_seed(0)
    reader = FaceReader(EfficientNetLite(), ("age", "smile", "yaw"))
    reader.spread.copy_(torch.tensor([10.0, 0.5, 10.0]))
    reader.weight.copy_(torch.randn(reader.weight.shape))
    return reader


def test_figures_by_hand(reader: FaceReader) -> None:
    read = torch.zeros(5, 2, 3)
    read[:, 0, 0] = 40 + 15 * torch.tensor(STRENGTHS)
    read[:, 1, 0] = 40 + torch.tensor([-10.0, -20.0, 0.0, 5.0, 20.0])  # not all the way up
    read[3, :, 1] = torch.tensor([0.5, 0.0])
    read[3, :, 2] = -20.0
    table = response(read, reader, "age")
    assert table["at 1"] == 10.0 and table["at -2"] == -20.0 and table["rises"] == 0.5
    assert table["leak"] == pytest.approx(((0.5**2 + 2**2) / 2) ** 0.5)
    assert table["most: yaw"] == -2.0
    assert "at 0" not in table


def test_share_of_the_neutral_that_smile(reader: FaceReader) -> None:
    read = torch.zeros(5, 4, 3)
    read[3, :, 1] = torch.tensor([0.9, 0.1, 0.35, 0.9])
    assert smiling_share(read, reader, np.array([True, True, True, False]), 3) == pytest.approx(2 / 3)


def test_a_bundle_is_read(tmp_path: Path, reader: FaceReader) -> None:
    photos = PictureSet(make_photos(tmp_path / "photos"))
    table = scores(load_model(str(make_tiny_bundle(tmp_path / "tiny"))), reader, photos, np.arange(4))
    assert set(table) == {"age", "smile"}
    assert {"at -2", "at -1", "at 1", "at 2", "rises", "leak"} <= set(table["age"])
    assert table["age"]["at 2"] != 0
