"""How fast every stage of the chain is here, for each frame or step, on a clip that is made for it.

All stages are measured in one run of one process, after a short clip for which networks were read and the kernel was
compiled: the rates compare with each other, whatever else the machine does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.console import Console
from sg3cli.latents.edits import parse_edits
from sg3cli.pipeline import Job, bench_figures
from sg3cli.pipeline.open_project import open_project
from sg3cli.process_memory import peak_rss
from sg3cli.settings import InvertConfig, Settings
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.loaded_nets import LoadedNets

if TYPE_CHECKING:
    from sg3cli.nets.generator import Generator

SIZE, FACE = 512, 384  # pixels of a side: the clip's frames, and what the generator drew in them
SWAY = 6  # pixels by which the face moves to both sides
RATE = 25  # frames a second
WARM_UP = 8  # frames, and steps, of the clip that is not measured
CHAIN_FRAMES = 100  # of the clip for which shares are told
STAGES = ("decode", "align", "invert", "likeness", "finetune", "render", "encode")
WITHIN = ("decode", "encode")  # stages that others contain: no share of their own
EDIT = "age=2"


@dataclass(frozen=True)
class StageRate:
    """Wall and processor seconds that one `unit` of a stage takes, measured over `count` of them.

    `peak_rss` are the most bytes that the process had until its end.
    """

    stage: str
    unit: str
    count: int
    seconds: float
    cpu_seconds: float
    peak_rss: int = 0

    def in_chain(self, steps: int) -> int:
        """How often its unit comes in a chain of `CHAIN_FRAMES` frames and `steps` tuning steps."""
        if self.stage in WITHIN:
            return 0
        if self.stage == "likeness":
            return InvertConfig.likeness
        return steps if self.unit == "step" else CHAIN_FRAMES


def measure_stages(model: str, frames: int, steps: int) -> Iterator[StageRate]:
    """One rate for each of `STAGES`, of a clip of `frames` frames tuned in `steps` steps; kept for later estimates.

    Raises `ModelError` for a model or face model that is not here, `InputError` where no face is found in the clip.
    """
    bundle, nets = load_model(model), LoadedNets()
    with tempfile.TemporaryDirectory(prefix="sg3-bench-") as folder:
        for _ in _stages(bundle, nets, Path(folder) / "short.mp4", min(WARM_UP, frames), min(WARM_UP, steps)):
            pass
        measured = []
        for rate in _stages(bundle, nets, Path(folder) / "clip.mp4", frames, steps):
            measured.append(rate)
            yield rate
    bench_figures.keep(bundle.digest, report(measured, model))


def report(rates: list[StageRate], model: str) -> dict[str, Any]:
    """The rates as plain JSON, with each stage's share of a whole chain with the default number of steps."""
    import torch

    steps = Settings().finetune.steps
    total, cpu = (
        sum(getattr(rate, name) * rate.in_chain(steps) for rate in rates) for name in ("seconds", "cpu_seconds")
    )
    rows = []
    for rate in rates:
        share = None if rate.stage in WITHIN else rate.seconds * rate.in_chain(steps) / total
        rows.append({**asdict(rate), "per_second": 1 / max(rate.seconds, 1e-9), "share": share})
    chain = {"frames": CHAIN_FRAMES, "steps": steps, "seconds": total, "cpu_seconds": cpu}
    return {"model": model, "threads": torch.get_num_threads(), "size": SIZE, "results": rows, "chain": chain}


def _stages(bundle: Bundle, nets: LoadedNets, clip: Path, frames: int, steps: int) -> Iterator[StageRate]:
    from sg3cli.metrics.perceptual import make_perceptual
    from sg3cli.pipeline.finetune import make_tuner

    make_clip(clip, nets.generator(bundle), frames)
    settings = Settings().having(invert={"model": str(bundle.path)})
    quiet: dict[str, Any] = {"console": Console(quiet=True), "device": "cpu", "nets": nets}
    job = Job(open_project(clip, clip.with_suffix(".sg3")), settings, **quiet)
    with job.project.lock("bench"):
        yield _rate("decode", frames, lambda: _read(clip))
        yield _rate("align", frames, job.align)
        codes = _rate("invert", frames, Job(job.project, settings.having(invert={"likeness": 0}), **quiet).invert)
        yield codes
        yield _beyond(codes, _rate("likeness", settings.invert.likeness, job.invert, "step"))
        tuner = make_tuner(job, bundle, make_perceptual(settings.finetune.loss))
        yield _rate("finetune", steps, lambda: list(islice(tuner.run(), steps)), "step")
        untuned = Job(job.project, settings.having(finetune={"steps": 0}), **quiet)
        untuned.edit(parse_edits([EDIT]) if EDIT.partition("=")[0] in bundle.direction_names() else [])
        yield _rate("render", frames, lambda: untuned.render(str(clip.with_name(f"edited-{clip.name}"))))
        shown = _read(clip)
        yield _rate("encode", frames, lambda: _encode(shown, clip, clip.with_name(f"again-{clip.name}")))


def _rate(stage: str, count: int, work: Callable[[], object], unit: str = "frame") -> StageRate:
    wall, cpu = perf_counter(), process_time()
    work()
    return StageRate(stage, unit, count, (perf_counter() - wall) / count, (process_time() - cpu) / count, peak_rss())


def _beyond(part: StageRate, whole: StageRate) -> StageRate:
    """The rate of `whole`, which has done what `part` measured as well, without that."""
    seconds, cpu = (
        max(getattr(whole, name) - getattr(part, name) * part.count / whole.count, 0.0)
        for name in ("seconds", "cpu_seconds")
    )
    return replace(whole, seconds=seconds, cpu_seconds=cpu)


def make_clip(path: Path, G: Generator, frames: int) -> None:
    """A video of one face that the generator draws: it sways and its look drifts, like somebody who talks."""
    import cv2
    import torch

    from sg3cli.latents.rendering import render_crops
    from sg3cli.latents.sampling import latent
    from sg3cli.video import Frame, VideoWriter, drawn

    mean = G.mapping.w_avg.detach().cpu().numpy()
    with torch.inference_mode():
        z = torch.from_numpy(np.stack([latent(seed, G.config.z_dim) for seed in (0, 1)])).to(G.mapping.w_avg)
        person, look = G.mapping(z).cpu().numpy() - mean
    phase = np.sin(2 * np.pi * np.arange(frames) / (2 * RATE))
    ws = mean + 0.3 * person + 0.1 * phase[:, None, None] * look
    info = drawn(SIZE, SIZE, Fraction(RATE), frames)
    edge = (SIZE - FACE) // 2
    with VideoWriter(path, info) as writer:
        for index, crop in enumerate(render_crops(G, ws)):
            face = cv2.resize(crop, (FACE, FACE), interpolation=cv2.INTER_CUBIC)
            frame = cv2.copyMakeBorder(face, edge, edge, edge, edge, cv2.BORDER_REPLICATE)
            frame = np.roll(frame, round(SWAY * float(phase[index])), axis=1)
            writer.write(Frame(index, index, info.time_base, frame, 1))


def _read(clip: Path) -> list[Any]:
    from sg3cli.video import VideoReader

    with VideoReader(clip) as reader:
        return list(reader)


def _encode(frames: list[Any], clip: Path, out: Path) -> None:
    """Write the frames as edited ones: none of their pixels is the source's."""
    from sg3cli.video import VideoWriter
    from sg3cli.video.probe import probe

    with VideoWriter(out, probe(clip)) as writer:
        for frame in frames:
            writer.write(replace(frame, rgb=frame.rgb ^ 1))
