"""`sg3 bench`: time, memory and share of the floor, or the pace of every stage, as a table or as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from sg3cli.benchmark import run as measuring
from sg3cli.benchmark.run import SIZES, Options
from sg3cli.cli.flags import Session
from sg3cli.console import SCHEMA
from sg3cli.errors import BatchError, DeviceError, UsageError
from sg3cli.settings import PRECISIONS

DEFAULT = ("people-128", "T-256", "R-256")
HEAD = (
    f"{'config':<12}{'pass':<18}{'batch':>6}{'seconds':>9}{'cpu s':>9}{'img/s':>8}{'peak MB':>9}"
    f"{'torch s':>9}{'ratio':>8}{'floor':>8}"
)
MISSING = "-"
STAGE_HEAD = f"{'stage':<10}{'of':>6}{'ms':>10}{'cpu ms':>10}{'per s':>9}{'share':>8}"
TUNING_STEPS = 24  # of `--pipeline`

Configs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="CONFIG",
        help=f"{', '.join(SIZES)} (random weights), or models [default: {', '.join(DEFAULT)}].",
        show_default=False,
    ),
]
Backward = Annotated[
    bool, typer.Option("--backward", help="Also with the gradients of codes and weights.", show_default=False)
]
Tuning = Annotated[
    bool, typer.Option("--tuning", help="Also a step of pivotal tuning (models always).", show_default=False)
]
Repeats = Annotated[int, typer.Option("--repeats", metavar="K", min=1, help="Runs of which the best counts.")]
Threads = Annotated[int | None, typer.Option("--threads", metavar="N", min=1, help="Threads [default: torch's].")]
NoTorch = Annotated[
    bool, typer.Option("--no-torch-path", help="Leave out the comparison with plain torch.", show_default=False)
]
Layers = Annotated[bool, typer.Option("--layers", help="Also each layer by itself.", show_default=False)]
Batch = Annotated[
    int | None,
    typer.Option(
        "--batch", metavar="N", min=1, help="Pictures at once [default: 1; what render and finetune take, for those]."
    ),
]
Precision = Annotated[
    str, typer.Option("--precision", metavar="|".join(PRECISIONS), help="Arithmetic of the convolutions.")
]
Device = Annotated[
    str, typer.Option("--device", metavar="cpu|cuda", help="Where to measure; on a GPU with the CUDA kernel.")
]
Pipeline = Annotated[
    bool,
    typer.Option(
        "--pipeline",
        help="Instead the stages, frame by frame, on a clip that is made for it; CONFIG is one model.",
        show_default=False,
    ),
]
Frames = Annotated[int, typer.Option("--frames", metavar="N", min=1, help="Frames of that clip.")]


def bench(
    session: Session,
    configs: Configs = None,
    backward: Backward = False,
    tuning: Tuning = False,
    repeats: Repeats = Options.repeats,
    threads: Threads = None,
    no_torch_path: NoTorch = False,
    layers: Layers = False,
    batch: Batch = None,
    precision: Precision = Options.precision,
    device: Device = Options.device,
    pipeline: Pipeline = False,
    frames: Frames = 48,
) -> None:
    """Measure the generator on this machine: time, memory, and how near it comes to the floor of its arithmetic."""
    if pipeline:
        bench_pipeline(session, list(configs or DEFAULT[:1]), frames, threads)
        return
    names = list(dict.fromkeys(name.upper() if name.upper() in SIZES else name for name in configs or DEFAULT))
    plan = [(name, task) for name in names for task in measuring.passes(name, backward, tuning)]
    if precision not in PRECISIONS:
        raise UsageError(f"--precision is {precision!r}", f"choose one of: {', '.join(PRECISIONS)}")
    if device != Options.device:
        from sg3cli.pipeline.device import choose_device

        device = str(choose_device(device, session.console))
    options = Options(repeats, threads, not no_torch_path, layers, batch, precision, device)
    session.console.data(HEAD)
    results = []
    for entry in session.console.progress(measuring.run(plan, options), len(plan), "bench"):
        results.append(entry)
        for line in entry_lines(entry):
            session.console.data(line)
    if any(entry.get("kernel") is False for entry in results):
        session.console.notice("bench: the compiled kernel is not here (see sg3 doctor): plain torch was measured")
    failed = [entry for entry in results if "error" in entry]
    if len(failed) == len(results):
        raise DeviceError(failed[0]["error"], "try a smaller configuration or --batch 1")
    if session.console.as_json:
        typer.echo(json.dumps({"schema": SCHEMA, "results": results}))
    for entry in failed:
        session.console.notice(f"bench: {entry['error']}")
    if failed:
        raise typer.Exit(BatchError.code)


def bench_pipeline(session: Session, models: list[str], frames: int, threads: int | None) -> None:
    """What a frame, or a step of tuning, takes in every stage, and each stage's share of a whole chain.

    `--dry-run` tells its estimates by the last such measurement of a model.
    """
    if len(models) > 1 or models[0].upper() in SIZES:
        raise UsageError(
            f"--pipeline measures one model, not {' '.join(models)}", "name a model: --pipeline people-128"
        )
    import torch

    from sg3cli.benchmark import pipeline as stages

    if threads is not None:
        torch.set_num_threads(threads)
    rates = stages.measure_stages(models[0], frames, TUNING_STEPS)
    measured = list(session.console.progress(rates, len(stages.STAGES), "bench"))
    found = stages.report(measured, models[0])
    if session.console.as_json:
        typer.echo(json.dumps({"schema": SCHEMA, **found}))
    for line in stage_lines(found):
        session.console.data(line)


def stage_lines(found: dict[str, Any]) -> Iterator[str]:
    """The table of `--pipeline`, and the chain that the shares are of."""
    yield STAGE_HEAD
    for row in found["results"]:
        yield (
            f"{row['stage']:<10}{row['unit']:>6}{number(1e3 * row['seconds'], 1):>10}"
            f"{number(1e3 * row['cpu_seconds'], 1):>10}{number(row['per_second'], 1):>9}{percent(row['share']):>8}"
        )
    chain = found["chain"]
    took = f"{chain['seconds']:.0f} s, {chain['cpu_seconds']:.0f} s of processors ({found['threads']} threads)"
    yield f"{chain['frames']} frames and {chain['steps']} steps: {took}"


def entry_lines(entry: dict[str, Any]) -> Iterator[str]:
    """A row of the table, and the layers beneath it."""
    memory = entry.get("peak_device_mb", entry["peak_rss_mb"])
    yield (
        f"{entry['config'][-11:]:<12}{entry['pass']:<18}{entry['batch']:>6}"
        f"{number(entry['seconds'], 3):>9}{number(entry['cpu_seconds'], 3):>9}"
        f"{number(entry.get('images_per_second'), 2):>8}{number(memory, 0):>9}"
        f"{number(entry['torch_path_seconds'], 3):>9}{number(entry.get('torch_path_ratio'), 1):>8}"
        f"{percent(entry['floor_share']):>8}"
    )
    for layer in entry.get("layers", ()):
        yield (
            f"  {layer['name']:<34}{number(layer['seconds'], 4):>9}{'':>26}"
            f"{number(layer['torch_path_seconds'], 4):>9}{'':>8}{percent(layer['floor_share']):>8}"
        )


def number(value: float | None, digits: int) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.0f} %"
