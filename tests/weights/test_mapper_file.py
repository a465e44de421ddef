"""StyleCLIP's mapper checkpoints in miniature, read without running them; and our files told from directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_tiny_bundle

from sg3cli.errors import ModelError
from sg3cli.nets.checkpoint import load_mapper_file, save_mapper
from sg3cli.nets.latent_mapper import LatentMapper, MapperConfig
from sg3cli.weights.direction_file import load_direction
from sg3cli.weights.import_arrays import kind_of
from sg3cli.weights.mapper_file import mapper_file, read_official_mapper

W_DIM = 4
LEVELS = {"course_": slice(0, 5), "medium_": slice(5, 8), "fine_": slice(8, 16)}


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("ran",)


def checkpoint(levels: tuple[str, ...] = tuple(LEVELS), beside: str = "decoder.synthesis.L0_36_16.weight") -> dict:
    """What the published training writes; `""` is the mapper without levels."""
    rng = np.random.default_rng(3)
    state = {beside: torch.ones(2, 2)}
    for level in levels:
        for layer in range(1, 5):
            name = f"mapper.{level}mapping.mapping.{layer}"
            state[f"{name}.weight"] = torch.from_numpy(100 * rng.normal(size=(W_DIM, W_DIM)).astype(np.float32))
            state[f"{name}.bias"] = torch.from_numpy(100 * rng.normal(size=W_DIM).astype(np.float32))
    return {"state_dict": state, "opts": {"description": "an old face", "mapper_type": "LevelsMapper"}}


def saved(value: object, path: Path) -> Path:
    torch.save(value, path)
    return path


def published_step(state: dict[str, torch.Tensor], level: str, rows: np.ndarray) -> np.ndarray:
    """A tenth of the network of `level` on its rows `[n,W_DIM]` of one code; the norm goes over the rows."""
    x = rows / np.sqrt((rows**2).mean(0, keepdims=True) + 1e-8)
    for layer in range(1, 5):
        weight, bias = (state[f"mapper.{level}mapping.mapping.{layer}.{kind}"].numpy() for kind in ("weight", "bias"))
        x = x @ weight.T * (0.01 / 2) + 0.01 * bias  # 2: the root of W_DIM
        x = np.maximum(x, 0.2 * x) * 2**0.5
    return 0.1 * x


def test_a_published_checkpoint_gives_the_step_computed_by_hand(tmp_path: Path) -> None:
    value = checkpoint()
    path = saved(value, tmp_path / "best_model.pt")
    assert kind_of(path) == "mapper"
    net, said = read_official_mapper(path)
    ws = np.random.default_rng(0).normal(size=(16, W_DIM))
    wanted = np.concatenate([published_step(value["state_dict"], level, ws[rows]) for level, rows in LEVELS.items()])
    step = net(torch.from_numpy(ws).float()[None])[0].numpy()
    assert np.abs(wanted).max() > 0.05 and np.allclose(step, wanted, atol=1e-5)
    assert said == {"text": "an old face"}


def test_a_level_that_was_not_trained_and_a_mapper_without_levels(tmp_path: Path) -> None:
    ws = np.random.default_rng(1).normal(size=(16, W_DIM))
    some = checkpoint(("course_", "fine_"))
    step = read_official_mapper(saved(some, tmp_path / "some.pt"))[0](torch.from_numpy(ws).float()[None])[0].numpy()
    assert not step[5:8].any()
    assert np.allclose(step[8:], published_step(some["state_dict"], "fine_", ws[8:]), atol=1e-5)
    single = checkpoint(("",))
    step = read_official_mapper(saved(single, tmp_path / "one.pt"))[0](torch.from_numpy(ws).float()[None])[0].numpy()
    assert np.allclose(step, published_step(single["state_dict"], "", ws), atol=1e-5)


def test_what_is_no_mapper_of_stylegan3_is_refused_by_name(tmp_path: Path) -> None:
    missing, odd = checkpoint(), checkpoint()
    del missing["state_dict"]["mapper.fine_mapping.mapping.3.bias"]
    odd["state_dict"]["mapper.fine_mapping.mapping.2.weight"] = torch.ones(4, 5)
    nan = checkpoint()
    nan["state_dict"]["mapper.medium_mapping.mapping.2.bias"][1] = float("nan")
    for value, cause in (
        (checkpoint(beside="decoder.convs.0.conv.weight"), "StyleGAN2"),
        (missing, "bias of layer 3 of fine is missing"),
        (odd, r"layer 2 of fine has shape \(4, 5\)"),
        (nan, "layer 2 of medium is not finite"),
        (checkpoint((*LEVELS, "")), "overlap"),
        ({"state_dict": {"encoder.weight": torch.ones(2)}}, "no mapper"),
    ):
        with pytest.raises(ModelError, match=cause):
            read_official_mapper(saved(value, tmp_path / "wrong.pt"))
    hostile = checkpoint()
    hostile["opts"] = Hostile()
    with pytest.raises(ModelError, match="print"):
        read_official_mapper(saved(hostile, tmp_path / "hostile.pt"))


def test_our_file_is_told_from_a_direction_by_its_header(tmp_path: Path) -> None:
    net = LatentMapper(MapperConfig(8, 32, ((1, 8),), factor=0.2, norm="levels"))
    save_mapper(tmp_path / "old.safetensors", net, {"name": "old", "generator": "sha256:1", "hue": "kept"})
    found = mapper_file(tmp_path / "old.safetensors")
    assert found is not None and (found.name, found.num_ws, found.w_dim, found.keeps) == ("old", 8, 32, {"hue"})
    again, _ = load_mapper_file(tmp_path / "old.safetensors")
    assert again.config == net.config
    direction = make_tiny_bundle(tmp_path / "tiny") / "directions" / "age.safetensors"
    assert mapper_file(direction) is None
    with pytest.raises(ModelError, match="latent mapper, which has no one vector"):
        load_direction(tmp_path / "old.safetensors")
