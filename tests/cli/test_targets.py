"""`sg3 train flow` and `--target`: a value is reached in the drawing, in the project, and said by name when not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sg3cli import cli
from sg3cli.latents.codes import Codes
from sg3cli.latents.edits import parse_target
from sg3cli.latents.rendering import draw
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.pipeline.load_edits import load_edits
from sg3cli.project import Project
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.loaded_nets import LoadedNets


class Brightness(nn.Module):
    """How bright a picture is, and whether its left half is brighter."""

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[3] // 2
        return torch.stack([x.mean((1, 2, 3)), x[..., :half].mean((1, 2, 3)) - x[..., half:].mean((1, 2, 3))], 1)


@pytest.fixture(scope="module")
def model(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a flow that `sg3 train flow` made of the model's own codes."""
    folder = tmp_path_factory.mktemp("flow")
    path = shutil.copytree(tiny_bundle, folder / "model")
    codes = Sampler(load_model(path).generator(), GenerateConfig()).codes(range(96))
    np.save(folder / "codes.npy", codes)
    torch.jit.script(Brightness()).save(folder / "reader.pt")
    words = ["train", "flow", "--model", str(path), "--codes", str(folder / "codes.npy"), "-q"]
    words += ["--classifier", str(folder / "reader.pt"), "--attributes", "bright,left", "--steps", "120"]
    assert cli.run(words) == 0
    return path


@pytest.fixture
def bundle(model: Path) -> Bundle:
    return load_model(model)


def test_the_drawing_gets_the_value(bundle: Bundle) -> None:
    """How much brighter the left half is: the brightness of walls and faces itself is held."""
    G, left = bundle.generator(), Brightness()
    codes = Codes(Sampler(G, GenerateConfig()).codes(range(200, 224)))
    before = left(draw(G, codes))[:, 1]
    means = []
    for side in (-1, 1):
        value = float(before.mean() + side * 0.7 * before.std())
        edit = load_edits([parse_target(f"left={value}")], bundle, LoadedNets()).edits[0]
        assert not edit.keeps
        after = left(draw(G, edit.apply(codes, np.zeros(24))))[:, 1]
        assert (after - value).abs().mean() < (before - value).abs().mean()
        means.append(float(after.mean() - before.mean()) / float(before.std()))
    assert means[0] < -0.15 and means[1] > 0.15  # of .7: ninety codes tell a flow little


def test_a_value_beyond_what_is_reached_is_said(bundle: Bundle) -> None:
    low, high = bundle.flow().reach("left")
    for value, said in ((low - 1, True), ((low + high) / 2, False), (high + 1, True)):
        notices = load_edits([parse_target(f"left={value}")], bundle, LoadedNets()).notices
        assert any("beyond" in notice for notice in notices) == said


def test_a_project_is_brought_to_a_value(
    bundle: Bundle, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(bundle.path), "--draft", "-q"]
    assert cli.run(["run", str(talk), "-o", "out.mp4", "--target", "bright=0.3@0s..0.2s", *model]) == 0
    project = Project.open(tmp_path / f"{talk.stem}.sg3")
    assert [edit.describe() for edit in project.edits] == ["bright to 0.3@0s..0.2s"]
    record = json.loads(Path("out.mp4.json").read_text())
    assert "flow.safetensors" in json.dumps(record)
    assert cli.run(["edit", "--target", "bright=0.1", "-q"]) == 0
    assert cli.run(["edit", "--list"]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1] == "bright to 0.1"


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["--target", "hat=1"], "it can: bright, left"),
        (["--target", "bright=much"], "much"),
        (["--target", "bright=1", "--layers", "1-3"], "--layers"),
    ],
)
def test_what_cannot_be_reached_is_named(
    bundle: Bundle, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], cause: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SG3_INVERT_MODEL", str(bundle.path))
    assert cli.run(["edit", str(talk), *words]) == 2
    assert cause in capsys.readouterr().err


def test_a_model_without_a_flow_says_how_to_get_one(
    tiny_bundle: Path, talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SG3_INVERT_MODEL", str(tiny_bundle))
    assert cli.run(["run", str(talk), "-o", "out.mp4", "--target", "age=70"]) != 0
    assert "sg3 train flow" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "cause"), [([], "PICTURES"), (["nothing"], "nothing"), (["."], "no pictures")])
def test_training_names_what_is_missing(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], cause: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.run(["train", "flow", *words, "--model", str(tiny_bundle)]) == (3 if words else 2)
    assert cause in capsys.readouterr().err
