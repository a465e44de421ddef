"""`sg3 batch` without Ray: the same as `sg3 run`, its shards, its plan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sg3cli import cli
from sg3cli.pipeline import bench_figures
from sg3cli.weights.bundle import load_model

FAST = ["--no-finetune", "--preset=ultrafast", "--edit", "age=2"]


@pytest.fixture
def clips(tmp_path: Path, talk: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with three clips."""
    (tmp_path / "work" / "clips").mkdir(parents=True)
    for name, clip in (("1.mp4", talk), ("2.mp4", other), ("10.mp4", talk)):
        shutil.copy(clip, tmp_path / "work" / "clips" / name)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(bench_figures, "path", lambda: tmp_path / "cache" / "bench.json")
    return tmp_path / "work"


def batch(model: Path, *arguments: str) -> list[str]:
    return ["batch", "clips", "--out-dir", "out", "--model", str(model), *FAST, *arguments]


def test_shards_make_what_one_batch_and_one_run_make(
    clips: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []
    for number in (1, 2):
        assert cli.run(batch(tiny_bundle, "--shard", f"{number}/2", "--json", "--name", "{index}-{stem}{suffix}")) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["command"] == "batch" and told["ok"]
        done += [entry["output"] for entry in told["inputs"]]
    assert done == ["out/1-1.mp4", "out/3-10.mp4", "out/2-2.mp4"]  # numbers of the whole, in natural order
    run = ["run", "clips/2.mp4", "--out-dir", "single", "--model", str(tiny_bundle), *FAST]
    assert cli.run([*run, "--name", "2-{stem}{suffix}"]) == 0
    for name in ("2-2.mp4", "2-2.mp4.json", "2.sg3/invert/ws.npy"):
        assert (clips / "single" / name).read_bytes() == (clips / "out" / name).read_bytes()


def test_the_plan_says_tasks_time_and_memory_and_does_nothing(
    clips: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (clips / "clips" / "3.mp4").write_text("no video")
    files = sorted(clips.rglob("*"))
    line = batch(tiny_bundle, "--dry-run")
    assert cli.run(line) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in shown] == ["clips/1.mp4", "clips/2.mp4", "clips/3.mp4", "clips/10.mp4", "3"]
    assert shown[0].endswith("12 frames, 1 task")  # of a model that nobody has measured nothing is known
    rates = {"align": 0.5, "invert": 1.0, "finetune": 9.0, "render": 2.0}
    rows = [{"stage": s, "seconds": t, "peak_rss": int(t * 2**30)} for s, t in rates.items()]
    bench_figures.keep(load_model(str(tiny_bundle)).digest, {"threads": 1, "results": rows})
    assert cli.run([*line, "--json", "--likeness", "0"]) == 0
    told = json.loads(capsys.readouterr().out)
    first = told["plan"][0]
    assert (first["seconds"], first["memory"], first["tasks"]) == (12 * 3.5, 2 * 2**30, 1)
    assert told["seconds"] == 3 * 42 and told["measured"] and "error" in told["plan"][2]
    ray = ["--ray", "local", "--workers", "2", "--cut", "0.1", "--encode-segment", "0.16"]
    assert cli.run([*line, *ray, "--json"]) == 0  # nothing is started
    cut = json.loads(capsys.readouterr().out)
    assert cut["plan"][0]["tasks"] == 6 and cut["seconds"] == 63  # align, one range of codes, tune, three of frames
    assert cut["plan"][0]["at_least"] == 12 * (0.5 + 1 + 2 / 3)
    assert sorted(clips.rglob("*")) == files


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clips/1.mp4"], "--out-dir"),
        (["clips/1.mp4", "--out-dir", "out", "--shard", "3/2"], "the shard is '3/2'"),
        (["clips/1.mp4", "--out-dir", "out", "--workers", "2"], "--workers is for --ray"),
        (["clips/1.mp4", "--out-dir", "out", "--store", "x"], "--store is for --ray"),
        (["--out-dir", "out"], "missing argument"),
    ],
)
def test_options_that_do_not_fit(
    clips: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["batch", *arguments]) == 2
    assert said in capsys.readouterr().err and not Path("out").exists()


def test_figures_that_cannot_be_read_are_none(clips: Path) -> None:
    assert bench_figures.known("x") is None
    bench_figures.keep("x", {"threads": 2, "results": [{"stage": "align", "seconds": 0.5, "peak_rss": 7}]})
    found = bench_figures.known("x")
    assert found is not None and (found.seconds, found.memory, found.threads) == ({"align": 0.5}, {"align": 7}, 2)
    assert bench_figures.known("y") is None
    for text in ("{", "[]", '{"schema": 1, "models": {"x": {}}}', '{"schema": 2, "models": {}}'):
        bench_figures.path().write_text(text)
        assert bench_figures.known("x") is None
