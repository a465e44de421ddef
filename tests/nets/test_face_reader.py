"""Linear heads on a backbone: what they read, how they are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sg3cli.errors import ModelError
from sg3cli.nets.efficientnet_lite import LITE1, EfficientNetLite
from sg3cli.nets.face_reader import (
    CHANNELS,
    DIMENSION,
    GRID,
    FaceReader,
    at_size,
    describe,
    load_face_reader,
    save_face_reader,
)


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    torch.manual_seed(0)
    reader = FaceReader(EfficientNetLite(), ("age", "smile"), embedding=5)
    for buffer in (reader.mean, reader.weight, reader.bias, reader.projection):
        buffer.copy_(0.1 * torch.randn(buffer.shape))
    return reader


def test_described_is_where_and_how_strong(reader: FaceReader) -> None:
    x = torch.rand(2, 3, 128, 128) * 2 - 1
    described = describe(reader.net, x)
    assert described.shape == (2, DIMENSION)
    (first,) = reader.net.features(x, (1,))
    torch.testing.assert_close(described[:, : CHANNELS[0]], (first.square().mean((2, 3)) + 1e-8).sqrt())
    (second,) = reader.net.features(x, (2,))
    corner = second[:, :, : second.shape[2] // GRID, : second.shape[3] // GRID].mean((2, 3))
    placed = described[:, CHANNELS[0] : CHANNELS[0] + GRID * GRID * CHANNELS[1]].view(2, CHANNELS[1], GRID, GRID)
    torch.testing.assert_close(placed[:, :, 0, 0], corner)


def test_pictures_of_other_sizes_are_brought_to_its_own(reader: FaceReader) -> None:
    small = torch.rand(1, 3, 64, 64)
    assert at_size(small).shape == (1, 3, 128, 128)
    large = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(at_size(large), small.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert reader(small).shape == (1, 2)


def test_a_kept_reader_reads_the_same(reader: FaceReader, tmp_path: Path) -> None:
    save_face_reader(tmp_path / "reader.safetensors", reader, {"made": "here"})
    again = load_face_reader(tmp_path / "reader.safetensors", reader.net)
    x = torch.rand(2, 3, 128, 128) * 2 - 1
    assert again.names == reader.names
    torch.testing.assert_close(again(x), reader(x), rtol=0.02, atol=0.05)  # half precision
    embedded = again.embed(again.features(x))
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2))
    assert embedded.shape == (2, 5)


def test_another_backbone_is_refused_by_name(reader: FaceReader, tmp_path: Path) -> None:
    save_face_reader(tmp_path / "reader.safetensors", reader, {})
    with pytest.raises(ModelError, match="efficientnet-lite0, not efficientnet-lite1"):
        load_face_reader(tmp_path / "reader.safetensors", EfficientNetLite(LITE1))
    (tmp_path / "other.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match=r"other\.safetensors is not a face reader"):
        load_face_reader(tmp_path / "other.safetensors", reader.net)


def test_labels_go_by_name(reader: FaceReader) -> None:
    assert reader.column("smile") == 1
    with pytest.raises(KeyError):
        reader.column("hat")
