"""Two towers that are trained on captions: a text fits the pictures that it speaks of, its negation the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cheap_eyes import CheapEyes, drawn, green_and_red, labelled
from tiny import make_tiny_bundle, tiny_generator

from sg3cli.console import Console
from sg3cli.errors import InputError, ModelError, UsageError
from sg3cli.nets.checkpoint import load_text_file
from sg3cli.nets.text_tower import DIMENSION, TextNet, describe
from sg3cli.training.text.fit import FitConfig, config_of, fit_text, pairwise_loss
from sg3cli.training.text.run import TextRunConfig, joined_facts, open_source, train_text
from sg3cli.weights.bundle import load_model

FEW = FitConfig(steps=120, batch=32, components=12, width=16, inner=32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[TextNet, Path]:
    """Trained on drawings of the tiny model: the green ones smile, the red ones wear glasses."""
    folder = tmp_path_factory.mktemp("text")
    bundle = load_model(make_tiny_bundle(folder / "model"))
    source = open_source(labelled(tiny_generator(), folder), TextRunConfig())
    out = folder / "text.safetensors"
    return train_text(bundle, out, [source], CheapEyes(), TextRunConfig(fit=FEW), Console(quiet=True)), out  # type: ignore[arg-type]


def test_texts_fit_the_pictures_that_they_speak_of(made: tuple[TextNet, Path]) -> None:
    net, _ = made
    x = drawn(tiny_generator(), 200)[96:]  # seeds that it has not seen
    rows = net.image(describe(CheapEyes(), x))  # type: ignore[arg-type]
    for (yes, no), values in zip(
        (("a smiling person", "someone not smiling"), ("a woman with glasses", "a face without glasses")),
        green_and_red(x),
        strict=True,
    ):
        difference = net.text([yes, no])
        leaning = (rows @ (difference[0] - difference[1])).numpy()
        assert np.corrcoef(leaning, values)[0, 1] > 0.6
    assert float(rows.norm(dim=1).sub(1).abs().max()) < 1e-5


def test_the_file_holds_the_same_model(made: tuple[TextNet, Path]) -> None:
    net, path = made
    read, meta = load_text_file(path)
    assert read.config == net.config and meta["pictures"] == 96
    assert path.stat().st_size < 4_000_000 and not path.with_suffix(".parts").exists()
    texts = ["a smiling face", "no glasses"]
    assert torch.allclose(read.text(texts), net.text(texts), atol=5e-3)
    (path.parent / "bad.safetensors").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"bad.safetensors"):
        load_text_file(path.parent / "bad.safetensors")


def test_a_longer_text_is_read_up_to_its_end_and_padding_changes_nothing(made: tuple[TextNet, Path]) -> None:
    net, _ = made
    alone = net.text(["a smiling face"])
    beside = net.text(["a smiling face", "a person who wears glasses and is smiling " * 20])
    assert torch.allclose(alone[0], beside[0], atol=1e-5)
    assert net.text(["dragon"]).shape == (1, 16)


def test_the_loss_is_small_for_what_holds_and_ignores_what_is_not_known() -> None:
    fits = torch.tensor([[1, -1, 0], [-1, 1, 0]])
    right = torch.tensor([[9.0, -9.0, 99.0], [-9.0, 9.0, -99.0]])
    assert float(pairwise_loss(right, fits)) < 1e-3 and float(pairwise_loss(-right, fits)) == pytest.approx(
        18, rel=1e-3
    )


def test_a_mirror_turns_the_head_to_the_other_side(tmp_path: Path) -> None:
    from sg3cli.training.text.run import Source

    facts = {"yaw": np.array([20.0, np.nan]), "smile": np.array([1.0, 0.0])}
    source = Source(facts, lambda rows: torch.zeros(len(rows), 3, 8, 8), "x")
    other = Source({"smile": np.array([0.5])}, source.load, "y")
    found = joined_facts([source, other])
    assert found["smile"].tolist() == [1, 0, 0.5] * 3
    assert np.nan_to_num(found["yaw"], nan=-1).tolist() == [20, -1, -1, -20, -1, -1, 20, -1, -1]


def test_what_is_no_source_is_named(tmp_path: Path) -> None:
    table = labelled(tiny_generator(), tmp_path, 4)
    table.write_text(table.read_text().replace("smile", "charisma"), encoding="utf8")
    with pytest.raises(UsageError, match="no words are known for the label charisma"):
        open_source(table, TextRunConfig())
    (tmp_path / "seeds.csv").write_text("seed,smile\n1,0\n", encoding="utf8")
    with pytest.raises(UsageError, match="names no pictures"):
        open_source(tmp_path / "seeds.csv", TextRunConfig())
    few = open_source(labelled(tiny_generator(), tmp_path, 4), TextRunConfig())
    bundle = load_model(make_tiny_bundle(tmp_path / "model"))
    with pytest.raises(InputError, match="4 pictures are too few"):
        train_text(bundle, tmp_path / "t.safetensors", [few], CheapEyes(), TextRunConfig(), Console(quiet=True))  # type: ignore[arg-type]


def test_words_are_known_with_what_they_speak_of() -> None:
    config = config_of({"glasses", "age"})
    assert ("glasses",) in config.about["glasses"] and ("elderly",) in config.about["age"]
    assert "beard" not in config.words and set(config.axes) == {"age", "glasses"}
    features = torch.randn(70, DIMENSION, generator=torch.Generator().manual_seed(0)).half()
    facts = {"glasses": np.arange(70) % 2.0}
    one, other = (fit_text(features, facts, replace(FEW, steps=2)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
