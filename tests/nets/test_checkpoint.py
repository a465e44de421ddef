"""Network files: what is saved comes back, and bad files are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import make_tiny_bundle, tiny_encoder, tiny_generator

from sg3cli.errors import InputError, ModelError
from sg3cli.files import digest_of
from sg3cli.nets.checkpoint import load_encoder_file, load_generator_file, save_encoder, save_generator
from sg3cli.weights.bundle import load_model


def test_generator_comes_back_exactly(tmp_path: Path) -> None:
    G = tiny_generator()
    G.synthesis.layers()[2].magnitude_ema.fill_(0.3)
    save_generator(tmp_path / "g.safetensors", G, {"source": "test"})
    back, meta = load_generator_file(tmp_path / "g.safetensors")
    assert meta == {"source": "test"} and back.config == G.config and not back.training
    assert back.state_dict().keys() == G.state_dict().keys()
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in G.state_dict().items())


def test_designed_filters_are_not_stored_but_changed_ones_are(tmp_path: Path) -> None:
    G = tiny_generator()
    name = G.layer_names[1]
    G.synthesis.layers()[1].down_filter.mul_(0.5)
    save_generator(tmp_path / "g.safetensors", G)
    stored = [k for k in load_file(tmp_path / "g.safetensors") if k.endswith("_filter")]
    assert stored == [f"synthesis.{name}.down_filter"]
    back, _ = load_generator_file(tmp_path / "g.safetensors")
    assert torch.equal(back.synthesis.layers()[1].down_filter, G.synthesis.layers()[1].down_filter)


def test_half_precision_keeps_buffers(tmp_path: Path) -> None:
    G = tiny_generator()
    with torch.no_grad():
        G.mapping.fc0.weight[0, 0] = 1e6  # not a float16
    save_generator(tmp_path / "half.safetensors", G, dtype=torch.float16)
    stored = load_file(tmp_path / "half.safetensors")
    name = f"synthesis.{G.layer_names[0]}"
    assert stored[f"{name}.weight"].dtype == torch.float16
    assert stored["mapping.fc0.weight"].dtype == torch.float32
    for key in ("mapping.w_avg", "synthesis.input.freqs", "synthesis.input.phases", f"{name}.magnitude_ema"):
        assert stored[key].dtype == torch.float32 and torch.equal(stored[key], G.state_dict()[key])
    back, _ = load_generator_file(tmp_path / "half.safetensors")
    assert {p.dtype for p in back.parameters()} == {torch.float32}
    ws = G.mapping.w_avg.expand(1, G.num_ws, -1)
    assert torch.allclose(back.synthesis(ws), G.synthesis(ws), atol=2e-3)


def test_encoder_comes_back_exactly(tmp_path: Path) -> None:
    encoder = tiny_encoder()
    save_encoder(tmp_path / "e.safetensors", encoder, {"epoch": 3})
    back, meta = load_encoder_file(tmp_path / "e.safetensors")
    assert meta == {"epoch": 3} and back.config == encoder.config
    assert all(torch.equal(v, back.state_dict()[k]) for k, v in encoder.state_dict().items())


def test_the_same_network_is_the_same_file(tmp_path: Path) -> None:
    first, second = make_tiny_bundle(tmp_path / "a"), make_tiny_bundle(tmp_path / "b")
    for part in ("generator.safetensors", "encoder.safetensors", "directions/age.safetensors"):
        assert digest_of(first / part) == digest_of(second / part)
    assert digest_of(first / "generator.safetensors").startswith("sha256:")


def test_tiny_bundle_is_a_bundle(tmp_path: Path) -> None:
    bundle = load_model(make_tiny_bundle(tmp_path / "tiny"))
    assert bundle.direction_names() == ["age", "smile"]
    G = bundle.generator()
    assert bundle.encoder().config.num_ws == G.num_ws == 8
    with safe_open(bundle.direction_path("age"), framework="pt") as f:
        direction = f.get_tensor("direction")
        assert bundle.digest in f.metadata()["sg3"]
    assert direction.shape == (8, 32) and torch.allclose(direction.norm(dim=1), torch.ones(8))


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no generator at"):
        load_generator_file(tmp_path / "absent.safetensors")
    (tmp_path / "noise.safetensors").write_bytes(b"\x80\x04 not safetensors at all")
    with pytest.raises(ModelError, match="damaged"):
        load_generator_file(tmp_path / "noise.safetensors")
    save_encoder(tmp_path / "e.safetensors", tiny_encoder())
    with pytest.raises(ModelError, match="is not a generator"):
        load_generator_file(tmp_path / "e.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ModelError, match="is not an encoder"):
        load_encoder_file(tmp_path / "foreign.safetensors")


@pytest.mark.parametrize("change", ["drop", "shape", "extra"])
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, change: str) -> None:
    path = tmp_path / "g.safetensors"
    save_generator(path, tiny_generator())
    with safe_open(path, framework="pt") as f:
        header = f.metadata()
    state = load_file(path)
    if change == "drop":
        del state["mapping.w_avg"]
    elif change == "shape":
        state["mapping.w_avg"] = torch.zeros(5)
    else:
        state["mapping.w_avg2"] = torch.zeros(5)
    save_file(state, path, metadata=header)
    with pytest.raises(ModelError, match="w_avg"):
        load_generator_file(path)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_generator(path, tiny_generator())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match="damaged"):
        load_generator_file(path)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    save_generator(path, tiny_generator())
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_generator(path, tiny_generator(seed=1), {"bad": object()})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot write"):
        save_generator(tmp_path / "no" / "folder.safetensors", tiny_generator())
