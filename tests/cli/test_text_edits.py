"""`sg3 directions precompute-clip|text|import`, `sg3 edit --text`: the official tables, and one made here."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from text_reader import ColourModel, install

from sg3cli import cli
from sg3cli.drawing.images import read_image
from sg3cli.errors import ModelError
from sg3cli.files import read_arrays
from sg3cli.latents.codes import Codes
from sg3cli.latents.edits import make_edit
from sg3cli.latents.rendering import draw
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.pipeline.load_edits import load_edits
from sg3cli.pipeline.text_edits import EffectsConfig, precompute, read_effects
from sg3cli.project import Project
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.direction_file import load_direction
from sg3cli.weights.loaded_nets import LoadedNets


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A copy of the tiny model that may be written to; the text model knows colours only."""
    install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return load_model(shutil.copytree(tiny_bundle, tmp_path / "model"))


def run(*words: str) -> int:
    return cli.run(["directions", *words, "--model", "model", "-q"])


def official(bundle: Bundle) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Statistics by layer, their deviations in a row, and a table that says that two styles make faces red."""
    sizes = bundle.config.style_sizes
    std = {name: np.full(size, 1.0 + k) for k, (name, size) in enumerate(sizes.items())}
    table = np.zeros((sum(sizes.values()), 4))
    table[:, 3] = 1
    red = np.array([1.0, -0.5, -0.5, 0.0]) / np.sqrt(1.5)
    table[20], table[40] = red, -red
    return std, np.concatenate(list(std.values())), table


def test_the_official_tables_give_the_published_direction(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    std, row, table = official(bundle)
    mean = {name: np.zeros_like(value) for name, value in std.items()}
    Path("s_stats").write_bytes(pickle.dumps([{"theta": 0.0, "x": 0.0, "y": 0.0}, mean, std]))
    np.save("delta_i_c.npy", table * 3)
    assert run("import", "s_stats") == 0 and run("import", "delta_i_c.npy") == 0
    assert read_arrays(Path("model/stylespace.safetensors"))[0]["std"] == pytest.approx(row)
    effects, deviations = read_effects(bundle, "clip:ViT-B-32")
    assert np.linalg.norm(effects, axis=1) == pytest.approx(np.ones(len(row)), abs=1e-3)
    assert deviations == pytest.approx(row)
    assert run("text", "a red face", "--name", "red", "--beta", "0.5") == 0
    red = load_direction(Path("red.safetensors"))
    expected = np.zeros(len(row))
    expected[20], expected[40] = row[20], -row[40]
    assert red.vector[0] == pytest.approx(expected, rel=1e-3) and red.space == "s"
    assert red.generator == bundle.digest and red.meta["text_model"] == "clip:ViT-B-32" and "a red face" in red.does
    assert run("text", "a red face", "--name", "none", "--beta", "0.999999") in (0, 2)
    moved = load_edits([make_edit("red.safetensors", "2")], bundle, LoadedNets()).edits[0]
    codes = Codes(Sampler(bundle.generator(), GenerateConfig()).codes([0]))
    shift = moved.apply(codes, np.zeros(1)).shift
    assert shift is not None and shift[0] == pytest.approx(2 * expected, rel=1e-3)
    channel = load_edits([make_edit("L1:0", "1")], bundle, LoadedNets())  # place 20, after the input and L0
    assert channel.edits[0].apply(codes, np.zeros(1)).shift[0, 20] == pytest.approx(row[20])


def test_tables_of_another_generator_are_refused(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    std, _, table = official(bundle)
    std["input"] = np.ones(5)
    Path("s_stats").write_bytes(pickle.dumps([{"theta": 0.0}, std, std]))
    assert run("import", "s_stats") == 4 and "layer input it has 5 values, not 4" in capsys.readouterr().err
    np.save("delta_i_c.npy", table[:-1])
    assert run("import", "delta_i_c.npy") == 4 and f"{len(table) - 1} rows" in capsys.readouterr().err
    assert run("text", "a red face") == 4 and "precompute-clip" in capsys.readouterr().err
    with pytest.raises(ModelError, match="no table"):
        read_effects(bundle, "clip:ViT-B-32")


class Stopped(Exception):
    """A kill."""


def test_a_table_made_here_goes_on_after_a_kill_and_its_text_edits_do_what_they_say(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sg3cli.console import Console

    class Fragile(ColourModel):
        def images(self, images: torch.Tensor) -> np.ndarray:
            if self.asked > 150:
                raise Stopped
            return super().images(images)

    config, console, cpu = EffectsConfig(samples=6, batch=3), Console(quiet=True), torch.device("cpu")
    monkeypatch.setattr("sg3cli.pipeline.text_edits.SAVED", 8)
    with pytest.raises(Stopped):
        precompute(bundle, Fragile(), config, console, cpu)
    left = list(Path("model/effects-clip-ViT-B-32.parts").glob("*.safetensors"))
    rest = ColourModel()
    path, made = precompute(bundle, rest, config, console, cpu)
    channels = sum(bundle.config.style_sizes.values())
    assert left and made and rest.asked == 12 * (channels - 8 * len(left)) and not path.with_suffix(".parts").exists()
    assert precompute(bundle, rest, config, console, cpu) == (path, False)
    effects, std = read_effects(bundle, "clip:ViT-B-32")
    assert effects.shape == (channels, 4) and std.shape == (channels,)
    assert run("text", "a red face", "--name", "red", "--beta", "0.2") == 0
    G = bundle.generator()
    codes = Codes(Sampler(G, GenerateConfig(truncation=0.5)).codes(range(6)))
    (edit,) = load_edits([make_edit("red.safetensors", "1")], bundle, LoadedNets()).edits
    target = ColourModel().texts(["a red face"])[0] - ColourModel().texts(["a face"])[0]
    before, after = (ColourModel().images(draw(G, c)) for c in (codes, edit.apply(codes, np.zeros(6))))
    agreement = (after - before) @ target / np.linalg.norm(after - before, axis=1) / np.linalg.norm(target)
    assert agreement.mean() > 0.5


def test_a_text_is_an_edit_of_a_project(
    bundle: Bundle, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tuned, tmp_path / "copy")
    _, _, table = official(bundle)
    std, _, _ = official(bundle)
    Path("s_stats").write_bytes(pickle.dumps([{"theta": 0.0}, std, std]))
    np.save("delta_i_c.npy", table)
    assert run("import", "s_stats") == 0 and run("import", "delta_i_c.npy") == 0
    project = str(tmp_path / "copy" / "talk.sg3")
    model = ["--model", str(tmp_path / "model")]
    said = ["edit", project, "--text", "a red quux face", "--alpha", "0s:0,0.4s:2", "--beta", "0.5", "--clear"]
    assert cli.run([*said, *model]) == 0
    assert "does not know: quux" in capsys.readouterr().err
    (edit,) = Project.open(Path(project)).edits
    assert Path(edit.direction).parent == Path(project) / "edits" and "a-red-quux-face" in edit.direction
    assert edit.text == "0s:0,0.4s:2"
    look = ["preview", project, "--no-labels", "--columns", "inversion,edits", "--view", "face", "--draft", "-q"]
    assert cli.run([*look, *model, "--at", "0.4s", "-o", "p.png"]) == 0
    inverted, edited = np.array_split(read_image(Path("p.png")).astype(int), 2, axis=1)
    width = min(inverted.shape[1], edited.shape[1])
    assert np.abs(inverted[:, :width] - edited[:, -width:]).max() > 3
