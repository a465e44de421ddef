"""`sg3 train text` on a tiny model, and what its `--text` then does to drawings, without any other model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from cheap_eyes import CheapEyes, drawn, green_and_red, install, labelled
from tiny import make_tiny_bundle, tiny_generator

from sg3cli import cli
from sg3cli.latents.codes import Codes
from sg3cli.latents.edits import make_edit
from sg3cli.latents.embedded_text import EmbeddedModel
from sg3cli.latents.rendering import draw
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.text_models import load_text_model
from sg3cli.nets.checkpoint import load_text_file
from sg3cli.pipeline.load_edits import load_edits
from sg3cli.pipeline.text_edits import MOVES, moves_path
from sg3cli.project import Project
from sg3cli.weights.bundle import load_model
from sg3cli.weights.loaded_nets import LoadedNets
from sg3cli.weights.mapper_file import mapper_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a text model whose smiles are green and whose glasses are red."""
    folder = tmp_path_factory.mktemp("trained")
    model = make_tiny_bundle(folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        patch.setattr("sg3cli.pipeline.text_edits.FACES", 4)
        table = labelled(tiny_generator(), folder)
        assert cli.run(["train", "text", str(table), "--model", str(model), "--steps", "100", "-q"]) == 0
    return model


def test_what_the_shipped_model_can_do_was_looked_at_with_the_shipped_directions() -> None:
    """Otherwise `--text` would look again, for minutes, or take the table for damaged."""
    bundle = load_model("people-128")
    assert moves_path(bundle) == bundle.path / MOVES


@pytest.fixture
def model(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(monkeypatch)
    monkeypatch.setattr("sg3cli.pipeline.text_edits.FACES", 4)
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, tmp_path / "model")


def run(*words: str) -> int:
    return cli.run(["directions", "text", *words, "--model", "model"])


def changes(file: str, strength: str = "1") -> tuple[float, float]:
    """By how much faces become greener and redder by an edit, in the deviations of drawings."""
    bundle = load_model("model")
    codes = Codes(Sampler(bundle.generator(), GenerateConfig(truncation=0.6)).codes(range(300, 316)))
    (edit,) = load_edits([make_edit(file, strength)], bundle, LoadedNets()).edits
    with torch.inference_mode():
        both = [draw(bundle.generator(), c).clamp(-1, 1) for c in (codes, edit.apply(codes, np.zeros(16)))]
    (green, red), (greener, redder) = (green_and_red(x) for x in both)
    spread = [values.std() for values in green_and_red(drawn(tiny_generator(), 96))]
    return float((greener - green).mean() / spread[0]), float((redder - red).mean() / spread[1])


def test_training_leaves_a_text_model_and_a_table_with_the_model(trained: Path) -> None:
    net, meta = load_text_file(trained / "text.safetensors")
    assert set(net.config.axes) == {"smile", "glasses"} and meta["generator"] == load_model(trained).digest
    assert (trained / "moves-embedded.safetensors").is_file() and not list(trained.glob("*.parts"))


def test_a_text_moves_what_it_speaks_of_the_way_it_says(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, name in (("a smiling face", "yes"), ("a serious person", "no"), ("a man with glasses", "red")):
        assert run(text, "--name", name) == 0
    captured = capsys.readouterr().err
    assert "held: glasses" in captured and "held: smile" in captured
    yes, no, red = (changes(f"{name}.safetensors") for name in ("yes", "no", "red"))
    assert yes[0] > 0.1 and no[0] < -0.1 and red[1] > 0.1, (yes, no, red)
    assert yes[0] - no[0] > abs(yes[1] - no[1]), (yes, no)  # what is held moves less than what is asked for


def test_what_lies_outside_is_named_or_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a dragon") == 2
    said = capsys.readouterr().err
    assert "'a dragon' lies outside of what the text model knows: it does not know dragon" in said
    assert "it knows of faces: " in said and "glasses, smile" in said
    assert run("a picture of a face") == 2 and "it says nothing of how a face looks" in capsys.readouterr().err
    assert run("a smiling dragon, aged 7", "--name", "some") == 0
    assert "embedded does not know: dragon, aged, 7; expect little of them" in capsys.readouterr().err


def test_a_changed_text_model_or_direction_makes_a_new_table(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a smiling face", "--name", "one") == 0
    assert "looking at what" not in capsys.readouterr().err
    (model / "directions" / "age.safetensors").unlink()
    assert run("a smiling face", "--name", "two") == 0
    assert "looking at what tiny can do to a face, once" in capsys.readouterr().err


def test_the_model_s_own_text_model_is_the_default_where_there_is_one(model: Path) -> None:
    cpu = torch.device("cpu")
    reader = load_text_model("auto", cpu, bundle=load_model(model))
    assert isinstance(reader, EmbeddedModel) and reader.name == "embedded"
    assert reader.named("a smiling person without glasses") == ["glasses", "smile"] and reader.held(["smile"]) == [0]
    rows = reader.images(torch.zeros(2, 3, 16, 16))
    assert rows.shape == (2, 64) and np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    reader.embed(image)[0, 0].backward()
    assert image.grad is not None and isinstance(CheapEyes(), torch.nn.Module)


def test_alpha_is_found_for_a_change_of_the_fit(
    model: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tuned, tmp_path / "copy")
    project = str(tmp_path / "copy" / "talk.sg3")
    said = ["edit", project, "--text", "a smiling face", "--model", str(model), "--clear"]
    assert cli.run([*said, "--target-change", "0.008"]) == 0
    assert "edit: alpha " in capsys.readouterr().err
    (small,) = Project.open(Path(project)).edits
    assert cli.run([*said, "--target-change", "0.016"]) == 0
    (large,) = Project.open(Path(project)).edits
    assert 0 < small.keyframes[0].strength < large.keyframes[0].strength
    assert cli.run([*said, "--target-change", "9"]) == 2
    assert "do not come to fit the text 900% better" in capsys.readouterr().err
    assert cli.run([*said, "--target-change", "0.1", "--alpha", "1"]) == 2
    assert cli.run(["edit", project, "--edit", "age=1", "--alpha", "1", "--model", str(model)]) == 2
    assert "--alpha is the strength of a --text" in capsys.readouterr().err


def test_a_generator_is_adapted_to_a_text_that_the_model_s_own_text_model_knows(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["adapt", "--model", "model", "--from", "a serious face", "--text-model", "embedded", "--lr", "0.04"]
    assert cli.run([*words, "--to", "a dragon", "--out", "child"]) == 2
    assert "lies outside of what the text model knows" in capsys.readouterr().err
    assert cli.run([*words, "--to", "a smiling face", "--out", "child", "--steps", "10", "-q"]) == 0
    ws = Sampler(load_model("model").generator(), GenerateConfig(truncation=0.6)).codes(range(300, 316))
    green = [
        green_and_red(draw(load_model(name).generator(), Codes(ws)).clamp(-1, 1))[0] for name in ("model", "child")
    ]
    assert (green[1] - green[0]).mean() > 0.1 * green_and_red(drawn(tiny_generator(), 96))[0].std()


def test_a_mapper_goes_where_the_model_s_own_text_model_says(model: Path) -> None:
    words = ["train", "mapper", "--model", "model", "--steps", "30", "--lr", "1", "--l2", "0.01", "-q"]
    for text, name in (("a smiling face", "yes"), ("a man with glasses", "red")):
        assert cli.run([*words, "--text", text, "--out", f"{name}.safetensors"]) == 0
    assert changes("yes.safetensors")[0] > 0.1 and changes("red.safetensors")[1] > 0.1
    yes, red = (mapper_file(Path(f"{name}.safetensors")) for name in ("yes", "red"))
    assert yes is not None and yes.keeps == {"hue", "shade", "outside", "eyes"}
    assert red is not None and not red.keeps
