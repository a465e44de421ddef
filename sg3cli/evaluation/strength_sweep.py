"""One direction at several strengths: what an attribute net reads off the faces, and a grid for people to look at.

The aligned faces of a few frames are rendered at each strength, everything else as it is. A direction that does what
its name says moves its own label steadily and leaves the others where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.drawing.images import write_png
from sg3cli.errors import UsageError
from sg3cli.evaluation.face_reading import Readings
from sg3cli.evaluation.project_metrics import Subject, face_batches, open_subject
from sg3cli.faces.alignment import ABSENT
from sg3cli.latents.edits import Edit, Keyframe, make_edit
from sg3cli.latents.inversion import spread
from sg3cli.latents.rendering import render_crops
from sg3cli.levels import to_uint8
from sg3cli.pipeline import Job
from sg3cli.pipeline.load_edits import load_edits

FRAMES = 16  # so many are measured, evenly spread, unless `every` says otherwise
COLUMNS = 8  # frames in the grid


@dataclass
class SweepReadings:
    """Readings by strength, batch by batch, and the columns of the grid."""

    readings: list[list[Readings]]  # [strength][batch]
    sources: list[Readings] = field(default_factory=list)
    columns: list[np.ndarray] = field(default_factory=list)  # [(1 + strengths) * N, N, 3] uint8


def sweep(
    job: Job, direction: str, strengths: Sequence[float], every: int | None = None, grid: Path | None = None
) -> dict[str, Any]:
    """Label readings and slopes of `direction` on a locked project whose codes are there; writes `grid` (PNG).

    Raises `UsageError` when the clip has not been inverted or the direction is unknown.
    """
    if job.project.status("invert") != "done":
        what = f"{job.project.path} holds no codes that are up to date"
        raise UsageError(what, f"run `sg3 finetune {job.project.path}` first")
    subject = open_subject(job, job.project.status("finetune") == "done")
    if subject.tuned is None:
        job.console.notice("evaluate: finetune is not done, the untuned generator is shown")
    (edit,) = load_edits([make_edit(direction, "1")], job.bundle(), job.nets).edits
    present = np.flatnonzero(subject.track.status != ABSENT)
    frames = present[::every] if every else spread(present, FRAMES)
    shown = set(spread(frames, COLUMNS).tolist())
    sweep = SweepReadings([[] for _ in strengths])
    for batch, crops in face_batches(job, subject.track, frames, subject.G.img_resolution, "sweep"):
        index = np.array([frame.index for frame in batch])
        rows = [strong_faces(subject, index, edit, strength) for strength in strengths]
        read_batch(sweep, subject, crops, rows)
        for k in [k for k, frame in enumerate(index.tolist()) if frame in shown]:
            sweep.columns.append(np.concatenate([to_uint8(crops[k]), *(row[k] for row in rows)]))
    if grid is not None:
        write_png(grid, np.concatenate(sweep.columns, axis=1))
    summed_up = summary(subject, sweep, strengths)
    return {"direction": direction, "strengths": list(strengths), "frames": len(frames), **summed_up}


def strong_faces(subject: Subject, index: np.ndarray, edit: Edit, strength: float) -> list[np.ndarray]:
    """Aligned faces `[N, N, 3]` uint8 of the frames `index [n]` edited at this strength, by no other edit."""
    constant = replace(edit, keyframes=(Keyframe(0.0, strength),))
    codes = constant.apply(subject.face.codes.take(index), subject.track.times[index])
    return list(render_crops(subject.G, codes, None, len(codes)))


def read_batch(sweep: SweepReadings, subject: Subject, crops: list[np.ndarray], rows: list[list[np.ndarray]]) -> None:
    """Add the attribute net's readings of a batch, if there is an attribute net."""
    if subject.reading is not None:
        sweep.sources.append(subject.reading.read(crops))
        for readings, images in zip(sweep.readings, rows, strict=True):
            readings.append(subject.reading.read(images))


def summary(subject: Subject, sweep: SweepReadings, strengths: Sequence[float]) -> dict[str, Any]:
    """Mean readings and slopes per label, and the identity kept at each strength; None without an attribute net."""
    if subject.reading is None:
        return {"labels": None, "identity": None}
    means = np.stack([np.concatenate([part.labels for part in parts]).mean(axis=0) for parts in sweep.readings])
    std = subject.reading.spread
    source = np.concatenate([part.embedding for part in sweep.sources])
    kept = [(np.concatenate([part.embedding for part in parts]) * source).sum(1).mean() for parts in sweep.readings]
    names = subject.reading.labels
    return {
        "labels": {name: response(strengths, means[:, k], float(std[k])) for k, name in enumerate(names)},
        "identity": [float(value) for value in kept],
    }


def response(strengths: Sequence[float], means: np.ndarray, std: float) -> dict[str, Any]:
    """Least-squares slope of the mean readings `[S]` against the strengths, per unit of strength."""
    order = np.argsort(strengths)
    steps = np.diff(means[order])
    s = np.asarray(strengths, np.float64) - np.mean(strengths)
    spread_of = float((s * s).sum())
    slope = float((s * means).sum() / spread_of) if spread_of > 0 else None
    return {
        "means": [float(value) for value in means],
        "slope": slope,
        "slope_std": None if slope is None else slope / std,
        "monotone": bool((steps > 0).all() or (steps < 0).all()) if len(steps) else None,
    }
