"""The text model that ships: what it takes texts for, and what it says of those that it does not know."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cheap_eyes import CheapEyes

from sg3cli.errors import UsageError
from sg3cli.latents.embedded_text import EmbeddedModel
from sg3cli.nets.checkpoint import load_text_file
from sg3cli.weights import encoder_backbone
from sg3cli.weights.bundle import load_model
from sg3cli.weights.encoder_backbone import load_backbone


@pytest.fixture(scope="module")
def model() -> EmbeddedModel:
    net, _ = load_text_file(load_model("people-128").text_path())
    return EmbeddedModel(net, CheapEyes(), torch.device("cpu"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        ("an old man with glasses, smiling", {"age": 1, "male": 1, "glasses": 1, "smile": 1}),
        ("a young woman", {"age": -1, "male": -1}),
        ("someone who is not smiling", {"smile": -1}),
        ("a lady without spectacles", {"male": -1, "glasses": -1}),
        ("a clean-shaven gentleman", {"beard": -1, "male": 1}),
        ("a seventy-year-old man", {"age": 1, "male": 1}),
        ("a 30 year old lady", {"age": -1, "male": -1}),
        ("looking left", {"yaw": -1}),
        ("a face turned to the right", {"yaw": 1}),
        ("a person looking up", {"pitch": -1}),
        ("a woman with her eyes shut", {"eyes_closed": 1, "male": -1}),
        ("a person with blond hair", {"blond": 1}),
        ("a face with no beard", {"beard": -1}),
    ],
)
def test_texts_are_taken_for_what_they_say(model: EmbeddedModel, text: str, signs: dict[str, int]) -> None:
    assert set(model.check(text)) >= set(signs) and model.unknown(text) == []
    for label, sign in signs.items():
        assert sign * model.towards(text, label) > 0, label


def test_what_a_text_asks_of_an_edit(model: EmbeddedModel) -> None:
    """A named label by one deviation the way it says, all others by none."""
    readings = model.readings("a young face", np.zeros(64), ["age"])
    axes, labels = model.net.axes(), list(model.net.config.axes)
    assert readings.wanted.tolist() == [1.0, *[0.0] * (len(labels) - 1)]
    spread = float(model.net.spread(axes[:1])[0])
    assert readings.rows[0] == pytest.approx(-axes[labels.index("age")].numpy() / spread, rel=1e-3)
    assert labels[0] == "age" and 0 not in model.held(["age"]) and 0 not in model.held(["wrinkles"])


def test_what_it_does_not_know_is_said(model: EmbeddedModel) -> None:
    assert model.unknown("an old wizard with a purple hat, aged 200") == ["wizard", "purple", "hat", "200"]
    for text, why in (("a dragon", "does not know dragon"), ("a child of 7", "does not know child, 7"),
                      ("a good photo", "says nothing of how a face looks")):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            model.check(text)
    for phrase in model.net.config.misread:
        with pytest.raises(UsageError, match=f"known to misread '{phrase}'"):
            model.check(f"a person {phrase}")
    assert "not old" in model.net.config.misread and len(model.net.config.misread) < 6


def test_it_looks_with_the_eyes_of_the_encoder(monkeypatch: pytest.MonkeyPatch, tiny_bundle: object) -> None:
    bundle = load_model("people-128")
    net = load_backbone(bundle)
    kept = bundle.encoder().features
    assert kept is not None
    theirs = kept.net.state_dict()
    assert all(torch.equal(value.float(), theirs[name]) for name, value in net.state_dict().items())
    asked: list[str] = []

    class Asked(Exception):
        pass

    def require(name: str, allow_pull: bool) -> None:
        asked.append(name)
        raise Asked

    monkeypatch.setattr(encoder_backbone.store, "require", require)
    with pytest.raises(Asked):
        load_backbone(load_model(str(tiny_bundle)))
    assert asked == ["perceptual"]
    assert bundle.text_path().stat().st_size < 4_000_000
