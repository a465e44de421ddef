"""How fast the generator is here, and how much memory it takes: each measurement in a process of its own.

    python -m sg3cli.benchmark.run CASE

measures one case (JSON) and prints what it found; `measure` is the other end of that. A fresh process has a peak of
memory that is its own, and nothing that an earlier case left in the allocator or in the caches of torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sg3cli.errors import DeviceError, UsageError
from sg3cli.process_memory import peak_rss
from sg3cli.settings import FinetuneConfig, RenderConfig
from sg3cli.weights.bundle import load_model

if TYPE_CHECKING:
    from sg3cli.benchmark.layers import Timing
    from sg3cli.nets.generator import Generator


SIZES = ("T-256", "R-256", "T-512", "R-512", "T-1024", "R-1024")  # published widths, random weights
FORWARD, BACKWARD, RENDER, TUNING = "forward", "forward+backward", "render", "tuning step"
BATCH = {FORWARD: 1, BACKWARD: 1, RENDER: RenderConfig().batch, TUNING: FinetuneConfig().batch}
TARGETS = 8  # images to tune on
ALLOCATOR_SETTINGS = ("LD_PRELOAD", "GLIBC_TUNABLES", "SG3_MALLOC")


@dataclass(frozen=True)
class Options:
    """How everything is measured. `batch` None: 1, or what rendering and tuning do by default."""

    repeats: int = 5
    threads: int | None = None
    torch_path: bool = True
    layers: bool = False
    batch: int | None = None
    precision: str = "fp32"
    device: str = "cpu"


@dataclass(frozen=True)
class BenchCase:
    """One measurement: `task` is a pass, "layers" (forward), "layers+backward" or "peak"."""

    task: str
    config: str = ""
    kernel: bool = True  # False: the plain torch path
    batch: int = 1
    repeats: int = 5
    threads: int | None = None
    torch_path: bool = True  # of "layers": that as well
    precision: str = "fp32"  # of the kernel's path; the torch path stays float32
    peak: float | None = None  # of "layers": GFLOP/s that set the floor
    device: str = "cpu"


def passes(config: str, backward: bool, tuning: bool) -> list[str]:
    """What is measured of a configuration. Raises `UsageError` or `ModelError` when there is none of that name."""
    if config in SIZES:
        return [FORWARD, *([BACKWARD] if backward else []), *([TUNING] if tuning else [])]
    if not Path(config).is_dir() and "-" in config and config.partition("-")[0] in ("T", "R"):
        raise UsageError(f"there is no configuration {config}", f"known: {', '.join(SIZES)}, and models")
    load_model(config)
    return [FORWARD, *([BACKWARD] if backward else []), RENDER, TUNING]


def run(plan: Sequence[tuple[str, str]], options: Options) -> Iterator[dict[str, Any]]:
    """One entry for each (configuration, pass) of `plan`; what failed has no figures but an `error`."""
    peak = measure(BenchCase("peak", repeats=options.repeats, threads=options.threads, device=options.device))["gflops"]
    for config, task in plan:
        yield _entry(config, task, options, peak)


def _entry(config: str, task: str, options: Options, peak: float) -> dict[str, Any]:
    batch = options.batch or BATCH[task]
    case = BenchCase(task, config, True, batch, options.repeats, options.threads, options.torch_path)
    case = replace(case, precision=options.precision, device=options.device)
    names = ("seconds", "cpu_seconds", "peak_rss_mb", "torch_path_seconds", "floor_share")
    entry: dict[str, Any] = {
        "config": config,
        "pass": task,
        **dict.fromkeys(names),
        "batch": batch,
        "precision": options.precision,
    }
    try:
        entry |= measure(case)
        entry["images_per_second"] = batch / entry["seconds"]
        entry["conv_peak_gflops"] = peak
        entry["floor_share"] = entry["gflop"] / peak / entry["seconds"]
        if case.torch_path:
            plain = measure(replace(case, kernel=False, torch_path=True))
            entry |= {f"torch_path_{name}": plain[name] for name in names[:3]}
            entry["torch_path_ratio"] = plain["seconds"] / entry["seconds"]
        if options.layers and task in (FORWARD, BACKWARD):
            by_layer = replace(case, task=task.replace("forward", "layers"), peak=peak)
            entry["layers"] = measure(by_layer)["layers"]
    except DeviceError as error:
        entry["error"] = str(error)
    return entry


def measure(case: BenchCase) -> dict[str, Any]:
    """Run a case in a fresh process; raises `DeviceError` when that does not end well."""
    environ = dict(os.environ)
    if case.threads is not None:
        environ["OMP_NUM_THREADS"] = str(case.threads)
    if not case.kernel:
        environ["SG3_KERNEL"] = "off"
    elif case.device != "cpu":
        environ.setdefault("SG3_CUDA_KERNEL", "1")
    command = [sys.executable, "-m", "sg3cli.benchmark.run", json.dumps(asdict(case))]
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise DeviceError(f"{case.config} {case.task}: {_reason(ran)}", "try a smaller configuration or --batch 1")
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _reason(ran: subprocess.CompletedProcess[str]) -> str:
    """Why a child ended: the last line it said, or the signal."""
    if ran.returncode < 0:
        return f"killed by signal {-ran.returncode}" + (", probably out of memory" if ran.returncode == -9 else "")
    return (ran.stderr.strip().splitlines() or [f"exit code {ran.returncode}"])[-1]


# ---- in the child --------------------------------------------------------------------------------------------------


def main(argument: str) -> None:
    """Measure the case and print its figures as one line of JSON."""
    sys.stdout.write(json.dumps(examine(BenchCase(**json.loads(argument)))) + "\n")


def examine(case: BenchCase) -> dict[str, Any]:
    """The figures of a case, measured in this process."""
    import torch

    from sg3cli.benchmark import layers as bench
    from sg3cli.nets.ops import cpu_kernel, cuda_kernel

    if case.threads is not None:
        torch.set_num_threads(case.threads)
    on_gpu = case.device != "cpu"
    if on_gpu:
        torch.cuda.set_device(torch.device(case.device).index or 0)  # `cuda` alone is refused there
    torch.manual_seed(0)
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "allocator": _allocator()}
    if case.task == "peak":
        found["gflops"] = bench.peak_rate(case.repeats, case.device)
    else:
        G = open_generator(case.config).to(case.device)
        G.synthesis.impl = "auto" if case.kernel else "torch"
        G.synthesis.set_precision(case.precision)
        if case.task.startswith("layers"):
            found["layers"] = layer_rows(G, case)
        else:
            found |= asdict(time_pass(G, case))
            found["gflop"] = bench.synthesis_gflop(G.config, case.batch, case.task in (BACKWARD, TUNING))
        found["kernel"] = case.kernel and (cuda_kernel.in_use() if on_gpu else cpu_kernel.available())
    if on_gpu:
        found["peak_device_mb"] = torch.cuda.max_memory_allocated() / 1e6
    return found | {"peak_rss_mb": peak_rss() / 1e6}


def open_generator(config: str) -> Generator:
    """The model of that name, or one of the published shape with random weights."""
    from sg3cli.nets.generator import Generator
    from sg3cli.nets.generator_config import GeneratorConfig

    if config not in SIZES:
        return load_model(config).generator()
    kind, _, size = config.partition("-")
    shape = GeneratorConfig.stylegan3_t if kind == "T" else GeneratorConfig.stylegan3_r
    return Generator(shape(int(size))).eval().requires_grad_(False)


def time_pass(G: Generator, case: BenchCase) -> Timing:
    """Time the case's pass."""
    from sg3cli.benchmark import layers as bench

    if case.task == TUNING:
        return time_tuning(G, case)
    if case.task == RENDER:
        return time_render(G, case)
    return bench.bench_synthesis(G, case.batch, case.task == BACKWARD, case.repeats)


def time_render(G: Generator, case: BenchCase) -> Timing:
    """A batch of codes to images of 8 bits, as `sg3 render` does it."""
    import numpy as np

    from sg3cli.benchmark.layers import best_run
    from sg3cli.latents.rendering import render_crops

    ws = np.random.default_rng(0).standard_normal((case.batch, G.num_ws, G.w_dim))
    return best_run(lambda: list(render_crops(G, ws, None, case.batch)), case.repeats)


def time_tuning(G: Generator, case: BenchCase) -> Timing:
    """One step of pivotal tuning, as `sg3 finetune` does it: forward, loss, backward, Adam."""
    import numpy as np

    from sg3cli.benchmark.layers import best_run
    from sg3cli.latents.pivotal_tuning import PivotalTuner, Targets
    from sg3cli.metrics.perceptual import make_perceptual

    rng, size, count = np.random.default_rng(0), G.img_resolution, max(TARGETS, case.batch)
    ws = rng.standard_normal((count, G.num_ws, G.w_dim))
    images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    endless = FinetuneConfig(steps=1 << 30, patience=1 << 30, batch=case.batch)
    targets = Targets(images, np.arange(count))
    tuner = PivotalTuner(G, ws, np.tile(np.eye(3), (count, 1, 1)), targets, endless, make_perceptual(endless.loss))
    steps = tuner.run()
    return best_run(lambda: next(steps), case.repeats)


def layer_rows(G: Generator, case: BenchCase) -> list[dict[str, Any]]:
    """Per layer: seconds through the kernel and through torch, the floor, and which share of it is reached."""
    from sg3cli.benchmark.layers import bench_layers

    rows = []
    backward = case.task.endswith("backward")
    for layer in bench_layers(G, case.batch, backward, case.repeats, case.torch_path, case.peak):
        best = layer.torch if layer.kernel is None else layer.kernel
        rows.append(
            {
                "name": layer.name,
                "seconds": best,
                "torch_path_seconds": layer.torch,
                "floor_seconds": layer.floor,
                "floor_share": None if best is None else layer.floor / best,
                "gflop": layer.gflop,
            }
        )
    return rows


def _allocator() -> str:
    """What was set about memory allocation; "default" when nothing was."""
    chosen = [f"{name}={os.environ[name]}" for name in ALLOCATOR_SETTINGS if os.environ.get(name)]
    return ", ".join(chosen) or "default"


if __name__ == "__main__":
    main(sys.argv[1])
