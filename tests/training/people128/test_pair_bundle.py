"""A bundle from a run on pairs: what it holds, what its directions are, and that another run can start from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pair_sets import make_edits, make_photos
from tiny import tiny_encoder, tiny_generator

from sg3cli.errors import ModelError
from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.face_reader import FaceReader, load_face_reader
from sg3cli.training.people128.pair_bundle import SHIPPED, Sources, directions_of, write_pair_bundle
from sg3cli.training.people128.pair_data import ATTRIBUTES, PictureSet
from sg3cli.training.people128.pair_net import PairNet, load_start
from sg3cli.training.people128.read_edits import READABLE, ReadConfig
from sg3cli.weights.bundle import READER, load_model


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Tiny sets, a reader of noise."""
    torch.manual_seed(0)
    reader = FaceReader(EfficientNetLite(), (*(r.label for r in READABLE.values()), "brow_raise", "makeup"))
    reader.weight.copy_(torch.randn(reader.weight.shape))
    (tmp_path / "probe.safetensors").write_bytes(b"as it is")
    photos = PictureSet(make_photos(tmp_path / "photos", people=40))
    edits = PictureSet(make_edits(tmp_path / "edits", groups=90))
    config = ReadConfig(steps=8, edits_per_step=2, shift=1)
    return Sources(photos, edits, reader, tmp_path / "probe.safetensors", config)


def test_a_bundle_holds_its_parts_and_starts_another_run(sources: Sources, tmp_path: Path) -> None:
    torch.manual_seed(0)
    G = tiny_generator()
    net = PairNet(G, tiny_encoder(), torch.randn(len(ATTRIBUTES), G.num_ws, G.w_dim)).eval()
    start = G.mapping.w_avg.clone()
    vectors = write_pair_bundle(tmp_path / "model", net, sources, {"steps": 3})
    model = load_model(tmp_path / "model")
    assert set(model.directions) == set(SHIPPED) == set(vectors)
    torch.testing.assert_close(model.generator().mapping.w_avg, start, atol=1e-3, rtol=1e-3)  # inversion begins there
    glasses = model.directions["glasses"]
    assert glasses.range == SHIPPED["glasses"].range and glasses.generator == model.digest and glasses.does
    assert model.directions["gender"].vector[1:].any() and not model.directions["gender"].vector[0].any()
    trained = (net.directions * net.free).detach().numpy()[list(ATTRIBUTES).index("glasses")]
    np.testing.assert_allclose(glasses.vector, SHIPPED["glasses"].factor * trained, atol=1e-5)
    meta = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf8"))
    assert meta["training"]["steps"] == 3 and any("CC BY 4.0" in credit for credit in meta["credits"])
    assert load_face_reader(tmp_path / "model" / READER, sources.reader.net).names == sources.reader.names
    parts = {path.relative_to(model.path).as_posix() for path in model.path.rglob("*.safetensors")}
    assert set(meta["parts"]) == parts and len(parts) == len(SHIPPED) + 5
    again = load_start(tmp_path / "model", 0)
    torch.testing.assert_close(again.directions, net.directions, atol=5e-3, rtol=1e-2)


def test_age_takes_what_pairs_taught_beside_what_a_reader_sees() -> None:
    G = tiny_generator()
    net = PairNet(G, tiny_encoder(), torch.randn(len(ATTRIBUTES), G.num_ws, G.w_dim)).eval()
    read = {name: torch.randn(G.num_ws, G.w_dim) for name in READABLE}
    found, age = directions_of(net, read), SHIPPED["age"]
    pairs = (net.directions * net.free).detach().numpy()[list(ATTRIBUTES).index("age")]
    np.testing.assert_allclose(found["age"], age.factor * read["age"].numpy() + age.taught * pairs, atol=1e-5)
    np.testing.assert_allclose(found["smile"], SHIPPED["smile"].factor * read["smile"].numpy(), atol=1e-5)
    assert age.taught and not SHIPPED["smile"].taught


def test_a_part_of_a_trained_bundle_that_is_damaged_is_named(sources: Sources, tmp_path: Path) -> None:
    G = tiny_generator()
    net = PairNet(G, tiny_encoder(), torch.zeros(len(ATTRIBUTES), G.num_ws, G.w_dim)).eval()
    write_pair_bundle(tmp_path / "model", net, sources, {})
    reads = {
        "generator.safetensors": lambda model: model.generator(),
        "encoder.safetensors": lambda model: model.encoder(),
        "directions/smile.safetensors": lambda model: model.directions["smile"],
        "probe.safetensors": lambda model: model.checked("probe.safetensors"),
    }
    for name, read in reads.items():
        file = tmp_path / "model" / name
        whole = file.read_bytes()
        read(load_model(tmp_path / "model"))
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # a number, not the file's form
        with pytest.raises(ModelError, match=f"{name} is damaged"):
            read(load_model(tmp_path / "model"))
        file.write_bytes(whole)


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
