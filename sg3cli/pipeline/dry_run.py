"""What a command would compute: which stages, for about how long, in how much memory. Nothing is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sg3cli.latents.edits import Edit
from sg3cli.pipeline import bench_figures, provenance

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

CHAIN = ("align", "invert", "finetune", "render")
# Of people-128 on two cores: seconds for each frame (of a tuning: for each step), and bytes at the peak.
PACE = {"align": 1 / 120, "invert": 1 / 40, "finetune": 0.24, "render": 0.23}
REFINE = 0.08  # seconds for each frame and step of a refinement, where half of the frames follow others
LIKENESS = 0.21  # seconds for each step
PEAK = {"align": 220 << 20, "invert": 700 << 20, "finetune": 1800 << 20, "render": 810 << 20}
MEASURED = "people-128"


@dataclass(frozen=True)
class Outlook:
    """One stage: `up to date` or `to do`, and what that would take (None: not known before it has run once)."""

    stage: str
    status: str
    seconds: float | None = None
    memory: int | None = None  # bytes

    def describe(self) -> str:
        """`invert    to do, about 21 s, 0.7 GB`."""
        words = [self.status]
        if self.seconds is not None:
            words.append(f"about {self.seconds:.0f} s")
        if self.memory is not None:
            words.append(f"{self.memory / 2**30:.1f} GB")
        return f"{self.stage:<9} {', '.join(words)}"


def outlook(job: Job, last: str, out: str | None = None, edits: Sequence[Edit] | None = None) -> list[Outlook]:
    """The stages up to `last`, in their order; `out` is a render's output, `edits` those in place of the project's.

    What they take is told by their last run, else by what `sg3 bench --pipeline` has measured here, else by what it
    has measured of the embedded model elsewhere.
    """
    changed = edits is not None and [edit.to_dict() for edit in edits] != job.project.stored_edits
    found: list[Outlook] = []
    for stage in CHAIN[: CHAIN.index(last) + 1]:
        if stage == "finetune" and last == "render" and job.settings.finetune.steps == 0:
            continue
        fresh = all(other.status == "up to date" for other in found) and not (stage == "render" and changed)
        fresh = fresh and is_fresh(job, stage, out)
        found.append(Outlook(stage, "up to date") if fresh else to_do(job, stage))
    return found


def is_fresh(job: Job, stage: str, out: str | None) -> bool:
    """Whether a stage, those before it being so, has nothing to compute."""
    if stage != "render":
        return job.project.is_fresh(stage, job.key(stage, job.parts(stage)))
    return out is not None and provenance.is_current(job.project, out, job.plan().key)


def to_do(job: Job, stage: str) -> Outlook:
    """What a stage takes: as long as it took last time, or by what was measured with the embedded model."""
    before, frames = job.project.record(stage), int(job.project.stream.get("frames") or 0)
    figures = bench_figures.known(job.bundle().digest) if job.device in ("auto", "cpu") else None
    known = job.settings.invert.model == MEASURED and job.device in ("auto", "cpu")
    pace = PACE if figures is None else figures.seconds
    peak = PEAK if figures is None else figures.memory
    known = known or figures is not None
    count = job.settings.finetune.steps if stage == "finetune" else frames
    asked = {name: getattr(job.settings.invert, name) if stage == "invert" else 0 for name in ("refine", "likeness")}
    same = bool(before) and all(stage != "invert" or int(before.params.get(k, 0)) == v for k, v in asked.items())
    measured = count * (pace.get(stage, PACE[stage]) + asked["refine"] * REFINE) + asked["likeness"] * LIKENESS
    seconds = before.seconds if same else measured if known and count else None
    return Outlook(stage, "to do", seconds, peak.get(stage, PEAK[stage]) if known else None)
