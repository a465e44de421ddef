"""`sg3 train bundle`: the whole recipe in a few steps, and going on from what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_faces import drawn_faces, write_faces
from running import sg3

FEW = ("--probe-steps", 3, "--coarse-steps", 2, "--steps", 2)


@pytest.mark.slow
def test_a_bundle_is_made_and_gone_on_from(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_faces(tmp_path / "data", drawn_faces(32, size=128))
    made = sg3("train", "bundle", "data", "--work", "w", "--out", "first", *FEW, "--json", cwd=tmp_path)
    assert made.code == 0, made.err
    assert any("no labels for gender" in notice for notice in made.json["notices"])
    drawn = sg3("generate", "--model", "first", "-o", "a.png", "--seeds", "0-1", cwd=tmp_path)
    assert drawn.code == 0, drawn.err

    on = sg3("train", "bundle", "data", "--work", "w2", "--out", "second", "--resume", "first", *FEW, cwd=tmp_path)
    assert on.code == 0, on.err
    record = json.loads((tmp_path / "second" / "model.json").read_text())["training"]
    assert "--resume first" in record["command"] and record["recipe"]["autoencoder"]["landmark_weight"] == 4.0
    assert not (tmp_path / "w2" / "coarse.pt").exists()  # the start was the first model

    write_faces(tmp_path / "data", drawn_faces(32, size=64))
    wrong = sg3("train", "bundle", "data", "--work", "w3", "--out", "third", "--resume", "tiny", *FEW, cwd=tmp_path)
    assert wrong.code == 4 and "tiny" in wrong.last_two[0]
