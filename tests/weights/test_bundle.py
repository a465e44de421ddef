"""The transfer network of a model: found, read once, refused when it is damaged, part of the render's key."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from composed import composed, inverted_project, settings

from sg3cli.errors import ModelError
from sg3cli.files import digest_of
from sg3cli.latents.edits import Edit, Keyframe
from sg3cli.nets.checkpoint import save_transfer
from sg3cli.nets.transfer_net import TransferConfig, TransferNet
from sg3cli.pipeline import Job, paste_inputs, render_plan
from sg3cli.training.people128.transfer_bundle import add_transfer
from sg3cli.weights.bundle import TRANSFER_NET, load_model
from sg3cli.weights.loaded_nets import LoadedNets


@pytest.fixture
def own(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, and beside it a network whose every weight counts."""
    torch.manual_seed(0)
    net = TransferNet(TransferConfig((8, 8, 8, 8)))
    torch.nn.init.normal_(net.head.weight, std=0.3)
    save_transfer(tmp_path / "run.safetensors", net, {"step": 7})
    return Path(shutil.copytree(tiny_bundle, tmp_path / "own"))


def test_a_network_is_added_in_half_precision_and_read_once(own: Path, tmp_path: Path) -> None:
    bundle = load_model(own)
    assert not bundle.has_transfer and bundle.transfer_digest is None
    with pytest.raises(ModelError, match="no transfer network"):
        bundle.transfer()
    add_transfer(own, tmp_path / "run.safetensors", "on three pairs")
    bundle = load_model(own)
    stored = json.loads((own / "model.json").read_text())["training"]["transfer"]
    assert stored == {"what": "on three pairs", "step": 7}
    assert bundle.transfer_digest is not None and (own / TRANSFER_NET).stat().st_size < 60_000
    nets = LoadedNets()
    assert nets.transfer(bundle) is nets.transfer(load_model(own))
    assert all(not p.requires_grad for p in nets.transfer(bundle).parameters())


@pytest.mark.parametrize("damage", [b"", b"not a network", None])
def test_a_damaged_one_is_named(own: Path, tmp_path: Path, damage: bytes | None) -> None:
    file = own / TRANSFER_NET
    if damage is None:
        shutil.copyfile(own / "generator.safetensors", file)  # a network of another kind
    else:
        file.write_bytes(damage)
    with pytest.raises(ModelError, match=TRANSFER_NET):
        load_model(own).transfer()


def test_the_best_that_the_model_has_is_taken(own: Path, tmp_path: Path, talk: Path) -> None:
    """`auto` is motion without a network and the network with one; the network is part of the render's key."""
    project = inverted_project(tmp_path, talk, own)
    keys = [render_plan.plan(Job(project, settings(own)), load_model(own), False).key]
    motion = next(composed(project, own))[1]
    add_transfer(own, tmp_path / "run.safetensors")
    keys.append(render_plan.plan(Job(project, settings(own)), load_model(own), False).key)
    assert keys[0] != keys[1]
    auto, learned, again = (next(composed(project, own, transfer=kind))[1] for kind in ("auto", "learned", "motion"))
    assert np.array_equal(auto, learned) and np.array_equal(again, motion) and not np.array_equal(auto, motion)


def test_no_network_is_read_where_none_is_needed(own: Path) -> None:
    (own / TRANSFER_NET).write_bytes(b"damaged")
    for kind in ("motion", "paste", "draw"):
        paste_inputs.map_maker(kind, load_model(own), LoadedNets(), [])


def test_a_network_for_the_edits_of_an_attribute_leaves_others_alone(own: Path, tmp_path: Path) -> None:
    add_transfer(own, tmp_path / "run.safetensors", about="age")
    bundle, nets = load_model(own), LoadedNets()
    still = {"age": ("hue", "shade", "eyes", "nose", "mouth"), "smile": ("hue", "shade", "eyes")}
    age, smile = (Edit(name, (Keyframe(0.0, 1.0),), keeps=frozenset(keeps)) for name, keeps in still.items())

    def network(kind: str, *edits: Edit) -> bool:
        maker = paste_inputs.map_maker(kind, bundle, nets, edits)
        return maker is not None and maker.net is not None

    assert bundle.transfer_for == ("age",)
    assert network("auto", age) and network("auto", smile, age)
    assert not network("auto", smile) and not network("auto", replace(age, keyframes=(Keyframe(0.0, 0.0),)))
    assert network("learned", smile) and not network("motion", age)
    add_transfer(own, tmp_path / "run.safetensors", about="age,smile")
    bundle = load_model(own)
    assert network("auto", smile) and not network("auto", replace(smile, keeps=frozenset({"hue"})))


@pytest.mark.parametrize("part", ["generator.safetensors", "encoder.safetensors", "directions/age.safetensors"])
def test_a_part_that_is_not_the_one_that_was_imported_is_damaged(tmp_path: Path, tiny_bundle: Path, part: str) -> None:
    """Its description notes the digests; one flipped bit of a weight draws another face."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    meta = json.loads((folder / "model.json").read_text())
    files = [path for path in folder.rglob("*.safetensors")]
    meta["parts"] = {p.relative_to(folder).as_posix(): digest_of(p).removeprefix("sha256:") for p in files}
    (folder / "model.json").write_text(json.dumps(meta))
    model = load_model(folder)
    model.generator(), model.encoder(), model.directions["age"]
    data = bytearray((folder / part).read_bytes())
    data[-5] ^= 1
    (folder / part).write_bytes(data)
    with pytest.raises(ModelError, match=rf"{part} is damaged"):
        model = load_model(folder)
        model.generator(), model.encoder(), model.directions["age"]
