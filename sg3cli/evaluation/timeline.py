"""The timeline of a project over time: jitter, reconstruction, identity and edits frame by frame, and their image.

What a project does not hold yet is left out and named; nothing is computed anew but the images to be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sg3cli.compositing.face_mask import smooth_landmarks
from sg3cli.drawing.labelled_grid import short_name
from sg3cli.drawing.line_plot import ABSENT as ABSENT_COLOUR
from sg3cli.drawing.line_plot import BRIDGED, Line, Panel, Shade, draw
from sg3cli.evaluation.project_metrics import Subject, face_batches, open_subject
from sg3cli.faces.alignment import ABSENT, INTERPOLATED, Track
from sg3cli.latents.edits import Edit
from sg3cli.latents.inversion import spread
from sg3cli.latents.rendering import render_crops
from sg3cli.levels import to_levels
from sg3cli.metrics.reconstruction import psnr
from sg3cli.metrics.temporal import accelerations
from sg3cli.pipeline import Job
from sg3cli.smoothing import runs

POINTS = 2000  # values of a line of the edits' strengths: more than there are pixels


@dataclass
class Sampled:
    """What was read off the sampled frames, in their order."""

    gaps: np.ndarray  # [K] seconds: frames without the face, at which lines break
    times: list[float] = field(default_factory=list)
    untuned: list[float] = field(default_factory=list)  # PSNR in dB
    tuned: list[float] = field(default_factory=list)
    likeness: list[float] = field(default_factory=list)  # cosine of reconstruction and source
    edited: list[float] = field(default_factory=list)  # cosine of edited face and source; nan without an edit


def image(job: Job, samples: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The plot `[H, W, 3]` uint8 of a locked project, and its figures as plain data."""
    project = job.project
    done = [stage for stage in ("align", "invert", "finetune") if project.status(stage) == "done"]
    track = project.track() if "align" in done else None
    sampled, has_identity = None, False
    if "invert" in done:
        subject = open_subject(job, "finetune" in done)
        has_identity = subject.reading is not None
        sampled = sample(subject, job, samples)
    edits = project.edits
    duration = float(project.stream.get("duration") or (track.times[-1] if track is not None else 0.0))
    panels = [
        jitter_panel(track),
        reconstruction_panel(sampled),
        identity_panel(sampled, has_identity),
        strength_panel(edits, duration),
    ]
    source = project.manifest["source"]["path"].rpartition("/")[2]
    drawn = draw(f"{source}   {project.path.name}", panels, duration, [] if track is None else shades(track, duration))
    return drawn, facts(panels, sampled)


def facts(panels: Sequence[Panel], sampled: Sampled | None) -> dict[str, Any]:
    """Mean of every line by panel, None for panels without one, and how many frames were sampled."""
    means = {
        panel.title: {line.label: _mean(line.values) for line in panel.lines} if panel.lines else None
        for panel in panels
    }
    return {"sampled": 0 if sampled is None else len(sampled.times), "means": means}


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


# ---- measuring -----------------------------------------------------------------------------------------------------


def sample(subject: Subject, job: Job, count: int) -> Sampled:
    """Render and measure at most `count` faces, in one pass over the source."""
    present = np.flatnonzero(subject.track.status != ABSENT)
    read = Sampled(subject.track.times[subject.track.status == ABSENT])
    for batch, crops in face_batches(job, subject.track, spread(present, count), subject.G.img_resolution, "plot"):
        index = np.array([frame.index for frame in batch])
        read.times += subject.track.times[index].tolist()
        ws = subject.face.codes.take(index)
        plain: list[np.ndarray] = []
        for scores, G in ((read.untuned, subject.untuned), (read.tuned, subject.tuned)):
            if G is not None:
                plain = list(render_crops(G, ws, None, len(ws)))
                scores += [psnr(to_levels(crop), face) for crop, face in zip(crops, plain, strict=True)]
        if subject.reading is not None:
            source = subject.reading.read(crops).embedding
            read.likeness += (source * subject.reading.read(plain).embedding).sum(1).tolist()
            read.edited += edited_likeness(subject, index, source).tolist()
    return read


def edited_likeness(subject: Subject, index: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Cosine `[n]` of the edited faces and the source's embeddings `[n, E]`; nan where no edit is at work."""
    assert subject.reading is not None
    strengths = [edit.strength_at(subject.track.times[index]) for edit in subject.face.edits]
    moved = np.any(strengths, axis=0) if strengths else np.zeros(len(index), bool)
    cosines = np.full(len(index), np.nan)
    if moved.any():
        faces = list(render_crops(subject.G, subject.face.edited_codes(index[moved]), None, len(index)))
        cosines[moved] = (source[moved] * subject.reading.read(faces).embedding).sum(1)
    return cosines


def landmark_jitter(points: np.ndarray, track: Track) -> np.ndarray:
    """Mean acceleration `[T]` of `points [T, P, 2]` in pixels per second squared; nan at gaps and their edges."""
    values = np.full(len(track), np.nan)
    for run in runs(track.status != ABSENT):
        if run.stop - run.start >= 3:
            values[run.start + 1 : run.stop - 1] = accelerations(points[run], track.times[run])
    return values


# ---- panels --------------------------------------------------------------------------------------------------------


def jitter_panel(track: Track | None) -> Panel:
    title = "jitter: acceleration, pixels/s²"
    if track is None:
        return Panel(title, (), note="not computed: the face has not been looked for (sg3 align)")
    smoothed = smooth_landmarks(track.landmarks, track.times)
    kinds = {
        "landmarks, measured": track.landmarks,
        "landmarks, smoothed": smoothed,
        "face square, smoothed": track.quads,
    }
    lines = []
    for label, points in kinds.items():
        values = landmark_jitter(points, track)
        mean = _mean(values)
        lines.append(Line(label if mean is None else f"{label} (mean {mean_text(mean)})", track.times, values))
    return Panel(title, lines, log=True)


def reconstruction_panel(sampled: Sampled | None) -> Panel:
    title = "reconstruction: PSNR, dB"
    if sampled is None:
        return Panel(title, (), note="not computed: the clip has not been inverted (sg3 invert)")
    lines = [_sampled_line("inversion", sampled, sampled.untuned)]
    if sampled.tuned:
        return Panel(title, [*lines, _sampled_line("tuned", sampled, sampled.tuned)])
    return Panel(title, lines, note="tuned generator: not computed (sg3 finetune)")


def identity_panel(sampled: Sampled | None, has_identity: bool) -> Panel:
    title = "identity: cosine with the source"
    if sampled is None:
        return Panel(title, (), note="not computed: the clip has not been inverted (sg3 invert)")
    if not has_identity:
        return Panel(title, (), note="not computed: the model has no probe that reads identity")
    lines = [_sampled_line("reconstruction", sampled, sampled.likeness)]
    if np.isfinite(sampled.edited).any():
        lines.append(_sampled_line("edited", sampled, sampled.edited))
    return Panel(title, lines)


def _sampled_line(name: str, sampled: Sampled, values: list[float]) -> Line:
    """Dots that are joined where the face is seen all the time between them."""
    times, array = np.array(sampled.times), np.array(values)
    before = np.searchsorted(sampled.gaps, times)
    breaks = np.flatnonzero(np.diff(before)) + 1
    label = f"{name} (mean {mean_text(float(np.nanmean(array)))})"
    return Line(label, np.insert(times, breaks, times[breaks - 1]), np.insert(array, breaks, np.nan), dots=True)


def mean_text(value: float) -> str:
    """Four digits that count: `1062`, `98.12`, `0.9996`."""
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def strength_panel(edits: Sequence[Edit], duration: float) -> Panel:
    title = "edits: strength"
    if not edits:
        return Panel(title, (), note="no edit is set (sg3 edit)")
    times = np.linspace(0, duration, POINTS)
    return Panel(title, [Line(short_name(edit.direction), times, edit.strength_at(times)) for edit in edits])


def shades(track: Track, duration: float) -> list[Shade]:
    """Stretches without the face, and those bridged between frames with it."""
    ends = np.append(track.times[1:], max(duration, track.times[-1]))
    kinds = (("bridged", BRIDGED, INTERPOLATED), ("no face", ABSENT_COLOUR, ABSENT))
    return [
        Shade(
            label, colour, [(float(track.times[r.start]), float(ends[r.stop - 1])) for r in runs(track.status == kind)]
        )
        for label, colour, kind in kinds
    ]
