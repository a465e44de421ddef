"""The score card, and the equivariance in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_faces import COLUMNS, drawn_faces, write_faces
from running import sg3
from tiny import make_tiny_bundle, tiny_encoder, tiny_generator

from sg3cli.drawing import score_card as drawing
from sg3cli.drawing.images import read_image
from sg3cli.metrics.equivariance import eq_r, eq_t
from sg3cli.nets.attribute_net import AttributeNetConfig, load_attribute_net, save_attribute_net
from sg3cli.training.people128.probe import train_attribute_net
from sg3cli.training.people128.score_card import score_card


def trained_net(folder: Path) -> Path:
    """An attribute net that has seen a little."""
    run = train_attribute_net(drawn_faces(48), AttributeNetConfig(COLUMNS, 24, (8, 16, 16, 16), 8), steps=12, batch=16)
    save_attribute_net(folder / "probe.safetensors", list(run)[-1][2].eval())
    return folder / "probe.safetensors"


def test_a_translation_moves_the_image_and_a_pixelated_one_does_not() -> None:
    """StyleGAN3 is equivariant by design, at random weights too; noise fixed to the pixels is not."""
    G = tiny_generator()
    ws = G.mapping(torch.randn(4, G.config.z_dim, generator=torch.Generator().manual_seed(0)))
    shift, turn = eq_t(G, ws), eq_r(G, ws)
    assert shift > 30 and turn > 20
    grain = 0.1 * torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    drawn = G.synthesis.forward
    G.synthesis.forward = lambda ws, **options: drawn(ws, **options) + grain
    assert eq_t(G, ws) == pytest.approx(10 * torch.log10(torch.tensor(4 / 0.02)).item(), abs=1)
    assert eq_r(G, ws) < 25


def test_a_card_of_directions_that_do_nothing(tmp_path: Path) -> None:
    G, encoder, net = tiny_generator(), tiny_encoder(), load_attribute_net(trained_net(tmp_path))
    faces = drawn_faces(24)
    nothing, push = torch.zeros(8, 32), 50 * torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    card = score_card(G, encoder, {"none": nothing, "age": push}, {"none": "smile", "age": "age"}, net, faces, 8, 12)
    none, age = card["directions"]["none"], card["directions"]["age"]
    assert none["slope"] == 0 and none["pose_leak"] == 0 and none["identity_leak"] == pytest.approx(0, abs=1e-4)
    assert age["label"] == "age" and "age" not in age["leaks"] and len(age["leaks"]) == 3
    assert age["identity_leak"] > none["identity_leak"] and age["slope"] != 0
    assert card["frechet"] > 0 and card["frechet_inverted"] > 0 and 0 < card["psnr_step3"] < 40
    assert {"features_step1", "identity_step3", "eq_t", "eq_r"} <= card.keys()


def test_the_command_scores_a_model_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    model = make_tiny_bundle(tmp_path / "tiny")
    (tmp_path / "data").mkdir()
    write_faces(tmp_path / "data", drawn_faces(32))
    command = ("train", "score", model, "--data", tmp_path / "data", "--held-out", 8, "--faces", 6, "--drawn", 8)
    without = sg3(*command, cwd=tmp_path)
    assert without.code != 0 and "judge" in without.last_two[0]
    net = trained_net(tmp_path)
    ran = sg3(*command, "--judge", net, "--out", "card.json", "--picture", "card.png", "--json", cwd=tmp_path)
    assert ran.code == 0 and ran.json["people"] == 8 and ran.json["pictures"] == 16
    assert set(ran.json["directions"]) == {"age", "smile"} and (tmp_path / "card.json").is_file()
    assert read_image(tmp_path / "card.png").shape[1] >= 900


def test_the_image_shows_what_moves() -> None:
    """A cell's colour follows the response, the label that is meant is framed, and what nothing moves is left out."""
    row = {"label": "age", "responses": {"age": 0.8, "smile": -0.4, "yaw": 0.01}}
    card = {"model": "m", "people": 3, "psnr_step3": 21.0, "directions": {"age": row}}
    assert drawing.shown_labels(card["directions"]) == ["age", "smile"]
    image = drawing.draw(card)

    def cell(column: int) -> np.ndarray:
        x, y = drawing.NAME + drawing.CELL * column, drawing.TOP
        return image[y + 5, x + 5]

    assert np.array_equal(cell(0), drawing.RED) and cell(1)[2] > cell(1)[0] + 50
    x, y = drawing.NAME + 1, drawing.TOP + 1
    assert tuple(image[y, x]) == drawing.OWN and tuple(image[y, x + drawing.CELL]) != drawing.OWN
