"""`sg3 invert --refine` in a project: what it adds is kept, smoothed, tuned on, edited and drawn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sg3cli import cli
from sg3cli.drawing.images import read_image
from sg3cli.latents.inversion import smooth_codes
from sg3cli.latents.rendering import to_uint8
from sg3cli.project import Project
from sg3cli.weights.bundle import load_model


@pytest.fixture
def here(talk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(talk, tmp_path / "talk.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drawn(*more: str) -> list[np.ndarray]:
    """The faces that `render` draws without tuning."""
    shutil.rmtree("out", ignore_errors=True)
    line = ["render", "talk.sg3", "-o", "out/%04d.png", "--view", "face", "--finetune-steps", "0", "--force", "-q"]
    assert cli.run([*line, *more]) == 0
    return [read_image(path).astype(int) for path in sorted(Path("out").glob("*.png"))]


def test_styles_and_poses_that_were_refined_are_what_is_rendered(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invert = ["invert", "talk.mp4", "--model", str(tiny_bundle), "--json"]
    assert cli.run([*invert, "--refine", "3", "--refine-space", "s"]) == 0
    said = json.loads(capsys.readouterr().out)
    facts = said["stages"]["invert"]["refined"]
    assert facts["space"] == "s" and facts["steps"] == 3 and facts["after"] < facts["before"]
    assert any("3 steps in s took the loss" in notice for notice in said["notices"])
    G, project = load_model(tiny_bundle).generator(), Project.open(Path("talk.sg3"))
    ws, shift = (np.load(f"talk.sg3/invert/{name}.npy") for name in ("ws", "shift"))
    track, sizes = project.track(), G.config.style_sizes
    assert shift.shape == (12, sum(sizes.values())) and np.abs(shift[:, 4:]).max() > 0
    frames = drawn("--smooth", "paper")
    smooth = smooth_codes(ws, track.times, track.shots, "paper")
    fine = [j >= round(9 / 16 * 8) for j, size in enumerate(sizes.values()) for _ in range(size)]
    by_row = np.where(fine, shift.mean(0), shift)[:, None]  # colour does not change within a shot
    styles_smooth = smooth_codes(by_row, track.times, track.shots, "paper", fine=1)[:, 0]
    for frame in (0, 7):
        with torch.no_grad():
            styles = G.synthesis.style_space(torch.from_numpy(smooth[frame : frame + 1]))
            parts = torch.split(torch.from_numpy(styles_smooth[frame : frame + 1]).float(), list(sizes.values()), dim=1)
            moved = {name: s + part for (name, s), part in zip(styles.items(), parts, strict=True)}
            image = G.synthesis.from_styles(moved, torch.from_numpy(track.transforms[frame]).float())
        assert np.abs(frames[frame] - to_uint8(image)[0]).max() <= 1
    assert cli.run([*invert, "--refine", "3", "--refine-space", "pose"]) == 0
    assert not Path("talk.sg3/invert/shift.npy").exists()
    pose, track = np.load("talk.sg3/invert/pose.npy"), Project.open(Path("talk.sg3")).track()
    assert pose.shape == (12, 3, 3) and np.abs(pose - np.eye(3)).max() > 1e-4
    frames = drawn("--smooth", "none")
    with torch.no_grad():
        image = G.synthesis(torch.from_numpy(ws[5:6]), torch.from_numpy(pose[5] @ track.transforms[5]).float())
    assert np.abs(frames[5] - to_uint8(image)[0]).max() <= 1
    capsys.readouterr()
    assert cli.run(invert) == 0 and not Path("talk.sg3/invert/pose.npy").exists()
    assert "refined" not in json.loads(capsys.readouterr().out)["stages"]["invert"]


def test_a_refined_inversion_is_found_again_tuned_on_edited_and_previewed(here: Path, tiny_bundle: Path) -> None:
    refine = ["--model", str(tiny_bundle), "--refine", "2", "--refine-space", "s"]
    tuning = ["--finetune-steps=2", "--finetune-batch=2", "--loss=structural", "--edit", "L2:3=0s:0,0.4s:9", "-q"]
    assert cli.run(["run", "talk.mp4", "-o", "a.mp4", *refine, *tuning]) == 0
    stamp = Path("talk.sg3/invert/shift.npy").stat().st_mtime_ns
    assert cli.run(["invert", "talk.mp4", *refine, "-q"]) == 0
    assert Path("talk.sg3/invert/shift.npy").stat().st_mtime_ns == stamp
    look = ["preview", "--at", "0.2s", "--no-labels", "--columns", "edits", "--view", "face", "--draft", "-q"]
    assert cli.run([*look, "talk.sg3", "-o", "known.png"]) == 0
    assert (
        cli.run([*look, "talk.mp4", "--project", "other.sg3", *refine, "--edit", "L2:3=0s:0,0.4s:9", "-o", "anew.png"])
        == 0
    )
    known, anew = (read_image(Path(f"{name}.png")).astype(int) for name in ("known", "anew"))
    assert np.abs(known - anew).mean() < 6  # other neighbours, another leader: nearly the same face


class Stopped(Exception):
    """A kill."""


def test_a_killed_refinement_goes_on_to_the_same_bytes(
    here: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first block of eight frames is kept; the second is done by the second run alone."""
    from sg3cli.latents import refinement
    from sg3cli.pipeline import Job
    from sg3cli.settings import Settings
    from sg3cli.video.probe import probe

    monkeypatch.setattr("sg3cli.latents.inversion.BLOCK_PIXELS", 128)
    monkeypatch.setattr("sg3cli.pipeline.invert.CHUNK", 1)
    wanted = Settings().having(invert={"model": str(tiny_bundle), "refine": 2, "refine_space": "s"})
    whole, killed = (
        Project.of_source(Path("talk.mp4"), here / f"{name}.sg3", probe(Path("talk.mp4")).to_dict()) for name in "ab"
    )
    Job(whole, wanted).invert()
    calls, call = [], refinement.Refiner.__call__

    def counted(self: refinement.Refiner, *args: np.ndarray) -> refinement.Refined:
        calls.append(len(args[0]))
        if len(calls) == 2:
            raise Stopped
        return call(self, *args)

    monkeypatch.setattr(refinement.Refiner, "__call__", counted)
    with pytest.raises(Stopped):
        Job(killed, wanted).invert()
    Job(Project.open(killed.path), wanted).invert()
    assert calls == [8, 4, 4]
    for name in ("ws", "shift"):
        first, second = ((folder.path / "invert" / f"{name}.npy").read_bytes() for folder in (whole, killed))
        assert first == second, name
