"""`sg3 bench`: the figures mean what they say, each is measured by itself, and a failure costs only its own row."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config, tiny_generator

from sg3cli import cli
from sg3cli.benchmark import layers as timing
from sg3cli.benchmark import run
from sg3cli.benchmark.layers import BUDGET, bench_layers, bench_synthesis, best_run, synthesis_gflop
from sg3cli.benchmark.run import BACKWARD, FORWARD, RENDER, TUNING, BenchCase, Options, measure, passes, time_tuning
from sg3cli.cli.bench import entry_lines
from sg3cli.errors import DeviceError, ModelError, UsageError
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.nets.ops import cpu_kernel
from sg3cli.settings import FinetuneConfig, RenderConfig

SHAPE = {"config", "pass", "seconds", "cpu_seconds", "peak_rss_mb", "torch_path_seconds", "floor_share"}


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BenchCase]]:
    """Cases are measured here, not in a new interpreter each, and the peak is given; lists those that were."""
    cases: list[BenchCase] = []
    threads = torch.get_num_threads()

    def measured(case: BenchCase) -> dict[str, Any]:
        cases.append(case)
        return {"gflops": 50.0} if case.task == "peak" else run.examine(case)

    monkeypatch.setattr(run, "measure", measured)
    yield cases
    torch.set_num_threads(threads)


def answer(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = cli.run(["bench", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


# ---- counting


@pytest.mark.parametrize(
    ("config", "gflop"),
    [
        (GeneratorConfig.stylegan3_t(256), 219),
        (GeneratorConfig.stylegan3_t(512), 570),
        (GeneratorConfig.stylegan3_t(1024), 616),
        (GeneratorConfig.stylegan3_r(256), 128),
        (GeneratorConfig.stylegan3_r(512), 350),
        (GeneratorConfig.stylegan3_r(1024), 447),
    ],
)
def test_the_work_of_the_published_shapes(config: GeneratorConfig, gflop: int) -> None:
    """Counted independently: the convolutions with their border, polyphase up, down only where samples are kept."""
    assert round(synthesis_gflop(config, 1, False)) == gflop
    assert synthesis_gflop(config, 2, True) == pytest.approx(6 * synthesis_gflop(config, 1, False))


def test_the_best_run_counts_and_the_warm_up_does_not() -> None:
    naps = iter([0.0, 0.05, 0.02, 0.04])
    found = best_run(lambda: time.sleep(next(naps)), 3)
    assert 0.02 <= found.seconds < 0.04 and found.runs == 3
    assert found.cpu_seconds < 0.015  # sleeping is no work


def test_a_slow_case_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BUDGET > 10
    monkeypatch.setattr(timing, "BUDGET", 0.05)
    naps = iter([0.06])
    assert best_run(lambda: time.sleep(next(naps)), 5).runs == 1  # the warm-up itself
    naps = iter([0.01, 0.06])
    assert best_run(lambda: time.sleep(next(naps)), 5).seconds >= 0.06


def test_forward_keeps_no_graph_and_backward_reaches_codes_and_all_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpu_kernel.available() in (True, False)  # its check at first use takes gradients of its own
    G, seen = tiny_generator(), []
    real = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *given: seen.append((given, real(*given))) or seen[-1][1])
    bench_synthesis(G, 2, False, 1)
    assert not seen
    bench_synthesis(G, 2, True, 1)
    (image, inputs, _), gradients = seen[-1]
    assert image.shape == (2, 3, 32, 32) and len(inputs) == 1 + len(list(G.synthesis.parameters()))
    assert inputs[0].shape == (2, 8, 32) and all(g.abs().sum() > 0 for g in gradients)


def test_the_peak_of_the_machine_is_in_gflop_per_second() -> None:
    began = time.perf_counter()
    found = run.examine(BenchCase("peak", repeats=1))["gflops"]
    longest = time.perf_counter() - began  # for two runs of 31.7 GFLOP, one of which is measured
    assert 31.7 / longest < found < 1e6


def test_layers_can_be_timed_without_the_torch_path_against_a_given_rate() -> None:
    G = tiny_generator()
    rows = list(bench_layers(G, repeats=1, torch_path=False, rate=2.0))
    assert [row.name for row in rows] == list(G.layer_names)
    assert all(row.torch is None and row.floor == row.gflop / 2.0 for row in rows)


def test_a_tuning_step_is_the_one_of_finetune(monkeypatch: pytest.MonkeyPatch) -> None:
    from sg3cli.latents.pivotal_tuning import PivotalTuner

    seen = []
    real = PivotalTuner._advance
    monkeypatch.setattr(PivotalTuner, "_advance", lambda tuner: seen.append((tuner, real(tuner))) or seen[-1][1])
    G = tiny_generator()
    before = {name: p.clone() for name, p in G.named_parameters()}
    assert time_tuning(G, BenchCase(TUNING, batch=4, repeats=2)).runs == 2
    tuner, last = seen[-1]
    assert last.step == len(seen) == 3 and tuner.config.batch == 4 and len(tuner.targets.frames) >= 4
    assert any(delta.abs().sum() > 0 for delta in tuner.delta().values())
    assert all(torch.equal(before[name], p) for name, p in G.named_parameters())


# ---- one process each


def test_a_case_is_measured_in_a_process_of_its_own(tiny_bundle: Path) -> None:
    ballast = np.ones(100_000_000)  # 0.8 GB here, which the child's peak must not hold
    found = measure(BenchCase(FORWARD, str(tiny_bundle), kernel=False, batch=2, repeats=1, threads=1))
    assert ballast.nbytes / 1e6 > found["peak_rss_mb"] > 50
    assert (found["kernel"], found["threads"], found["runs"]) == (False, 1, 1)
    assert found["gflop"] == pytest.approx(synthesis_gflop(tiny_config(), 2, False))
    assert 0 < found["seconds"] < 30 and found["cpu_seconds"] > 0


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("kill -9 $$", "forward: killed by signal 9, probably out of memory"),
        ("kill -11 $$", "forward: killed by signal 11$"),
        ("echo Traceback >&2; echo no such thing >&2; exit 1", "forward: no such thing"),
        ("exit 3", "forward: exit code 3"),
    ],
)
def test_a_child_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, script: str, what: str) -> None:
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda _, **options: real(["/bin/sh", "-c", script], **options))
    with pytest.raises(DeviceError, match=f"^R-1024 {what}"):
        measure(BenchCase(FORWARD, "R-1024"))


def test_on_a_gpu_the_cuda_kernel_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def child(command: list[str], env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
        case = json.loads(command[-1])
        seen.append((case["task"], case["device"], env.get("SG3_CUDA_KERNEL"), env.get("SG3_KERNEL")))
        return subprocess.CompletedProcess(command, 0, '{"gflops": 50.0, "seconds": 1, "cpu_seconds": 1,'
                                           ' "gflop": 9, "peak_rss_mb": 9, "peak_device_mb": 7}')  # fmt: skip

    monkeypatch.delenv("SG3_CUDA_KERNEL", raising=False)
    monkeypatch.delenv("SG3_KERNEL", raising=False)
    monkeypatch.setattr(subprocess, "run", child)
    (entry,) = run.run([("R-256", FORWARD)], Options(device="cuda:0"))
    assert seen == [
        ("peak", "cuda:0", "1", None),
        (FORWARD, "cuda:0", "1", None),
        (FORWARD, "cuda:0", None, "off"),
    ]
    (row,) = entry_lines(entry)
    assert row.split()[6] == "7"  # the memory of the device


@pytest.mark.parametrize(("device", "number"), [("cuda", 0), ("cuda:1", 1)])
def test_a_device_is_set_by_its_number(monkeypatch: pytest.MonkeyPatch, device: str, number: int) -> None:
    """`cuda` alone is no device that can be set: seen on an H100."""
    seen = []
    monkeypatch.setattr(torch.cuda, "set_device", seen.append)
    monkeypatch.setattr(timing, "peak_rate", lambda *_: 1.0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    run.examine(BenchCase("peak", device=device))
    assert seen == [number]


@pytest.mark.gpu
def test_a_case_on_a_gpu() -> None:
    """Times the kernel against plain torch there: `-s` shows both."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    (entry,) = run.run([("R-256", BACKWARD)], Options(repeats=3, layers=True, device="cuda"))
    print(json.dumps(entry, indent=1))
    assert entry["kernel"] and entry["peak_device_mb"] > 0 and entry["torch_path_ratio"] > 0


# ---- the command


def test_what_is_measured(tiny_bundle: Path) -> None:
    assert passes("R-1024", False, False) == [FORWARD]
    assert passes("T-256", True, True) == [FORWARD, BACKWARD, TUNING]
    assert passes("people-128", False, False) == [FORWARD, RENDER, TUNING]
    assert passes(str(tiny_bundle), True, False) == [FORWARD, BACKWARD, RENDER, TUNING]
    with pytest.raises(UsageError, match="R-300") as caught:
        passes("R-300", False, False)
    assert "R-1024" in caught.value.hint
    with pytest.raises(ModelError, match="nobody"):
        passes("nobody", False, False)


def test_json_is_the_agreed_object(
    tiny_bundle: Path, in_process: list[BenchCase], capsys: pytest.CaptureFixture
) -> None:
    code, out, _ = answer(capsys, tiny_bundle, "--repeats", 1, "--json")
    assert code == 0 and len(out.splitlines()) == 1
    found = json.loads(out)
    assert set(found) == {"schema", "results"} and found["schema"] == 1
    assert [entry["pass"] for entry in found["results"]] == [FORWARD, RENDER, TUNING]
    for entry, batch in zip(found["results"], (1, RenderConfig().batch, FinetuneConfig().batch), strict=True):
        assert entry.keys() >= SHAPE and entry["config"] == str(tiny_bundle) and entry["batch"] == batch
        assert all(entry[name] > 0 for name in SHAPE - {"config", "pass"})
        assert entry["images_per_second"] == pytest.approx(batch / entry["seconds"])
        assert entry["torch_path_ratio"] == pytest.approx(entry["torch_path_seconds"] / entry["seconds"])
        floor = entry["gflop"] / entry["conv_peak_gflops"]
        assert entry["floor_share"] == pytest.approx(floor / entry["seconds"])
    forward, _, tuning = found["results"]
    assert tuning["gflop"] == pytest.approx(3 * FinetuneConfig().batch * forward["gflop"])
    assert [(case.task, case.kernel) for case in in_process] == [
        ("peak", True),
        *((task, kernel) for task in (FORWARD, RENDER, TUNING) for kernel in (True, False)),
    ]


def test_without_the_torch_path_its_figures_are_null(
    tiny_bundle: Path, in_process: list[BenchCase], capsys: pytest.CaptureFixture
) -> None:
    options = ("--no-torch-path", "--layers", "--backward", "--repeats", 1, "--batch", 2, "--threads", 1)
    entries = json.loads(answer(capsys, tiny_bundle, *options, "--json")[1])["results"]
    assert all(case.kernel for case in in_process)
    assert all((entry["torch_path_seconds"], entry["batch"], entry["threads"]) == (None, 2, 1) for entry in entries)
    forward, backward, *rest = entries
    assert not any("layers" in entry for entry in rest)
    for entry, factor in ((forward, 1), (backward, 3)):
        assert [layer["name"] for layer in entry["layers"]] == list(tiny_config().layer_names)
        assert all(layer["torch_path_seconds"] is None and layer["floor_share"] > 0 for layer in entry["layers"])
        assert sum(layer["gflop"] for layer in entry["layers"]) <= entry["gflop"] == factor * forward["gflop"]
        first = entry["layers"][0]
        assert first["floor_seconds"] == pytest.approx(first["gflop"] / entry["conv_peak_gflops"])


def test_a_table_for_people(tiny_bundle: Path, in_process: list[BenchCase], capsys: pytest.CaptureFixture) -> None:
    code, out, err = answer(capsys, tiny_bundle, "--repeats", 1, "--no-torch-path", "--layers")
    head, *rows = out.splitlines()
    assert code == 0 and "Traceback" not in err
    assert head.split()[:3] == ["config", "pass", "batch"] and len(rows) == 3 + len(tiny_config().layer_names)
    assert len({len(row) for row in (head, *rows)}) == 1  # columns stand under each other
    assert [row.split()[1] for row in rows if not row.startswith("  ")] == [FORWARD, RENDER, "tuning"]


def test_one_that_fails_leaves_the_others(
    tiny_bundle: Path, in_process: list[BenchCase], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    measured = run.measure

    def failing(case: BenchCase) -> dict[str, Any]:
        if case.task == RENDER:
            raise DeviceError("render: killed by signal 9")
        return measured(case)

    monkeypatch.setattr(run, "measure", failing)
    code, out, err = answer(capsys, tiny_bundle, "--repeats", 1, "--no-torch-path", "--json")
    forward, render, tuning = json.loads(out)["results"]
    assert code == 6 and "signal 9" in err
    assert forward["seconds"] > 0 < tuning["seconds"]
    assert render.keys() >= SHAPE and render["seconds"] is None and "signal 9" in render["error"]
    assert next(iter(entry_lines(render))).split()[-1] == "-"


def test_when_nothing_can_be_measured_the_error_is_the_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def broken(case: BenchCase) -> dict[str, Any]:
        if case.task != "peak":
            raise DeviceError("out of memory")
        return {"gflops": 1.0}

    monkeypatch.setattr(run, "measure", broken)
    code, out, err = answer(capsys, "r-256", "--json")
    assert code == 5 and json.loads(out)["error"]["what"] == "out of memory" and err.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [(["Q-256"], 4, "Q-256"), (["T-100"], 2, "T-100"), (["T-256", "--repeats", "0"], 2, "repeats")],
)
def test_a_wrong_question_is_answered_at_once(
    capsys: pytest.CaptureFixture, arguments: list[str], code: int, what: str
) -> None:
    found, out, err = answer(capsys, *arguments)
    assert (found, out) == (code, "") and what in err


def test_without_the_kernel_that_is_said(
    tiny_bundle: Path, in_process: list[BenchCase], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sg3cli.nets.ops.cpu_kernel.available", lambda: False)
    code, out, err = answer(capsys, tiny_bundle, "--repeats", 1, "--no-torch-path", "--json")
    assert code == 0 and "plain torch was measured" in err
    assert not any(entry["kernel"] for entry in json.loads(out)["results"])


def test_options_have_one_set_of_defaults() -> None:
    assert Options() == Options(5, None, True, False, None) and BenchCase("peak").repeats == Options().repeats
