"""`sg3 train encoder`: its folder, the model it makes, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from running import environment
from tiny import tiny_encoder, tiny_generator

from sg3cli import cli
from sg3cli.drawing.images import read_image, write_png
from sg3cli.errors import ModelError
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.nets.checkpoint import load_encoder_file, save_encoder
from sg3cli.training.encoder.run import open_generator
from sg3cli.weights.bundle import load_model

SHAPE = ("--size=32", "--widths=8,16", "--batch=4", "--passes=2", "--lr=0.01", "--held-out=3", "--loss=structural")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty images of 32 px that the tiny generator drew."""
    folder = tmp_path_factory.mktemp("faces")
    for seed, image in enumerate(Sampler(tiny_generator(), GenerateConfig(truncation=3.0)).images(range(30))):
        write_png(folder / f"{seed:02d}.png", image)
    return folder


def arguments(faces: Path, bundle: Path, folder: Path, *more: str) -> list[str]:
    where = ["--generator", str(bundle), "--work", str(folder / "work"), "--out", str(folder / "out")]
    return ["train", "encoder", str(faces), *where, *SHAPE, *more]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_encoder_file(path)[0].state_dict()


def test_a_model_comes_out_that_inverts(faces: Path, tiny_bundle: Path, tmp_path: Path, capsys) -> None:
    command = arguments(faces, tiny_bundle, tmp_path, "--kind=e4e", "--steps=5", "--snapshot-every=2")
    assert cli.run(command) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "out") and "perceptual loss: structural" in said.err
    assert "no identity loss" in said.err
    model = load_model(tmp_path / "out")
    assert model.digest == load_model(tiny_bundle).digest and model.direction_names() == ["age", "smile"]
    encoder, meta = load_encoder_file(model.encoder_path())
    assert encoder.config.kind == "e4e" and encoder.config.num_ws == 8 and meta["generator"] == model.digest
    with (tmp_path / "work" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "5"]
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    assert meta["validation"]["val_loss"] == pytest.approx(min(float(row["val_loss"]) for row in rows), rel=1e-5)
    grid = read_image(tmp_path / "work" / "grids" / "000005.png")
    assert grid.shape == (3 * 32, 3 * 32, 3)  # three held-out images; source and two passes
    assert np.array_equal(grid[:32, :32], read_image(faces / "27.png"))
    assert cli.run([*command, "-q"]) == 0  # nothing is left to do


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(faces: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """SIGKILL at whatever step it is, then the same command."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = ["--steps=16", "--snapshot-every=4", "--seed=3", "-q"]
    assert cli.run(arguments(faces, tiny_bundle, whole, *more)) == 0
    command = arguments(faces, tiny_bundle, broken, *more)
    same = environment(OMP_NUM_THREADS=str(torch.get_num_threads()))  # sums depend on how they are shared out
    process = subprocess.Popen([sys.executable, "-m", "sg3cli", *command], env=same, start_new_session=True)
    for _ in range(3000):
        if (broken / "work" / "state.pt").is_file() or process.poll() is not None:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was still at work
    assert cli.run(command) == 0
    one, two = (torch.load(folder / "work" / "state.pt", weights_only=True) for folder in (whole, broken))
    assert one["best"] == two["best"] and one["trainer"]["now"] == 16
    for name, value in one["trainer"]["encoder"].items():
        assert torch.equal(value, two["trainer"]["encoder"][name]), name
    with (broken / "work" / "log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["4", "8", "12", "16"]


def test_another_run_in_the_folder_is_refused(faces: Path, tiny_bundle: Path, tmp_path: Path, capsys) -> None:
    assert cli.run(arguments(faces, tiny_bundle, tmp_path, "--steps=1", "-q")) == 0
    assert cli.run(arguments(faces, tiny_bundle, tmp_path, "--steps=2", "--l2=3")) == 2
    assert "l2 was 1.0" in capsys.readouterr().err
    assert cli.run(arguments(faces, tiny_bundle, tmp_path, "--steps=2", "-q")) == 0  # longer is the same run


def test_a_start_from_an_encoder_keeps_its_shape_and_weights(faces: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    command = arguments(faces, tiny_bundle, tmp_path, "--init", str(tiny_bundle), "--steps=1", "--lr=0", "-q")
    assert cli.run(command) == 0
    ours, theirs = weights(tmp_path / "out" / "encoder.safetensors"), tiny_encoder().state_dict()
    parameters = dict(tiny_encoder().named_parameters())
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in parameters)


def test_what_does_not_fit_is_named_before_anything_is_trained(
    faces: Path, tiny_bundle: Path, tmp_path: Path, capsys
) -> None:
    def error(*more: str, generator: Path = tiny_bundle) -> str:
        assert cli.run(arguments(faces, generator, tmp_path, "--steps=1", *more)) in (2, 3, 4)
        assert not (tmp_path / "work" / "state.pt").exists()
        return capsys.readouterr().err

    assert "--kind is 'big'" in error("--kind=big")
    assert "--loss is 'vgg'" in error("--loss=vgg")
    assert "neither a known name nor a folder" in error(generator=tmp_path / "none")
    assert "no preset 'large'" in error("--preset=large")
    assert "'wide' is no stage" in error("--widths=wide")
    assert "there is no file" in error("--identity=none.pt")
    other = tiny_encoder()
    other.styles = other.styles[:4]
    other.config = type(other.config)(**{**other.config.to_dict(), "num_ws": 4})
    save_encoder(tmp_path / "four.safetensors", other)
    assert "gives 4x32 codes, the generator takes 8x32" in error(f"--init={tmp_path / 'four.safetensors'}")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "generator.safetensors").write_bytes(b"another")
    assert "model of another generator" in error()


def test_a_generator_is_a_model_or_a_file(tiny_bundle: Path, tmp_path: Path) -> None:
    by_file, by_name = open_generator(str(tiny_bundle / "generator.safetensors")), open_generator(str(tiny_bundle))
    assert by_file.digest == by_name.digest and by_file.folder is None and by_name.folder == tiny_bundle
    (tmp_path / "x.pkl").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"x\.pkl"):
        open_generator(str(tmp_path / "x.pkl"))


def test_a_generator_in_a_file_becomes_a_model(faces: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    command = arguments(faces, tiny_bundle / "generator.safetensors", tmp_path, "--steps=1", "-q")
    assert cli.run(command) == 0
    model = load_model(tmp_path / "out")
    assert model.has_encoder and model.meta["resolution"] == 32 and model.direction_names() == []
    assert json.loads((tmp_path / "out" / "model.json").read_text())["name"] == "out"
    assert os.access(model.encoder_path(), os.R_OK)
