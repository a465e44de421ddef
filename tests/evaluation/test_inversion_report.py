"""`sg3 evaluate inversion` on the tiny model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from model_reports import draw_pictures, evaluate, lively_reader, without_backbones
from tiny import tiny_generator

from sg3cli.evaluation import inversion_report
from sg3cli.evaluation.inversion_report import measured
from sg3cli.evaluation.inversion_subjects import Subject
from sg3cli.levels import to_signed
from sg3cli.metrics.perceptual import StructuralLoss

SMALL = ("--pictures=2", "--restyle=2", "--likeness=3", "--optimise=4", "--refine=5", "--tune=8")
KEYS = ("l2", "features", "ms_ssim", "identity", "seconds", "memory_mb")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    without_backbones(monkeypatch)


def test_every_way_is_measured_on_both_kinds_of_pictures(tiny_bundle: Path, tmp_path: Path) -> None:
    pictures, reader = draw_pictures(tmp_path / "own", 4), lively_reader(tmp_path / "reader.safetensors")
    table, told = evaluate("inversion", pictures, "--model", tiny_bundle, "--reader", reader, *SMALL, folder=tmp_path)
    rows = {row["method"]: row for row in told["methods"]}
    assert list(rows) == [
        *("encoder, one pass", "ReStyle, 2 passes", "likeness, 3 steps", "optimisation, 4 steps"),
        *("encoder + refinement, 5 steps", "PTI, 8 steps"),
    ]
    for row in rows.values():
        for lie in ("aligned", "unaligned"):
            assert set(row[lie]) == set(KEYS) and all(row[lie][key] is not None for key in KEYS)
            assert row[lie]["seconds"] > 0 and row[lie]["memory_mb"] > 50 and row[lie]["identity"] < 1.001
    best, encoder = rows["PTI, 8 steps"], rows["ReStyle, 2 passes"]
    for lie in ("aligned", "unaligned"):  # it is tuned to each
        assert best[lie]["l2"] < encoder[lie]["l2"] and best[lie]["features"] < encoder[lie]["features"]
    assert rows["encoder + refinement, 5 steps"]["aligned"]["l2"] < encoder["aligned"]["l2"]
    assert told["pictures"] == ["000.png", "003.png"] and told["not_computed"] == {}
    assert "feature distance: structural; identity by reader.safetensors" in table


def test_without_encoder_and_reader_the_rest_is_measured_and_it_is_said_why(tiny_bundle: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_bundle, tmp_path / "bare")
    (model / "encoder.safetensors").unlink()
    pictures = draw_pictures(tmp_path / "own", 1)
    table, told = evaluate("inversion", pictures, "--model", model, *SMALL, folder=tmp_path)
    assert [row["method"] for row in told["methods"]] == ["optimisation, 4 steps", "PTI, 8 steps"]
    assert told["methods"][0]["aligned"]["identity"] is None
    assert "has no encoder" in told["not_computed"]["ReStyle"] and "--reader" in told["not_computed"]["identity"]
    assert table.count("not computed:") == 5
    l2 = [row["aligned"]["l2"] for row in told["methods"]]
    assert l2[1] < l2[0]  # tuned at the code that was found


def test_a_killed_run_does_not_invert_again_what_it_has(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = draw_pictures(tmp_path / "own", 2)
    steps = ("--restyle=2", "--likeness=1", "--optimise=1", "--refine=1", "--tune=1")
    command = ("inversion", pictures, "--model", tiny_bundle, *steps)
    begun, whole = [], inversion_report._one

    def counted(G, method, *rest):
        begun.append(method.name)
        if method.tunes and "killed" not in begun:
            begun.append("killed")
            raise KeyboardInterrupt
        return whole(G, method, *rest)

    monkeypatch.setattr(inversion_report, "_one", counted)
    with pytest.raises((KeyboardInterrupt, AssertionError)):
        evaluate(*command, folder=tmp_path)
    assert begun[-1] == "killed" and len(begun) == 12 and (tmp_path / "report.parts").is_dir()
    evaluate(*command, folder=tmp_path)
    assert begun[12:] == ["PTI, 1 steps"] * 2 and not (tmp_path / "report.parts").exists()


def test_frames_of_a_project_share_one_correction(tuned: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    steps = ("--restyle=1", "--likeness=2", "--optimise=1", "--refine=1", "--tune=1", "--pictures=3")
    _, told = evaluate("inversion", tuned / "talk.sg3", "--model", tiny_bundle, *steps, folder=tmp_path)
    assert [row["method"] for row in told["methods"]][1] == "likeness, 2 steps for all"
    assert told["pictures"] == ["frame 0", "frame 6", "frame 11"]
    for row in told["methods"]:
        assert row["aligned"]["l2"] != row["unaligned"]["l2"] and row["aligned"]["seconds"] > 0


def test_what_all_share_is_added_to_each_code_and_paid_for_by_each() -> None:
    grey = np.zeros((32, 32, 3), np.float32)
    subjects = [Subject(str(k), grey, grey, np.eye(3), np.zeros((4, 2))) for k in range(3)]
    G, starts = tiny_generator(), np.zeros((3, 8, 32), np.float32)
    rows = list(inversion_report._all(G, lambda some, codes: codes + np.arange(3)[:, None, None], subjects, starts, 1))
    assert [row["ws"].mean() for row in rows] == [1, 2] and rows[0]["aligned"].shape == (32, 32, 3)
    assert rows[0]["seconds-aligned"] == pytest.approx(rows[1]["seconds-aligned"])


def test_figures_are_those_of_the_pair_in_their_units() -> None:
    grey = np.full((32, 32, 3), 100, np.uint8)
    subject = Subject("x", to_signed(grey), to_signed(grey + 10), np.eye(3), np.zeros((4, 2)))
    rows = {"aligned": grey[None] + 10, "unaligned": grey[None] + 10}
    rows |= {f"seconds-{lie}": np.array([2.0]) for lie in ("aligned", "unaligned")}
    rows |= {"memory-aligned": np.array([3e6]), "memory-unaligned": np.array([-1.0])}
    found = measured(rows, [subject], StructuralLoss(), None)
    assert found["aligned"]["l2"] == pytest.approx((10 / 127.5) ** 2, rel=1e-4)
    assert found["unaligned"]["l2"] == 0 and found["unaligned"]["ms_ssim"] == pytest.approx(1)
    assert (found["aligned"]["seconds"], found["aligned"]["memory_mb"]) == (2, 3)
    assert found["unaligned"]["memory_mb"] is None and found["aligned"]["identity"] is None
