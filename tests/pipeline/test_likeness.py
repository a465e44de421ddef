"""`sg3 invert --likeness` in a project: one vector in all codes, the same after a kill, seen by what comes after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sg3cli import cli
from sg3cli.latents.likeness import Likeness
from sg3cli.pipeline import likeness

CODES, CHECKPOINT = Path("talk.sg3/invert/ws.npy"), Path("talk.sg3/invert/likeness.safetensors")


@pytest.fixture
def here(talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(talk, tmp_path / "talk.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inverted(model: Path, steps: int, capsys: pytest.CaptureFixture[str]) -> tuple[np.ndarray, dict]:
    capsys.readouterr()
    assert cli.run(["invert", "talk.mp4", "--model", str(model), "--likeness", str(steps), "--json"]) == 0
    return np.load(CODES), json.loads(capsys.readouterr().out)


def test_all_codes_of_a_person_move_alike(here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, said = inverted(tiny_bundle, 0, capsys)
    assert not any("closer" in notice for notice in said["notices"])
    moved, said = inverted(tiny_bundle, 6, capsys)
    difference = moved - plain
    assert np.abs(difference).max() > 1e-3
    assert np.abs(difference - difference[0]).max() < 1e-5
    assert any("6 steps brought the person closer" in notice for notice in said["notices"])
    assert not CHECKPOINT.exists()
    again, said = inverted(tiny_bundle, 6, capsys)
    assert any("up to date" in notice for notice in said["notices"]) and (again == moved).all()
    back, _ = inverted(tiny_bundle, 0, capsys)
    assert (back == plain).all()


def test_a_killed_correction_goes_on_to_the_same_bytes(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = inverted(tiny_bundle, 6, capsys)
    shutil.rmtree("talk.sg3")
    advance, done = Likeness._advance, []

    def killed(self: Likeness, part: int) -> None:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(self.step)
        advance(self, part)

    with monkeypatch.context() as patch:
        patch.setattr(likeness, "SAVE_SECONDS", -1.0)
        patch.setattr(Likeness, "_advance", killed)
        assert cli.run(["invert", "talk.mp4", "--model", str(tiny_bundle), "--likeness", "6"]) == 130
    assert CHECKPOINT.exists() and done == [0, 1, 2]
    left: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(Likeness, "_advance", lambda self, part: (left.append(self.step), advance(self, part)))
        resumed, _ = inverted(tiny_bundle, 6, capsys)
    assert left == [3, 4, 5] and (resumed == whole).all() and not CHECKPOINT.exists()


def test_a_damaged_checkpoint_is_said_and_begun_anew(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, _ = inverted(tiny_bundle, 4, capsys)
    shutil.rmtree("talk.sg3")
    inverted(tiny_bundle, 0, capsys)
    CHECKPOINT.write_bytes(b"no tensors")
    resumed, said = inverted(tiny_bundle, 4, capsys)
    assert (resumed == whole).all() and any("likeness.safetensors" in notice for notice in said["notices"])


def test_a_preview_shows_the_person_brought_closer(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a project, the frame that is looked at gets a correction of its own."""
    from sg3cli.drawing.images import read_image

    line = ["preview", "talk.mp4", "--model", str(tiny_bundle), "--at", "0.2s", "--view", "face", "-q", "--force"]
    for steps in ("0", "12"):
        assert cli.run([*line, "-o", f"at{steps}.png", "--likeness", steps, "--edit", "age=1"]) == 0
    assert (read_image(Path("at0.png")) != read_image(Path("at12.png"))).any()
