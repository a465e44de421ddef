"""What a batch will take: each clip's tasks, seconds and memory, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sg3cli.latents.edits import Edit
from sg3cli.pipeline import Job, bench_figures
from sg3cli.pipeline.batch.plan import cuts_of
from sg3cli.pipeline.dry_run import outlook


@dataclass(frozen=True)
class ClipPlan:
    """One clip. `seconds` of one worker, and of as many as have work (`at_least`); `memory` in bytes; None: unknown.

    `measured`: they come from what `sg3 bench --pipeline` has measured here, not from another machine.
    """

    frames: int
    tasks: int
    seconds: float | None
    at_least: float | None
    memory: int | None
    measured: bool

    def describe(self) -> str:
        """`1000 frames, 10 tasks, about 180 s, 1.8 GB a worker`."""
        if self.tasks == 0:
            return f"{self.frames} frames, up to date"
        words = [f"{self.frames} frames", f"{self.tasks} task{'s' if self.tasks > 1 else ''}"]
        words += [] if self.seconds is None else [f"about {self.seconds:.0f} s"]
        words += [] if self.memory is None else [f"{self.memory / 2**30:.1f} GB a worker"]
        return ", ".join(words)


@dataclass(frozen=True)
class BatchPlan:
    """All clips together, by `workers` (None: as many as there will be)."""

    clips: int
    workers: int | None
    seconds: float | None
    memory: int | None
    measured: bool

    def describe(self) -> str:
        """`3 clips: about 10 min of one worker, 5 min of 2; 1.8 GB each`, and where the figures come from."""
        words = [f"{self.clips} clip{'' if self.clips == 1 else 's'}"]
        if self.seconds is not None:
            by = "one worker" if self.workers is None else f"{self.workers} worker{'s' if self.workers > 1 else ''}"
            words.append(f"about {_time(self.seconds)} of {by}")
        words += [] if self.memory is None else [f"{self.memory / 2**30:.1f} GB each"]
        origin = (
            "measured here" if self.measured else "as another machine was; `sg3 bench --pipeline` measures this one"
        )
        return ", ".join(words) + ("" if self.seconds is None else f" ({origin})")


def of_clip(job: Job, out: str, edits: Sequence[Edit] | None, longest: float) -> ClipPlan:
    """The plan of a clip that is cut if it is longer than `longest` seconds. Raises as the job itself would."""
    frames = int(job.project.stream.get("frames") or 0)
    entries = [entry for entry in outlook(job, "render", out, edits) if entry.status == "to do"]
    measured = bench_figures.known(job.bundle().digest) is not None
    if not entries:
        return ClipPlan(frames, 0, 0.0, 0.0, None, measured)
    resolution = job.bundle().origin.config.img_resolution
    cuts = cuts_of(job.project.stream, job.settings, out, resolution, longest)
    ranges = {"invert": len(cuts.invert), "render": len(cuts.render)}
    tasks = sum(ranges.get(entry.stage, 1) for entry in entries if entry.stage != "finetune") + 1 if cuts else 1
    known = all(entry.seconds is not None for entry in entries)
    seconds = sum(entry.seconds or 0.0 for entry in entries) if known else None
    least = sum((entry.seconds or 0.0) / max(ranges.get(entry.stage, 1), 1) for entry in entries) if known else None
    memory = max((entry.memory for entry in entries if entry.memory is not None), default=None)
    return ClipPlan(frames, tasks, seconds, least, memory, measured)


def of_all(clips: Sequence[Mapping[str, Any]], workers: int | None) -> BatchPlan:
    """The plan of all, of plans as data. Workers share the work, but no clip is done before its longest way is."""
    known = all(clip["seconds"] is not None for clip in clips)
    total = sum(clip["seconds"] for clip in clips) / (workers or 1) if known else None
    if total is not None:
        total = max([total, *(clip["at_least"] for clip in clips)])
    memory = max((clip["memory"] for clip in clips if clip["memory"] is not None), default=None)
    return BatchPlan(len(clips), workers, total, memory, all(clip["measured"] for clip in clips))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
