"""`sg3 train mapper` on the tiny model: drawings come to fit the text, other rows stay, a kill changes nothing."""

from __future__ import annotations

import contextlib
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from text_reader import COLOURS, ColourModel, install
from tiny import make_tiny_bundle, tiny_generator

from sg3cli import cli
from sg3cli.latents.codes import Codes as FrameCodes
from sg3cli.latents.edits import make_edit
from sg3cli.latents.rendering import draw
from sg3cli.nets.checkpoint import load_mapper_file, save_generator
from sg3cli.nets.generator import Generator
from sg3cli.pipeline.load_edits import load_edits
from sg3cli.training.adaptation.trainer import Codes
from sg3cli.training.config import TrainMapperConfig
from sg3cli.training.mapper.trainer import MapperTrainer, code_variance
from sg3cli.weights.bundle import load_model
from sg3cli.weights.loaded_nets import LoadedNets

RED = ["--text", "a red face", "--steps", "12", "--batch", "2", "--lr", "1", "--l2", "0.01", "-q"]


@pytest.fixture(scope="module")
def red(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mapper of the tiny model towards `a red face`; look at it, do not change it."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        install(patch)
        out = tmp_path_factory.mktemp("mapper") / "red.safetensors"
        assert cli.run(["train", "mapper", "--model", str(tiny_bundle), "--out", str(out), *RED]) == 0
    return out


def redness(images: torch.Tensor) -> float:
    return float(images[:, 0].mean() - images[:, 1:].mean())


def trainer(G: Generator, reader: ColourModel | None = None, **changes: object) -> MapperTrainer:
    config = replace(TrainMapperConfig(steps=6, lr=1.0, seed=3), **changes)
    text = torch.nn.functional.normalize(torch.tensor([*COLOURS["red"], 1.0]), dim=0)
    return MapperTrainer(G, Codes(G, config), (reader or ColourModel()).embed, text, None, config)


def test_faces_no_step_has_seen_become_redder_with_the_strength(red: Path, tiny_bundle: Path) -> None:
    bundle = load_model(tiny_bundle)
    G = bundle.generator()
    ws = FrameCodes(Codes(G, TrainMapperConfig(seed=99)).at(7, 12).numpy())
    found = []
    for strength in ("-1", "0", "0.5", "1"):
        (edit,) = load_edits([make_edit(str(red), strength)], bundle, LoadedNets()).edits
        found.append(redness(draw(G, edit.apply(ws, np.zeros(12)))))
    assert found == sorted(found) and found[-1] > found[1] + 0.03
    assert (red.with_name("red.work") / "before_after.png").is_file()


def test_only_the_levels_that_were_asked_for_learn(tiny_bundle: Path) -> None:
    G = load_model(tiny_bundle).generator()
    made = trainer(G, levels=("medium",))
    list(made.run())
    step = made.mapper(Codes(G, made.config).at(1, 4)).detach()
    assert torch.nonzero(step.abs().amax((0, 2))).flatten().tolist() == [2, 3]  # of 8: coarse 1, medium 2-3, fine 4-7


def test_the_loss_is_what_it_says(tiny_bundle: Path) -> None:
    G = load_model(tiny_bundle).generator()
    made = trainer(G, l2=0.7, identity=0.4)
    made.identity = lambda images: images.mean((2, 3))  # three numbers of a picture
    list(made.run())
    ws = Codes(G, made.config).at(50, 3)
    with torch.no_grad():
        loss, found = made.loss(ws)
        step = made.mapper(ws)
        before, after = (G.synthesis(codes).clamp(-1, 1) for codes in (ws, ws + step))
        fit = (ColourModel().embed(after) @ made.text).mean()
        alike = torch.cosine_similarity(after.mean((2, 3)), before.mean((2, 3))).mean()
    wanted = 1 - fit + 0.7 * (step**2).mean() / code_variance(G) + 0.4 * (1 - alike)
    assert step.abs().max() > 1e-3 and float(loss) == pytest.approx(float(wanted), abs=1e-5)
    assert found["likeness"] == pytest.approx(float(alike), abs=1e-5)


def test_more_weight_on_the_step_makes_it_shorter(tiny_bundle: Path) -> None:
    G = load_model(tiny_bundle).generator()
    lengths = [list(trainer(G, l2=l2, steps=12).run())[-1]["length"] for l2 in (0.0, 30.0)]
    assert lengths[1] < 0.7 * lengths[0]


def test_a_run_that_was_killed_becomes_the_same_mapper(
    red: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    out = tmp_path / "red.safetensors"
    again = ["train", "mapper", "--model", str(tiny_bundle), "--out", str(out), *RED]
    assert cli.run([*again, "--minutes", "0"]) == 0  # stops after its first step
    assert cli.run(again) == 0
    first, second = (load_mapper_file(path)[0].state_dict() for path in (red, out))
    assert all(torch.equal(first[name], second[name]) for name in first)
    capsys.readouterr()
    assert cli.run([*again, "--seed", "5"]) != 0
    assert "other settings" in capsys.readouterr().err


def test_a_model_without_a_face_reader_says_what_is_left_out(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    out = tmp_path / "red.safetensors"
    arguments = ["train", "mapper", "--text", "a red face", "--steps", "1", "--model", str(tiny_bundle)]
    assert cli.run([*arguments, "--out", str(out)]) == 0
    assert "who it is is left out of the loss" in capsys.readouterr().err
    assert cli.run([*arguments, "--out", str(out), "--levels", "corse"]) != 0
    assert "no level 'corse'" in capsys.readouterr().err
    shutil.rmtree(out.with_name("red.work"))
    assert cli.run([*arguments, "--out", str(out)]) != 0
    assert "is there already" in capsys.readouterr().err


def test_a_published_mapper_is_imported_and_edits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_tiny_bundle(tmp_path / "tiny")
    state = {
        f"mapper.fine_mapping.mapping.{layer}.{kind}": torch.ones((32, 32) if kind == "weight" else 32)
        for layer in range(1, 5)
        for kind in ("weight", "bias")
    }
    torch.save({"state_dict": state, "opts": {}}, tmp_path / "best.pt")
    assert cli.run(["directions", "import", "best.pt", "--model", str(model), "--name", "old"]) != 0
    assert "codes of 16x32, the model has 8x32" in capsys.readouterr().err and not Path("old.safetensors").exists()
    save_generator(model / "generator.safetensors", tiny_generator(num_layers=14))
    assert cli.run(["directions", "import", "best.pt", "--model", str(model), "--name", "old"]) == 0
    (edit,) = load_edits([make_edit("old.safetensors", "-2")], load_model(model), LoadedNets()).edits
    moved = edit.apply(FrameCodes(np.ones((1, 16, 32), np.float32)), np.zeros(1)).ws[0]
    x = 1.0
    for _ in range(4):
        x = 2**0.5 * (32 * x * 0.01 / 32**0.5 + 0.01)  # weights and biases of 1, all that is seen alike
    assert np.allclose(moved[8:], 1 - 2 * 0.1 * x, atol=1e-6) and (moved[:8] == 1).all()
    assert cli.run(["directions", "show", "old.safetensors", "--model", str(model), "--seeds", "1", "-q"]) == 0
    assert Path("old.png").is_file()
