"""Directions from labels and classifiers."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_bytes import mean_colours
from tiny import tiny_generator
from torch import nn

from sg3cli import cli
from sg3cli.cli.train.directions import parse_units
from sg3cli.drawing.images import write_png
from sg3cli.errors import InputError, ModelError, UsageError
from sg3cli.files import digest_of
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.training.config import TrainDirectionsConfig
from sg3cli.training.data.label_table import LabelTable, read_labels, write_labels
from sg3cli.training.directions.classifier import Classifier, Scoring
from sg3cli.training.directions.fit import (
    Fitted,
    apart_from,
    auc,
    calibrate,
    choose_method,
    fit_direction,
    fit_directions,
    regress,
    set_unit,
)
from sg3cli.training.directions.learn import check_names
from sg3cli.weights.direction_file import load_direction

CONFIG = TrainDirectionsConfig(method="logistic", share=0.1)
CPU = torch.device("cpu")


def planted(count: int = 3000, width: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes [N, width] around a far mean, the unit normal of an attribute, and its scores with noise."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(count, width)) + 5
    normal = rng.normal(size=width)
    normal /= np.linalg.norm(normal)
    return codes, normal, 10 + 3 * (codes @ normal) + 0.5 * rng.normal(size=count)


@pytest.mark.parametrize("method", ["logistic", "svm"])
def test_a_planted_attribute_is_found(method: str) -> None:
    if method == "svm":
        pytest.importorskip("sklearn")
    codes, normal, scores = planted()
    found = fit_direction("x", codes, scores, replace(CONFIG, method=method))
    assert found.normal @ normal > 0.95 and np.linalg.norm(found.normal) == pytest.approx(1)
    assert found.report["accuracy"] > 0.95 and found.report["auc"] > 0.98 and found.report["at_each_end"] == 300
    assert 0.8 < found.report["accuracy_rest"] < 1  # those in the middle are harder


@given(st.floats(0.01, 1000), st.floats(-100, 100))
@settings(max_examples=5)
def test_the_scale_of_the_scores_does_not_matter(gain: float, shift: float) -> None:
    codes, _, scores = planted(200, 4)
    one, other = (fit_direction("x", codes, s, CONFIG) for s in (scores, gain * scores + shift))
    assert one.normal @ other.normal > 0.9999
    assert fit_direction("x", codes, -scores, CONFIG).normal @ one.normal < -0.98  # another split


def test_what_is_there_or_not_is_told_apart_although_most_have_not() -> None:
    codes, normal, scores = planted()
    rare = (scores > np.quantile(scores, 0.97)).astype(float)  # fewer than the share of each end
    found = fit_direction("glasses", codes, rare, CONFIG)
    assert found.normal @ normal > 0.8 and found.report["at_each_end"] == 300
    assert fit_direction("bare", codes, 1 - rare, CONFIG).normal @ normal < -0.8


def test_unknown_labels_are_left_out() -> None:
    codes, normal, scores = planted()
    scores[::3] = np.nan
    codes[::3] = 1e6  # nobody looks at these
    found = fit_direction("x", codes, scores, CONFIG)
    set_unit(found, codes, scores, None)
    assert found.normal @ normal > 0.95 and found.report["n"] == 2000 and 0.5 < found.length < 2


def test_strength_one_is_a_deviation_or_an_amount() -> None:
    codes, normal, scores = planted()
    direction = Fitted("x", normal, 0.0, "")
    set_unit(direction, codes, scores, None)
    assert direction.length == pytest.approx((codes @ normal).std())
    set_unit(direction, codes, scores, 12.0)
    assert direction.length == pytest.approx(4, rel=0.02) and direction.unit == "12 of x by its labels"
    assert direction.report["correlation"] > 0.95
    with pytest.raises(UsageError, match="does not rise"):
        set_unit(Fitted("x", -normal, 0.0, ""), codes, scores, 12.0)


def test_what_is_held_is_projected_out() -> None:
    rng = np.random.default_rng(0)
    normal, *others = (v / np.linalg.norm(v) for v in rng.normal(size=(3, 8)))
    held = apart_from(Fitted("x", normal, 2.0, "u"), {"a": others[0][None], "b": 3 * others[1][None]})
    assert abs(held.normal @ others[0]) < 1e-6 and abs(held.normal @ others[1]) < 1e-6
    assert np.linalg.norm(held.normal) == pytest.approx(1) and held.normal @ normal > 0.5
    assert held.report["given"] == ["a", "b"]


@pytest.mark.parametrize(
    "scores", [np.ones(100), np.arange(15.0), np.r_[np.zeros(98), 1, 1], np.full(50, np.nan)], ids=str.__class__
)
def test_labels_that_say_nothing_are_named(scores: np.ndarray) -> None:
    with pytest.raises(UsageError, match="smile has"):
        fit_direction("smile", np.random.default_rng(0).normal(size=(len(scores), 4)), scores, CONFIG)


def test_auc_counts_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 5, 40), rng.random(40) < 0.5
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels] for n in scores[~labels]]
    assert auc(scores, labels) == pytest.approx(np.mean(pairs)) and auc(scores, labels | True) is None


def test_a_method_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sg3cli.metrics.linear_models.find_spec", lambda name: None)
    assert choose_method("auto") == "logistic" and choose_method("auto", own_images=False) == "regression"
    with pytest.raises(ModelError, match="scikit-learn"):
        choose_method("svm")


def test_regression_finds_what_the_codes_do_when_one_label_changes() -> None:
    """Two labels that come together in life, and an axis that betrays the first one but hardly moves."""
    rng = np.random.default_rng(0)
    age = rng.normal(size=2000) * 20 + 40
    grey = 0.03 * (age - 40) + 0.5 * rng.normal(size=2000)
    M = rng.normal(size=(2, 12)) * [[0.05], [1.0]]
    M[:, 0] = 0
    codes = np.stack([age - 40, grey], 1) @ M + 0.3 * rng.normal(size=(2000, 12))
    codes[:, 0] = 1e-3 * (age - 40)
    labels = np.stack([age, grey], 1)
    assert np.allclose(regress(codes, labels)[:, 1:], M[:, 1:], atol=0.05)
    found = fit_directions(("age", "grey"), codes, labels, replace(CONFIG, method="regression"))
    set_unit(found["age"], codes, age, 10.0)
    assert np.allclose(found["age"].vector[0, 1:], 10 * M[0, 1:], atol=0.05) and found["age"].unit == "10 of age"
    set_unit(found["grey"], codes, grey, None)
    assert np.allclose(found["grey"].vector[0, 1:], grey.std() * M[1, 1:], atol=0.05)
    assert found["age"].report["auc"] > 0.95 and found["age"].report["accuracy"] > 0.9


def test_a_measured_response_sets_the_length() -> None:
    direction = Fitted("x", np.eye(4)[0], 0.5, "", None, {"deviations": 1.0})
    calibrate(direction, lambda vector: 2 * float(vector[0, 0]) ** 1.2, deviation=3.0, amount=None)
    assert direction.length == pytest.approx(1.5 ** (1 / 1.2), rel=0.1)
    assert direction.report["response"] == pytest.approx(3.0, rel=0.1)
    assert direction.unit == "one standard deviation of x, as measured"
    calibrate(direction, lambda vector: 1e-6, deviation=3.0, amount=1.0)
    assert direction.length < 15  # nobody is thrown out of the space of faces
    with pytest.raises(UsageError, match="does not rise"):
        calibrate(direction, lambda vector: -1.0, deviation=3.0, amount=None)


# ---- tables


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = LabelTable(("age", "smile"), np.array([[31.25, np.nan], [1 / 3, -2]]), (7, 4294967295))
    write_labels(tmp_path / "t.csv", table)
    read = read_labels(tmp_path / "t.csv")
    assert (read.names, read.seeds) == (table.names, table.seeds)
    assert np.array_equal(read.scores, table.scores, equal_nan=True)
    assert read_labels(tmp_path / "t.csv", ("smile",)).scores[1].tolist() == [-2]
    np.savez(tmp_path / "t.npz", columns=np.array(table.names), labels=table.scores, seed=np.array(table.seeds))
    again = read_labels(tmp_path / "t.npz", ("smile", "age"))
    assert again.seeds == table.seeds and again.scores[1].tolist() == [-2, 1 / 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed,age\n1,old\n", "row 2: age is 'old'"),
        ("seed,age\n1,3\nx,3\n", "row 3: seed is 'x'"),
        ("seed,age\n-1,3\n", "row 2: seed is '-1'"),
        ("picture,age\n1,3\n", "no column"),
        ("seed,file,age\n1,a,3\n", "both columns"),
        ("file,age\nnone.png,3\n", r"row 2: there is no file .*none\.png"),
        ("seed\n1\n", "no column of an attribute"),
        ("seed,age\n", "no rows"),
        ("", "no column"),
    ],
)
def test_a_table_that_is_wrong_is_named_with_row_and_column(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=rf"labels\.csv.*{message}"):
        read_labels(tmp_path / "labels.csv")


def test_other_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.csv"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_bytes(b"seed,age\n\xff\xfe,3\n")
    with pytest.raises(InputError, match=r"t\.csv"):
        read_labels(tmp_path / "t.csv")
    np.savez(tmp_path / "t.npz", columns=np.array(["a"]), labels=np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"t\.npz"):
        read_labels(tmp_path / "t.npz")
    (tmp_path / "good.csv").write_text("seed,age\n1,3\n")
    with pytest.raises(UsageError, match="no column smile"):
        read_labels(tmp_path / "good.csv", ("smile",))


# ---- classifiers


class MeanColours(nn.Module):
    """[N, 3]: what `onnx_bytes` writes as ONNX."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] == 16
        return x.mean((2, 3))


def write_classifiers(folder: Path) -> tuple[Path, Path]:
    """(TorchScript, ONNX), for images of 16 px."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(MeanColours()).save(str(folder / "net.pt"))
    (folder / "net.onnx").write_bytes(mean_colours(16))
    return folder / "net.pt", folder / "net.onnx"


def test_torchscript_and_onnx_give_the_same_scores(tmp_path: Path) -> None:
    x = torch.rand(5, 3, 32, 32) * 2 - 1
    for path in write_classifiers(tmp_path):
        scores = Classifier(path, ("r", "g", "b"), 16, CPU)(x)
        assert scores.shape == (5, 3) and np.allclose(scores, x.mean((2, 3)).numpy(), atol=1e-6)


def test_a_classifier_that_does_not_fit_is_named(tmp_path: Path) -> None:
    script, onnx = write_classifiers(tmp_path)
    with pytest.raises(UsageError, match="gives 3 scores, --attributes names 2"):
        Classifier(script, ("r", "g"), 16, CPU)
    with pytest.raises(ModelError, match=r"net\.pt fails on pictures of 64 px"):
        Classifier(script, ("r", "g", "b"), 64, CPU)
    onnx.write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"net\.onnx"):
        Classifier(onnx, ("r",), 16, CPU)
    with pytest.raises(UsageError, match=r"net\.pkl"):
        Classifier(tmp_path / "net.pkl", ("r",), 16, CPU)
    for name in ("none.pt", "none.onnx"):
        with pytest.raises(ModelError, match="no file"):
            Classifier(tmp_path / name, ("r",), 16, CPU)


def test_scoring_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sg3cli.training.directions.classifier.SAVE_EVERY", 4)
    classifier = Classifier(write_classifiers(tmp_path)[0], ("r", "g", "b"), 16, CPU)
    G = tiny_generator()
    codes = Sampler(G, GenerateConfig(truncation=0.7)).codes(range(10))
    whole = Scoring(G, classifier, codes, tmp_path / "a", False, {})
    assert list(whole.run(2)) == list(range(1, 11))
    first = Scoring(G, classifier, codes, tmp_path / "b", False, {})
    for done in first.run(2):
        if done == 5:
            break
    second = Scoring(G, classifier, codes, tmp_path / "b", False, {})
    assert len(second.scores) == 4 and list(second.run(2)) == list(range(5, 11))
    assert np.array_equal(second.scores, whole.scores)
    assert not len(Scoring(G, classifier, codes, tmp_path / "b", True, {}).scores)  # other images


def test_unaligned_faces_are_brought_upright(tmp_path: Path) -> None:
    classifier = Classifier(write_classifiers(tmp_path)[0], ("r", "g", "b"), 16, CPU)
    G = tiny_generator()
    G.synthesis.input.affine.weight.normal_()  # a trained one turns and shifts the image by its first code
    ws = torch.from_numpy(Sampler(G, GenerateConfig()).codes(range(2)))
    upright = ws.clone()
    upright[:, 0] = G.mapping.w_avg
    drawn = Scoring(G, classifier, ws.numpy(), tmp_path, True, {}).draw(ws)
    assert torch.equal(drawn, G.synthesis(upright)) and not torch.equal(drawn, G.synthesis(ws))


# ---- the command


def run(*arguments: object) -> int:
    """The command line, in this process."""
    return cli.run(["train", "directions", *map(str, arguments)])


def write_table(path: Path, normal: np.ndarray, count: int, bundle: Path) -> None:
    """Attributes of the tiny model's seeds: `up` rises along `normal`, `mixed` along it and another axis."""
    ws = Sampler(tiny_generator(), GenerateConfig(truncation=0.7)).codes(range(count))[:, 0]
    up, side = ws @ normal, ws @ np.roll(normal, 1)
    write_labels(path, LabelTable(("up", "mixed"), np.stack([up, up + side], 1).astype(float), tuple(range(count))))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_directions_of_seeds_are_written_for_the_editor(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=32)
    normal /= np.linalg.norm(normal)
    write_table(here / "labels.csv", normal, 400, tiny_bundle)
    command = ["--model", tiny_bundle, "--labels", "labels.csv", "--method=logistic"]
    assert run(*command, "--out=d", "--json", "--share=0.25", "--unit=up=0.5") == 0
    report = json.loads(capsys.readouterr().out)["directions"]
    direction = load_direction(here / "d" / "up.safetensors")
    unit = direction.vector[0] / np.linalg.norm(direction.vector)
    codes = Sampler(tiny_generator(), GenerateConfig(truncation=0.7)).codes(range(400))[:, 0]
    assert np.corrcoef(codes @ unit, codes @ normal)[0, 1] > 0.95
    assert direction.generator == digest_of(tiny_bundle / "generator.safetensors")
    assert direction.meta["unit"] == "0.5 of up by its labels" and direction.meta["truncation"] == 0.7
    assert report["up"]["auc"] > 0.95 and set(report["up"]["cosines"]) == {"mixed"}
    assert json.loads((here / "d" / "report.json").read_text())["directions"].keys() == {"up", "mixed"}
    assert run(*command, "--out=e", "--share=0.25", "--given=up,age", "-q") == 0  # `age` is the model's
    assert capsys.readouterr().out.split() == ["e/up.safetensors", "e/mixed.safetensors"]
    up, mixed = (load_direction(here / "e" / f"{name}.safetensors").vector[0] for name in ("up", "mixed"))
    age = load_direction(tiny_bundle / "directions" / "age.safetensors").vector[0]
    first = direction.vector[0]  # what is held is what was fitted, before anything was taken out of it
    for a, b in ((mixed, first), (mixed, age), (up, age)):
        assert abs(a @ b) < 1e-5 * np.linalg.norm(a) * np.linalg.norm(b)
    assert run(*command, "--out=f", "--given=none") == 2
    assert "unknown direction 'none'" in capsys.readouterr().err


def test_directions_of_a_classifier_and_the_table_it_leaves(here: Path, tiny_bundle: Path) -> None:
    write_classifiers(here)
    command = ["--model", tiny_bundle, "--method=logistic", "--share=0.3", "-q"]
    names = ["--classifier=net.onnx", "--attributes=red,green,blue", "--classifier-input=16", "--samples=150"]
    assert run(*command, *names, "--out=d") == 0
    table = read_labels(here / "d" / "labels.csv")
    G = tiny_generator()
    image = G.synthesis(torch.from_numpy(Sampler(G, GenerateConfig(truncation=0.7)).codes([3])))
    assert np.allclose(table.scores[3], image.clamp(-1, 1).mean((2, 3)).numpy(), atol=1e-5)
    assert sorted(p.name for p in (here / "d").iterdir()) == [
        "blue.safetensors", "green.safetensors", "labels.csv", "red.safetensors", "report.json",
    ]  # fmt: skip
    red = load_direction(here / "d" / "red.safetensors")
    assert red.meta["response"] == pytest.approx(table.scores[:, 0].std(), rel=0.3)  # what an image really does
    assert run(*command, "--labels=d/labels.csv", "--out=e") == 0
    first, second = red.vector[0], load_direction(here / "e" / "red.safetensors").vector[0]
    assert first @ second > 0.9999 * np.linalg.norm(first) * np.linalg.norm(second)


def test_images_in_files_are_encoded(here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for row in range(24):
        write_png(here / f"{row}.png", np.full((40, 40, 3), 10 * row, np.uint8))
        rows.append(f"{row}.png,{row + rng.normal():.3f},x")
    (here / "t.csv").write_text("file,light,note\n" + "\n".join(rows))
    command = ["--model", tiny_bundle, "--labels=t.csv", "--out=d", "--method=logistic"]
    assert run(*command, "--attributes=light") == 0
    assert "light: accuracy" in capsys.readouterr().err
    assert load_direction(here / "d" / "light.safetensors").meta["n"] == 24
    assert run(*command) == 3 and "row 2: note is 'x'" in capsys.readouterr().err
    write_png(here / "3.png", np.zeros((40, 30, 3), np.uint8))
    assert run(*command, "--attributes=light") == 3 and "3.png is 30x40" in capsys.readouterr().err


def test_given_codes_must_fit(here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    codes, normal, scores = planted(300, 32)
    np.savez(here / "t.npz", columns=np.array(["x"]), labels=scores[:, None])
    command = ["--model", tiny_bundle, "--labels=t.npz", "--method=logistic", "--share=0.3", "--out=d"]
    np.save(here / "codes.npy", codes)
    assert run(*command, "--codes=codes.npy") == 0
    vector = load_direction(here / "d" / "x.safetensors").vector[0]
    assert vector @ normal > 0.9 * np.linalg.norm(vector)
    np.save(here / "few.npy", codes[:7])
    assert run(*command, "--codes=few.npy") == 3 and "[300,32]" in capsys.readouterr().err
    assert run(*command) == 2 and "t.npz has no seeds" in capsys.readouterr().err


def test_wrong_usage_is_named(tmp_path: Path) -> None:
    assert run("--out", tmp_path, "-q") == 2
    assert parse_units(["age=10", "smile=.5"]) == {"age": 10, "smile": 0.5}
    for text in ("age", "age=x", "age=0", "age=-1", "age=nan"):
        with pytest.raises(UsageError, match="--unit"):
            parse_units([text])
    for names in (["a/b"], [".hidden"], [""], ["a=1"], ["a", "a"]):
        with pytest.raises(UsageError):
            check_names(names)
