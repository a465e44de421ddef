"""`sg3 evaluate generator` on the tiny model: what it measures, and what it says that it cannot."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest
import torch
from model_reports import draw_pictures, evaluate, without_backbones

SMALL = ("--images=16", "--pairs=2", "--motions=2")


class Means(torch.nn.Module):
    """Mean red, green, blue and their sum of squares, called as the official detectors are."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        assert return_features and x.dtype == torch.uint8
        means = x.float().mean((2, 3)) / 255
        return torch.cat([means, means.square().sum(1, keepdim=True)], 1)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    without_backbones(monkeypatch)


@pytest.fixture
def means(tmp_path: Path) -> Path:
    path = tmp_path / "means.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch wants new code to use torch.export
        torch.jit.script(Means()).save(str(path))
    return path


def test_against_its_own_pictures_a_generator_is_perfect(tiny_bundle: Path, means: Path, tmp_path: Path) -> None:
    own, others = draw_pictures(tmp_path / "own", 16), draw_pictures(tmp_path / "others", 16, first=500)
    command = ("generator", "--model", tiny_bundle, "--features", means, *SMALL)
    _, same = evaluate(*command, "--against", own, folder=tmp_path)
    assert same["fid"] == pytest.approx(0, abs=1e-9) and (same["precision"], same["recall"]) == (1, 1)
    assert same["kid"] < 0 and same["real_images"] == 16  # less than nothing: the same pictures, not the same kind
    assert same["features"].startswith("means.pt (sha256:")
    _, kind = evaluate(*command, "--against", others, folder=tmp_path)
    assert 0 < kind["fid"] < 0.1 and kind["kid"] > same["kid"]
    _, grey = evaluate(*command, "--against", others, "--truncation=0", folder=tmp_path)
    assert grey["fid"] > 2 * kind["fid"] and grey["recall"] < kind["recall"]
    assert all(value == pytest.approx(0, abs=1e-6) for value in grey["ppl"].values())  # all of it is one picture


def test_what_cannot_be_computed_is_said_and_is_never_0(tiny_bundle: Path, tmp_path: Path) -> None:
    table, told = evaluate("generator", "--model", tiny_bundle, *SMALL, folder=tmp_path)
    for name in ("fid", "kid", "precision", "recall"):
        assert told[name] is None and "--against" in told["not_computed"][name]
    lines = {line[:16].strip(): line[16:] for line in table.splitlines()}
    assert lines["FID"].startswith("not computed: no pictures") and lines["recall"].startswith("not computed")
    assert all(value > 0 for value in told["ppl"].values()) and list(told["ppl"]) == ["z", "w", "w+", "s"]
    assert told["eq_t"] > 30 and told["eq_r"] > 20 and told["distance"] == "structural"


def test_a_covariance_wants_more_pictures_than_features(tiny_bundle: Path, tmp_path: Path) -> None:
    own = draw_pictures(tmp_path / "own", 16)
    table, told = evaluate("generator", "--model", tiny_bundle, "--against", own, *SMALL, folder=tmp_path)
    assert told["features"] == "attribute net of people-128, 256 features"
    assert told["fid"] is None and told["not_computed"]["fid"].startswith("16 pictures")
    assert "257 can" in table and told["kid"] is not None and told["precision"] == 1


def test_one_object_says_the_same(tiny_bundle: Path, tmp_path: Path) -> None:
    words = ("--images=8", "--pairs=2", "--motions=1", "--json")
    said, told = evaluate("generator", "--model", tiny_bundle, *words, folder=tmp_path)
    reply = json.loads(said)
    assert (reply["ok"], reply["command"]) == (True, "evaluate generator")
    assert reply["ppl"] == told["ppl"] and reply["fid"] is None and reply["not_computed"] == told["not_computed"]
    assert reply["report"] == str(tmp_path / "report.json") and reply["picture"] == str(tmp_path / "report.png")


def test_bad_words_are_named(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "inception.pkl").write_bytes(b"x")
    for words, code, said in (
        (["--features", tmp_path / "inception.pkl"], 2, "is a pickle"),
        (["--features", "vgg"], 2, "unknown features 'vgg'"),
        (["--against", tmp_path / "nowhere"], 3, "there is no such file or folder"),
        (["--class", "3"], 2, "has no classes"),
    ):
        evaluate("generator", "--model", tiny_bundle, *SMALL, *words, folder=tmp_path, code=code)
        assert said in capsys.readouterr().err
