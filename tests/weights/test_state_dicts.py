"""State dicts as training loops leave them: prefixes, other settings, things beside the weights; and other files."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_files import GOLDEN, generator_state, golden_json, save_encoder_checkpoint
from running import SHARED
from tiny import tiny_config

from sg3cli.errors import ModelError
from sg3cli.nets.generator import Generator
from sg3cli.weights.import_networks import GeneratorPart, read_official
from sg3cli.weights.state_prefixes import generator_of, unwrapped

State = OrderedDict[str, torch.Tensor]


def imported(path: Path, value: Any, **given: Any) -> GeneratorPart:
    torch.save(value, path)
    part = read_official(path, given).generator
    assert part is not None
    return part


def under(prefix: str, state: dict[str, Any]) -> State:
    return OrderedDict((prefix + name, value) for name, value in state.items())


# ---- prefixes


WRAPPED: dict[str, Callable[[State], Any]] = {
    "distributed": lambda state: under("module.", state),
    "averaged": lambda state: {**under("module.", state), "n_averaged": torch.tensor(12)},
    "compiled": lambda state: under("_orig_mod.", state),
    "both": lambda state: under("module._orig_mod.", state),
    "inside": lambda state: OrderedDict((k.replace("synthesis.", "synthesis._orig_mod."), v) for k, v in state.items()),
    "under a name": lambda state: {"G_ema": under("module.", state), "step": 3},
    "in the names": lambda state: under("G_ema.", state),
    "of two": lambda state: {**under("G.", {k: v + 1 for k, v in state.items()}), **under("G_ema.", state)},
    "a decoder": lambda state: under("decoder.", state),
    "a lightning module": lambda state: {"state_dict": under("generator.", state), "epoch": 2},
    "wrapped checkpoint": lambda state: {"state_dict": under("module.decoder.", state), "opts": {}},
    "with options": lambda state: {"g_ema": state, "args": argparse.Namespace(lr=0.002, size=32)},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_generators_are_found_whatever_stands_before_their_names(kind: str, tmp_path: Path) -> None:
    state = generator_state()
    part = imported(tmp_path / "a.pt", WRAPPED[kind](state))
    assert list(part.state) == list(state)
    assert all((part.state[name] == value.numpy()).all() for name, value in state.items())


def test_what_is_left_out_beside_a_generator_is_said(tmp_path: Path) -> None:
    beside = under("D.", {"b.weight": torch.ones(3)})
    part = imported(tmp_path / "a.pt", {**under("net.G.", generator_state()), **beside})
    assert "the state dict: its names begin with net.G." in part.notices
    assert "the state dict: 1 tensors beside it are left out (D.b.weight)" in part.notices
    whole, words = generator_of(generator_state())
    assert list(whole) == list(generator_state()) and words == []


def test_an_encoder_checkpoint_of_distributed_training(tmp_path: Path) -> None:
    save_encoder_checkpoint(tmp_path / "e.pt")
    plain = read_official(tmp_path / "e.pt")
    stored = torch.load(tmp_path / "e.pt", weights_only=False)
    stored["state_dict"] = under("module.", stored["state_dict"])
    torch.save(stored, tmp_path / "m.pt")
    wrapped = read_official(tmp_path / "m.pt")
    assert plain.encoder is not None and wrapped.encoder is not None and wrapped.generator is not None
    assert plain.encoder.config == wrapped.encoder.config and list(plain.encoder.state) == list(wrapped.encoder.state)


def test_names_that_would_fall_together_stay_apart() -> None:
    both = {"module.a": 1, "a": 2}
    assert unwrapped(both) == both and unwrapped({"module.a": 1, "xmodule.b": 2}) == {"a": 1, "xmodule.b": 2}


@pytest.mark.parametrize("name", ["swa.pt", "ddp_gema.pt"])
def test_state_dicts_of_a_bug_report(name: str) -> None:
    path = SHARED / "faults" / name
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    part = read_official(path).generator
    assert part is not None and all(key.startswith(("synthesis.", "mapping.")) for key in part.state)


# ---- settings that tensors do not tell


def golden_conditional() -> tuple[State, dict[str, Any]]:
    """The state dict and the settings of a network of reference with lr_multiplier .02, no clamp, output_scale .5."""
    with np.load(GOLDEN / "A_sg3t_cond_weights.npz") as file:
        state = OrderedDict((name, torch.from_numpy(file[name])) for name in file.files)
    return state, golden_json("A_sg3t_cond")["init_kwargs"]


def test_unusual_settings_draw_the_reference_once_they_are_told(tmp_path: Path) -> None:
    state, settings = golden_conditional()
    assert settings["output_scale"] == 0.5 and settings["mapping_kwargs"]["lr_multiplier"] == 0.02
    told = {"mapping_lr_multiplier": 0.02, "conv_clamp": None, "output_scale": 0.5}
    with np.load(GOLDEN / "A_sg3t_cond_io.npz") as io:
        z, c, truth = (torch.from_numpy(io[name]) for name in ("z", "c", "img_identity"))
    for given, right in ((told, True), ({}, False)):
        part = imported(tmp_path / "a.pt", state, **given)
        G = Generator(part.config)
        G.load_state_dict({name: torch.from_numpy(value) for name, value in part.state.items()})
        with torch.no_grad():
            image = G.eval()(z, c, psi=0.7)
        off = float((image - truth).abs().max() / truth.abs().max())
        assert (off < 1e-4) == right
        assert any("published values are assumed" in notice for notice in part.notices) != right


def test_weights_of_another_learning_rate_are_noticed_by_their_spread(tmp_path: Path) -> None:
    state = generator_state(mapping_lr_multiplier=1.0)
    (notice,) = (n for n in imported(tmp_path / "a.pt", state).notices if "spread" in n)
    assert "--config mapping_lr_multiplier=VALUE" in notice and "not 0.01" in notice
    assert not any("spread" in n for n in imported(tmp_path / "b.pt", generator_state()).notices)
    told = imported(tmp_path / "c.pt", state, mapping_lr_multiplier=1.0)
    assert not any("spread" in n or "lr_multiplier" in n for n in told.notices)


@pytest.mark.parametrize("cutoff", [1.0, 4.0])
def test_another_first_cutoff_follows_from_the_filters(cutoff: float, tmp_path: Path) -> None:
    changes = {"first_cutoff": cutoff, "first_stopband": cutoff * 2**1.1}
    part = imported(tmp_path / "a.pt", generator_state(**changes))
    assert part.config == tiny_config(**changes)
    assert f"first_cutoff is {cutoff:g}, as the filters of the state dict tell" in part.notices


def test_a_cutoff_that_is_guessed_by_nobody_is_asked_for_by_name(tmp_path: Path) -> None:
    changes = {"first_cutoff": 2.7, "first_stopband": 5.1}
    state = generator_state(**changes)
    try:
        part = imported(tmp_path / "a.pt", state)
    except ModelError as error:
        assert "--config first_cutoff=VALUE" in error.hint
    else:
        assert any("are not the designed ones" in notice for notice in part.notices)
    told = imported(tmp_path / "b.pt", state, **changes)
    assert told.config == tiny_config(**changes) and not any("designed" in notice for notice in told.notices)


def test_settings_that_are_told_must_fit_the_shapes(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not those of a StyleGAN3 generator|not a number from"):
        imported(tmp_path / "a.pt", generator_state(), num_critical=5, margin_size=3)


# ---- files that are no model


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "pointer of a file in Git LFS"),
        (b"<!DOCTYPE html><html><head>Google Drive - Virus scan warning", "a web page"),
        (b"\xef\xbb\xbf\n  <HTML><body>404", "a web page"),
        (b'{"error": "rate limit"}', "JSON text"),
        (b"\x1f\x8b\x08\x00" + bytes(50), "a compressed archive"),
        (b"Access denied: quota exceeded", "a server's error message"),
        ((64).to_bytes(8, "little") + b'{"a":{}}' + bytes(60), "a safetensors file"),
        (b"no idea what this is", "neither a pickle"),
    ],
)
def test_what_is_no_model_is_named_as_what_it_is(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(content)
    with pytest.raises(ModelError, match=rf"model\.pkl: it is .*{what}"):
        read_official(tmp_path / "model.pkl")
