"""How well a project came out, in figures: timing, faces, reconstruction, identity, labels, pixels outside the mask.

Everything is measured on what the project holds; nothing is computed anew but the images to be measured. A figure that
could not be computed is None, never 0. Faces are compared as aligned crops at the generator's resolution, where the
source, its reconstruction (no edit) and the edited face lie on each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.compositing.face_mask import edge_mask, face_mask, landmarks_in_window
from sg3cli.compositing.map_maker import MapMaker
from sg3cli.compositing.paste import warp_alpha
from sg3cli.evaluation.face_reading import FaceReading, open_reading
from sg3cli.evaluation.transfer_figures import transfer_figures
from sg3cli.faces.alignment import ABSENT, FOUND, INTERPOLATED, Track
from sg3cli.faces.crops import aligned_crops
from sg3cli.latents.inversion import spread
from sg3cli.latents.rendering import render_crops
from sg3cli.metrics.perceptual import PerceptualLoss, make_perceptual
from sg3cli.metrics.reconstruction import ReconstructionReport, reconstruction_report
from sg3cli.metrics.temporal import jitter, outside_difference
from sg3cli.nets.generator import Generator
from sg3cli.pipeline import Job
from sg3cli.pipeline.device import choose_device
from sg3cli.pipeline.face_crops import FaceEdits, with_smooth_landmarks
from sg3cli.pipeline.face_paster import CompositingInputs, FacePaster
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.invert import smoothed_codes
from sg3cli.pipeline.paste_inputs import map_maker
from sg3cli.pipeline.presence import presence
from sg3cli.pipeline.render import compose
from sg3cli.pipeline.render_plan import plan
from sg3cli.settings import RenderConfig
from sg3cli.smoothing import runs
from sg3cli.video import Frame, VideoReader, frame_pts, packet_digest
from sg3cli.video.probe import probe
from sg3cli.weights.bundle import ATTRIBUTE_NET

PASTED = 12  # frames whose paste is checked
STAGES = ("align", "invert", "finetune")
IMAGE_FIGURES = ("frames", "resolution", "reconstruction", "read_by", "identity", "labels", "outside", "transfer")

Figures = dict[str, Any]


def evaluate(job: Job, outputs: Sequence[str], every: int = 1) -> Figures:
    """Figures of a locked project and of the videos rendered from it, on every `every`-th frame."""
    project = job.project
    done = [stage for stage in STAGES if project.status(stage) == "done"]
    for stage in STAGES:
        if stage not in done:
            job.console.notice(f"evaluate: {stage} is {project.status(stage)}, what needs it is not computed")
    source = project.source()
    figures: Figures = {"timing": [timing(source, Path(out), project.video_track) for out in outputs]}
    figures["faces"] = face_figures(project.track()) if "align" in done else None
    images = dict.fromkeys(
        ("frames", "resolution", "reconstruction", "read_by", "identity", "labels", "outside", "transfer")
    )
    if "invert" in done:
        images = measure_images(open_subject(job, "finetune" in done), job, every)
    return figures | images


# ---- timing and faces ----------------------------------------------------------------------------------------------


def timing(source: Path, output: Path, track: int | None = None) -> Figures:
    """Whether frames, timestamps, duration and sound of `output` are the source's.

    Timestamps are compared as exact fractions of a second; `audio_equal` is None when neither has sound.
    """
    before, after = probe(source, track=track), probe(output)
    # An output begins earlier by `lead` where the source's clock begins in hours or below zero.
    times = [
        [pts * info.time_base - lead for pts in frame_pts(info.path, of)]
        for info, lead, of in ((before, before.lead, track), (after, Fraction(0), None))
    ]
    differences = [abs(a - b) for a, b in zip(*times, strict=False)]
    sound = [packet_digest(info.path, "audio") for info in (before, after)]
    return {
        "output": str(output),
        "frames": len(times[1]),
        "source_frames": len(times[0]),
        "pts_equal": times[0] == times[1],
        "pts_max_difference": float(max(differences)) if differences else None,
        "duration": after.duration,
        "source_duration": before.duration,
        "duration_equal": abs(after.duration - before.duration) < 1e-6,
        "audio_packets": len(sound[1]),
        "source_audio_packets": len(sound[0]),
        "audio_equal": sound[0] == sound[1] if any(sound) else None,
    }


def face_figures(track: Track) -> Figures:
    """Frames by how the face was found, and the jitter of its square (pixels per second squared) before and after."""
    status = track.status
    gaps = [gap.stop - gap.start for gap in runs(status != FOUND)]
    return {
        "frames": len(status),
        "found": int(np.count_nonzero(status == FOUND)),
        "interpolated": int(np.count_nonzero(status == INTERPOLATED)),
        "absent": int(np.count_nonzero(status == ABSENT)),
        "longest_gap": max(gaps, default=0),
        "jitter_raw": present_jitter(track.quads_raw, track),
        "jitter_smoothed": present_jitter(track.quads, track),
    }


def present_jitter(quads: np.ndarray, track: Track) -> float | None:
    """`jitter` of `quads [T, 4, 2]` over the stretches with a face; None when none has three frames."""
    stretches = [run for run in runs(track.status != ABSENT) if run.stop - run.start >= 3]
    if not stretches:
        return None
    values = [jitter(quads[run], track.times[run]) for run in stretches]
    return float(np.average(values, weights=[run.stop - run.start - 2 for run in stretches]))


# ---- what is measured ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A project's inversion, opened for measuring. `tuned` is None before fine-tuning."""

    face: FaceEdits  # the first one that the project edits
    untuned: Generator
    tuned: Generator | None
    reading: FaceReading | None  # None: the model reads no faces

    @property
    def G(self) -> Generator:
        """The generator that renders."""
        return self.tuned or self.untuned

    @property
    def track(self) -> Track:
        """Where the face is."""
        return self.face.track


def open_subject(job: Job, tuned: bool) -> Subject:
    """Read what the project holds of its first face; raises `ModelError` when it belongs to another model."""
    bundle, track = job.bundle().origin, job.project.track()  # an adapted model's own look is no likeness
    device = choose_device(job.device, job.console)
    codes = smoothed_codes(job.project, bundle, track, job.smooth(), job=job)
    reading, wanted = open_reading(bundle, job.console), plan(job, bundle, tuned)
    if reading is None:
        job.console.notice(f"evaluate: {bundle.name} has no {ATTRIBUTE_NET}, identity and labels are not computed")
    return Subject(
        face=wanted.of_face(track, codes, job.project.faces[0]),
        untuned=tuned_generator(job.project, bundle, False, job.nets).to(device),
        tuned=tuned_generator(job.project, bundle, True, job.nets).to(device) if tuned else None,
        reading=reading,
    )


def face_batches(
    job: Job, track: Track, frames: np.ndarray, size: int, label: str
) -> Iterator[tuple[list[Frame], list[np.ndarray]]]:
    """Those of `frames [K]` (indices) that show the face, with their aligned crops; one batch in memory."""
    wanted = set(frames[track.status[frames] != ABSENT].tolist())
    with VideoReader(job.project.source(), **job.project.reading) as reader:
        passing = (frame for frame in reader if frame.index in wanted)
        shown = iter(job.console.progress(passing, len(wanted), label))
        while batch := list(islice(shown, job.settings.render.batch)):
            crops = [crop for crop in aligned_crops(batch, track, size) if crop is not None]
            yield batch, crops


# ---- images ------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Scores that grow batch by batch."""

    reports: dict[str, list[ReconstructionReport]] = field(default_factory=lambda: {"tuned": [], "untuned": []})
    cosines: dict[str, list[np.ndarray]] = field(default_factory=lambda: {"reconstruction": [], "edited": []})
    changes: list[np.ndarray] = field(default_factory=list)  # [n, K] per batch: label of edited minus unedited
    outside: list[int] = field(default_factory=list)


def measure_images(subject: Subject, job: Job, every: int) -> Figures:
    """Reconstruction, identity, labels and the paste, in one pass over the source."""
    loss = make_perceptual("auto")
    tally = Tally()
    size = subject.G.img_resolution
    frames = np.arange(0, len(subject.track), every)
    present = frames[subject.track.status[frames] != ABSENT]
    pasted = set(spread(present, PASTED).tolist())
    config = replace(job.settings.render, view="frame")
    maker = map_maker(config.transfer, job.bundle(), job.nets, subject.face.edits)
    for batch, crops in face_batches(job, subject.track, frames, size, "evaluate"):
        index = np.array([frame.index for frame in batch])
        plain = measure_reconstruction(tally, subject, index, crops, loss)
        if subject.reading is not None:
            measure_likeness(tally, subject, index, crops, plain)
        chosen = [frame for frame in batch if frame.index in pasted]
        tally.outside += outside_differences(subject, chosen, config, maker)
    return {
        "frames": len(present),
        "resolution": size,
        "reconstruction": {name: merged(reports) for name, reports in tally.reports.items()},
        "read_by": subject.reading.name if subject.reading else None,
        "identity": {name: mean_and_least(parts) for name, parts in tally.cosines.items()},
        "labels": label_changes(subject.reading, tally.changes),
        "outside": {"frames": len(tally.outside), "max_difference": max(tally.outside)} if tally.outside else None,
        "transfer": transfer_figures(job, subject.face, subject.G, config, sorted(pasted)),
    }


def measure_reconstruction(
    tally: Tally, subject: Subject, index: np.ndarray, crops: list[np.ndarray], loss: PerceptualLoss
) -> list[np.ndarray]:
    """Score the unedited renders of frames `index` against their crops; returns those of the best generator."""
    ws = subject.face.codes.take(index)
    plain: list[np.ndarray] = []
    for name, G in (("untuned", subject.untuned), ("tuned", subject.tuned)):
        if G is not None:
            plain = list(render_crops(G, ws, None, len(ws)))
            report = reconstruction_report(crops, plain, loss)
            tally.reports[name].append(replace(report, frames=index))
    return plain


def measure_likeness(
    tally: Tally, subject: Subject, index: np.ndarray, crops: list[np.ndarray], plain: list[np.ndarray]
) -> None:
    """Identity of reconstruction and edit against the source, and how far the edit moves each label."""
    assert subject.reading is not None
    source, unedited = subject.reading.read(crops), subject.reading.read(plain)
    tally.cosines["reconstruction"].append((source.embedding * unedited.embedding).sum(1))
    strengths = [edit.strength_at(subject.track.times[index]) for edit in subject.face.edits]
    moved = np.any(strengths, axis=0) if strengths else np.zeros(len(index), bool)
    if moved.any():
        images = list(render_crops(subject.G, subject.face.edited_codes(index[moved]), None, len(index)))
        edited = subject.reading.read(images)
        tally.cosines["edited"].append((source.embedding[moved] * edited.embedding).sum(1))
        tally.changes.append(edited.labels - unedited.labels[moved])


def outside_differences(
    subject: Subject, frames: list[Frame], config: RenderConfig, maker: MapMaker | None = None
) -> list[int]:
    """For each frame the largest difference that the paste makes where its mask is 0, before encoding.

    With `maker` the source's pixels follow the edit: then only those outside the window must stay.
    """
    track = with_smooth_landmarks(subject.track)  # the mask that the paste uses
    opacity = presence(track.times, track.status)
    size = subject.G.img_resolution
    results = compose(iter(frames), subject.face, subject.G, config, CompositingInputs(maker=maker))
    found = []
    for frame, result in zip(frames, results, strict=True):
        window = track.windows[frame.index]
        alpha = np.ones((size, size), np.float32)
        if maker is not None and FacePaster(track, config, size).transfers:
            alpha = edge_mask(size, config.feather)
        elif config.stitch == "paste":
            points = landmarks_in_window(track.landmarks[frame.index], window, size)
            alpha = face_mask(points, size, config.feather)
        seen = warp_alpha(alpha * np.float32(opacity[frame.index]), window, frame.rgb.shape[:2])
        found.append(outside_difference(frame.rgb, result.rgb, seen))
    return found


# ---- from rows to figures ------------------------------------------------------------------------------------------


def merged(reports: Sequence[ReconstructionReport]) -> Figures | None:
    """The batches' reports as one; None without any."""
    if not reports:
        return None
    columns = {
        name: np.concatenate([getattr(report, name) for report in reports])
        for name in ("frames", "psnr", "ms_ssim", "perceptual")
    }
    return ReconstructionReport(**columns, perceptual_name=reports[0].perceptual_name).to_dict()


def mean_and_least(parts: Iterable[np.ndarray]) -> Figures | None:
    """Mean and minimum of values `[n]` that came in parts."""
    values = np.concatenate([np.empty(0), *parts])
    return {"frames": len(values), "mean": float(values.mean()), "min": float(values.min())} if len(values) else None


def label_changes(reading: FaceReading | None, changes: Sequence[np.ndarray]) -> Figures | None:
    """Mean change of each label in its own unit, and in standard deviations of the people it was learned on."""
    if reading is None or not changes:
        return None
    mean = np.concatenate(changes).mean(axis=0)
    rows = zip(reading.labels, mean, mean / reading.spread, strict=True)
    return {name: {"change": float(change), "change_std": float(standard)} for name, change, standard in rows}
