"""`sg3 bench --pipeline`: a rate for every stage, shares of the chain that add up, and a clip that is what it says."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from running import sg3
from tiny import tiny_generator

from sg3cli import cli
from sg3cli.benchmark import pipeline
from sg3cli.benchmark.pipeline import SIZE, STAGES, StageRate, make_clip, measure_stages, report
from sg3cli.pipeline import bench_figures
from sg3cli.settings import InvertConfig, Settings
from sg3cli.video import VideoReader
from sg3cli.weights.bundle import load_model


def test_shares_are_those_of_the_chain_and_what_others_contain_has_none():
    steps = Settings().finetune.steps
    rates = [
        StageRate("decode", "frame", 10, 5.0, 5.0),
        StageRate("align", "frame", 10, 0.5, 0.25),
        StageRate("finetune", "step", 4, 50 / steps, 0.1),
        StageRate("encode", "frame", 10, 5.0, 5.0),
    ]
    found = report(rates, "some")
    seconds, cpu_seconds = pytest.approx(100), pytest.approx(25 + 0.1 * steps)
    assert found["chain"] == {"frames": 100, "steps": steps, "seconds": seconds, "cpu_seconds": cpu_seconds}
    assert [row["share"] for row in found["results"]] == [None, pytest.approx(0.5), pytest.approx(0.5), None]
    assert found["results"][1]["per_second"] == 2 and found["results"][1]["cpu_seconds"] == 0.25


def test_the_clip_is_a_face_that_moves(tmp_path: Path):
    make_clip(tmp_path / "clip.mp4", tiny_generator(), 12)
    with VideoReader(tmp_path / "clip.mp4") as reader:
        frames = [frame.rgb.astype(int) for frame in reader]
    assert len(frames) == 12 and frames[0].shape == (SIZE, SIZE, 3)
    assert all(np.abs(b - a).mean() > 0.05 for a, b in pairwise(frames))


def test_every_stage_is_measured_per_frame_or_step(tmp_path: Path, talk: Path, tiny_bundle: Path, monkeypatch):
    """On a clip with a face, because a random generator draws none."""
    monkeypatch.setattr(pipeline, "make_clip", lambda path, G, frames: shutil.copy(talk, path))
    monkeypatch.setattr(pipeline, "WARM_UP", 1)
    monkeypatch.setattr(bench_figures, "path", lambda: tmp_path / "cache" / "bench.json")
    ticks = iter(range(1000))
    monkeypatch.setattr(pipeline, "perf_counter", lambda: 12.0 * next(ticks))
    rates = list(measure_stages(str(tiny_bundle), 12, 3))
    assert [rate.stage for rate in rates] == list(STAGES)
    steps = {"finetune": 3, "likeness": InvertConfig.likeness}
    assert [(rate.unit, rate.count) for rate in rates] == [
        ("step" if s in steps else "frame", steps.get(s, 12)) for s in STAGES
    ]
    found = {rate.stage: rate.seconds for rate in rates}
    assert found == {**dict.fromkeys(STAGES, 1.0), "finetune": 4.0, "likeness": 0.0}  # it took no longer than the codes
    assert all(0 <= rate.cpu_seconds < 10 for rate in rates)
    kept = bench_figures.known(load_model(str(tiny_bundle)).digest)
    assert kept is not None and kept.seconds == {rate.stage: rate.seconds for rate in rates}
    assert kept.memory["render"] >= kept.memory["decode"] > 50 << 20


def test_what_likeness_takes_is_what_it_takes_beyond_the_codes():
    codes, both = StageRate("invert", "frame", 100, 0.05, 0.08), StageRate("likeness", "step", 30, 0.4, 0.5, 7)
    found = pipeline._beyond(codes, both)
    assert (found.stage, found.unit, found.count, found.peak_rss) == ("likeness", "step", 30, 7)
    assert found.seconds == pytest.approx((12 - 5) / 30) and found.cpu_seconds == pytest.approx((15 - 8) / 30)


def test_table_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    asked = []

    def measured(model: str, frames: int, steps: int):
        asked.append((model, frames))
        yield from (StageRate(stage, "frame", frames, 0.02, 0.04) for stage in STAGES)

    monkeypatch.setattr(pipeline, "measure_stages", measured)
    assert cli.run(["bench", "--pipeline", "--frames", "5", "-q"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert asked == [("people-128", 5)] and [line.split()[0] for line in lines[1:-1]] == list(STAGES)
    assert lines[3].split() == ["invert", "frame", "20.0", "40.0", "50.0", "23", "%"]
    assert cli.run(["bench", "some", "--pipeline", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (
        told["model"] == "some"
        and told["results"][2]["per_second"] == 50
        and told["chain"]["seconds"] == pytest.approx(8 + 0.02 * InvertConfig.likeness)
    )


@pytest.mark.parametrize("names", [["R-256"], ["people-128", "other"]])
def test_it_measures_one_model(names: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.run(["bench", "--pipeline", *names]) == 2
    assert "--pipeline measures one model" in capsys.readouterr().err


@pytest.mark.slow
def test_the_face_of_the_made_clip_is_found(tmp_path: Path, face_model: None):
    ran = sg3("bench", "people-128", "--pipeline", "--frames", "8", cwd=tmp_path)
    assert ran.code == 0 and "align" in ran.out
