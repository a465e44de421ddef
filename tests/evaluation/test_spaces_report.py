"""`sg3 evaluate spaces` on the tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from model_reports import evaluate, lively_reader, without_backbones
from text_reader import install

from sg3cli.cli.evaluate_spaces import parse_text
from sg3cli.errors import UsageError
from sg3cli.evaluation.edit_table import edit_row, text_rows
from sg3cli.evaluation.face_reading import FaceReading
from sg3cli.evaluation.spaces_report import SCORES
from sg3cli.pipeline.text_edits import effects_path, write_effects
from sg3cli.weights.bundle import load_model

SMALL = ("--quick", "--samples=48", "--pairs=2", "--faces=2")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    without_backbones(monkeypatch)


def test_the_four_spaces_and_the_edits_in_three_of_them(tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    reader = lively_reader(tmp_path / "reader.safetensors")
    command = ("spaces", "--model", tiny_bundle, "--reader", reader, *SMALL, "--change=0.2")
    table, told = evaluate(*command, folder=tmp_path)
    assert list(told["spaces"]) == ["z", "w", "w+", "s"] and told["attributes"] == ["age", "glow", "frown"]
    for space, found in told["spaces"].items():
        assert found["ppl"] > 0 and found["length"] > 0 and 0 <= found["mig"] <= 1 and found["separability"] >= 1
        for name in ("disentanglement", "completeness"):
            assert (found[name] is None) == (found["predicted"] == []), space
            assert found[name] is None or 0 <= found[name] <= 1
    assert {(row["family"], row["space"]) for row in told["edits"]} == {
        (family, space) for family in ("hyperplane", "relevance") for space in ("w", "w+", "s")
    }
    assert len(told["edits"]) == 18
    for row in told["edits"]:
        if row["leak"] is None:
            assert row["not_computed"] and row["identity"] is None
        else:
            assert row["change"] == pytest.approx(0.2, abs=0.021) and row["leak"] >= 0 and row["identity"] < 1.001
    assert sum(row["leak"] is not None for row in told["edits"]) >= 6
    assert "--text" in told["not_computed"].pop("edits by text") and told["not_computed"] == {}
    assert "MIG in 2 of equal counts" in table and "structural" in table and "reader.safetensors" in table


def test_without_a_reader_only_paths_are_measured(tiny_bundle: Path, tmp_path: Path) -> None:
    table, told = evaluate("spaces", "--model", tiny_bundle, *SMALL, folder=tmp_path)
    assert set(told["not_computed"]) == {*SCORES, "edits"} and told["edits"] == []
    for found in told["spaces"].values():
        assert found["ppl"] > 0 and all(found[name] is None for name in SCORES)
    assert table.count("not computed: tiny has no network that reads faces") == 1 + len(SCORES)


def test_without_scikit_learn_the_rest_is_measured(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sg3cli.metrics.linear_models.find_spec", lambda name: None)
    reader = lively_reader(tmp_path / "reader.safetensors")
    command = ("spaces", "--model", tiny_bundle, "--reader", reader, *SMALL, "--attributes=glow", "--change=0.2")
    _, told = evaluate(*command, folder=tmp_path)
    assert told["not_computed"]["disentanglement"].startswith("scikit-learn is not installed")
    assert "mig" not in told["not_computed"] and told["spaces"]["s"]["mig"] is not None
    assert {row["attribute"] for row in told["edits"]} == {"glow"}


def test_an_attribute_that_nobody_reads_is_named(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reader = lively_reader(tmp_path / "reader.safetensors")
    judge = lively_reader(tmp_path / "judge.safetensors", ("glow", "frown"))
    words = ("--reader", reader, "--judge", judge, "--attributes=age")
    evaluate("spaces", "--model", tiny_bundle, *SMALL, *words, folder=tmp_path, code=2)
    said = capsys.readouterr().err
    assert "'age' is not read by both networks" in said and "they read: glow, frown" in said


def test_a_text_is_an_edit_of_styles(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    model = shutil.copytree(tiny_bundle, tmp_path / "model")
    bundle, std = load_model(model), np.ones(sum(load_model(model).config.style_sizes.values()))
    reader = lively_reader(tmp_path / "reader.safetensors")
    command = ("spaces", "--model", model, "--reader", reader, *SMALL, "--attributes=age", "--change=0.2")
    words = ("--text=age=a red face", "--text=glow=a red face")
    effects = np.zeros((len(std), 4))
    effects[20, 0] = 1.0  # one style makes faces red
    write_effects(effects_path(bundle, "clip:ViT-B-32"), effects, std, {})
    _, told = evaluate(*command, *words, folder=tmp_path)
    rows = {row["attribute"]: row for row in told["edits"] if row["family"] == "text"}
    assert set(rows) == {"age", "glow"} and all(row["space"] == "s" for row in rows.values())
    for row in rows.values():  # a style may lower what its text has nothing to do with
        assert (row["leak"] is None) == ("not_computed" in row)
    assert any(row.get("strength", 0) > 0 for row in rows.values())


def test_without_a_table_of_styles_or_a_text_model_there_are_no_edits_by_text(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, texts, missing = load_model(tiny_bundle), (("age", "a red face"),), {}
    monkeypatch.setattr("sg3cli.latents.text_model.find_spec", lambda name: None)
    assert text_rows(None, bundle, texts, "clip:ViT-B-32", np.zeros((1, 9)), ("age",), missing) == []
    assert "open_clip" in missing["edits by text"] and "pip install" in missing["edits by text"]
    install(monkeypatch)
    assert text_rows(None, bundle, texts, "clip:ViT-B-32", np.zeros((1, 9)), ("age",), missing) == []
    assert "has no table of styles" in missing["edits by text"]


@pytest.mark.parametrize("text", ["an old face", "=old", "age="])
def test_a_text_that_names_nothing_is_refused(text: str) -> None:
    assert parse_text(" age = a=b ") == ("age", "a=b")
    with pytest.raises(UsageError, match="cannot read the text"):
        parse_text(text)


def test_an_edit_that_does_not_reach_its_change_is_not_compared() -> None:
    judge = FaceReading("judge", ("age", "glow"), np.ones(2), lambda x: (x, x))
    found = {"changes": np.array([0.4, 0.3]), "strength": np.array(2.0), "identity": np.array(0.9)}
    missed = edit_row(found | {"reached": np.array(False)}, judge, 0, 1.0)
    assert "identity" not in missed and missed["not_computed"] == "the attribute changed by +0.40, not +1.00 deviations"
    reached = edit_row(found | {"reached": np.array(True)}, judge, 0, 0.4)
    assert (reached["identity"], reached["leak"], reached["change"]) == (0.9, pytest.approx(0.3), 0.4)
