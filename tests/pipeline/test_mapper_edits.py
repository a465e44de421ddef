"""A latent mapper as an edit: right sign, rows and factor through `load_edits`, and what it cannot be asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sg3cli.errors import ModelError, UsageError
from sg3cli.latents.codes import Codes
from sg3cli.latents.edits import Edit, make_edit
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.nets.checkpoint import save_mapper
from sg3cli.nets.latent_mapper import LatentMapper, MapperConfig
from sg3cli.pipeline.load_edits import check_edits, load_edits
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.loaded_nets import LoadedNets


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return load_model(tiny_bundle)


@pytest.fixture
def net() -> LatentMapper:
    """A mapper of all rows but 3 and 4, whose steps are not small."""
    torch.manual_seed(2)
    made = LatentMapper(MapperConfig(8, 32, ((0, 3), (5, 8))))
    for level in made.nets:
        level[-1].weight.data.normal_(0, 100)
    return made.eval().requires_grad_(False)


@pytest.fixture
def file(bundle: Bundle, net: LatentMapper, tmp_path: Path) -> Path:
    save_mapper(tmp_path / "old.safetensors", net, {"generator": bundle.digest, "name": "old"})
    return tmp_path / "old.safetensors"


def loaded(edit: Edit, bundle: Bundle) -> Edit:
    return load_edits([edit], bundle, LoadedNets()).edits[0]


def test_the_step_times_the_strength_is_added_to_all_rows_but_the_first(
    bundle: Bundle, net: LatentMapper, file: Path
) -> None:
    ws = Sampler(bundle.generator(), GenerateConfig()).codes(range(3))
    ws = ws + np.random.default_rng(0).normal(size=ws.shape).astype(np.float32)
    step = net(torch.from_numpy(ws)).numpy()
    strengths = np.array([0.0, -0.5, 2.0])
    edit = loaded(make_edit(str(file), "0s:0,1s:-0.5,2s:2"), bundle)
    moved = edit.apply(Codes(ws), np.array([0.0, 1.0, 2.0])).ws
    wanted = ws + strengths[:, None, None] * step
    wanted[:, 0] = ws[:, 0]
    assert np.abs(step[:, [1, 2, 5, 6, 7]]).max() > 0.05
    assert np.allclose(moved, wanted, atol=1e-6)
    assert (moved[0] == ws[0]).all() and (moved[:, 3:5] == ws[:, 3:5]).all()
    few = loaded(make_edit(str(file), "1", layers="0,6"), bundle).apply(Codes(ws), np.zeros(3)).ws
    assert np.flatnonzero(np.abs(few - ws).max((0, 2))).tolist() == [0, 6]
    assert np.allclose(few[:, 0] - ws[:, 0], step[:, 0], atol=1e-6)


def test_the_file_is_in_the_record_and_says_whether_it_keeps_the_hue(
    bundle: Bundle, net: LatentMapper, file: Path
) -> None:
    found = load_edits([make_edit(str(file), "1")], bundle, LoadedNets())
    assert list(found.digests) == [str(file)] and not found.edits[0].keeps
    save_mapper(file, net, {"hue": "kept"})
    assert loaded(make_edit(str(file), "1"), bundle).keeps == {"hue"}


def test_what_a_mapper_cannot_is_refused(bundle: Bundle, net: LatentMapper, file: Path) -> None:
    for edit, cause in (
        (make_edit(str(file), "1", space="s"), "takes no --space s"),
        (make_edit(str(file), "1", preserve=["age"]), "takes no --preserve"),
        (make_edit("age", "1", preserve=[str(file)]), "no one direction to preserve"),
    ):
        with pytest.raises(UsageError, match=cause):
            check_edits([edit], bundle)
    save_mapper(file, net, {"generator": "sha256:another"})
    with pytest.raises(ModelError, match="another generator"):
        check_edits([make_edit(str(file), "1")], bundle)
    save_mapper(file, LatentMapper(MapperConfig(16, 32, ((1, 16),))), {})
    with pytest.raises(ModelError, match="codes of 16x32"):
        check_edits([make_edit(str(file), "1")], bundle)
