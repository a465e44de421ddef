"""An edited video against its source, in figures that hold for any editor: both are decoded from their files.

What could not be computed is None, never 0. Ratios are edited over source: 1 is as in the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.console import Console
from sg3cli.errors import InputError
from sg3cli.evaluation.face_reading import FaceReading, open_reading
from sg3cli.evaluation.paired_frames import FaceFollower, check_shapes, pairs
from sg3cli.evaluation.video_pass import Judges, Seen, VideoPass
from sg3cli.faces.alignment import Track
from sg3cli.faces.detectors import make_detector
from sg3cli.faces.identity_embedding import make_embedder
from sg3cli.latents.edits import Edit, edits_of
from sg3cli.metrics.frechet import FaceFeatures, clip_features, frechet_from
from sg3cli.metrics.perceptual import make_perceptual
from sg3cli.metrics.sound_shift import sound_shift
from sg3cli.metrics.temporal import accelerations, identity_consistency
from sg3cli.project import Project
from sg3cli.smoothing import runs
from sg3cli.video import VideoReader
from sg3cli.video.shot_detection import find_shots
from sg3cli.video.sound_samples import sound_samples
from sg3cli.weights.bundle import Bundle, load_model

CLIP = 16  # judged frames in a row
MIN_FRAMES, MIN_CLIPS = 64, 32  # below which a Frechet distance is mostly chance
FEATURES = "attribute net of people-128"
APPEARANCE = "own appearance descriptor"
GLOBAL = 1000  # faces that are compared with one another, all pairs
SOUND_RATE = 8000
TINY = 1e-9

Figures = dict[str, Any]


@dataclass(frozen=True)
class Judged:
    """A video's figures, and what they were made of, frame by frame."""

    figures: Figures
    seen: Seen


def make_judges(bundle: Bundle | None, embedder: str | None, console: Console) -> Judges:
    """Those that are at hand: who a face is says `embedder`, else the model's reader, else the own descriptor."""
    reading = open_reading(bundle or load_model("people-128"), console)
    vectors = make_embedder(embedder)
    by_reading = embedder is None and reading is not None
    named = f"embedder {Path(embedder).name}" if embedder else APPEARANCE
    name = reading.name if reading is not None and by_reading else named
    return Judges(make_perceptual("auto"), FaceFeatures(), reading, vectors, name, by_reading)


@dataclass
class JudgeStore:
    """The networks that judge, read once for all clips whose projects have the same model."""

    embedder: str | None
    console: Console
    known: dict[str | None, Judges] = field(default_factory=dict)

    def of(self, model: str | None) -> Judges:
        """Those of a model, None: of people-128. Raises `ModelError`."""
        if model not in self.known:
            bundle = None if model is None else load_model(model)
            self.known[model] = make_judges(bundle, self.embedder, self.console)
        return self.known[model]


def video_figures(
    source: Path,
    edited: Path,
    judges: Judges,
    console: Console,
    every: int = 1,
    track: Track | None = None,
    edits: Sequence[Edit] = (),
    reading: dict[str, Any] | None = None,
) -> Figures:
    """Figures of the video `edited` against `source`; see `judge`."""
    return judge(source, edited, judges, console, every, track, edits, reading).figures


def judge(
    source: Path,
    edited: Path,
    judges: Judges,
    console: Console,
    every: int = 1,
    track: Track | None = None,
    edits: Sequence[Edit] = (),
    reading: dict[str, Any] | None = None,
) -> Judged:
    """The video `edited` against `source`, which is read with the settings `reading`.

    `track` says which face of the source, and `edits` what was asked for. Raises `InputError` for videos that cannot
    be laid on each other, or when the source shows no face.
    """
    with VideoReader(source, **(reading or {})) as before, VideoReader(edited) as after:
        check_shapes(before.info, after.info)
        if (before.info.width, before.info.height) != (after.info.width, after.info.height):
            console.notice(f"evaluate: {edited} has another size and is compared at the source's")
        judging = VideoPass(judges, FaceFollower(make_detector(), make_detector()), every, track)
        seen = judging.over(console.progress(pairs(before, after), len(before) or None, "evaluate"))
        total = len(before)
    if not seen.judged:
        raise InputError(f"no face was found in {source}", "give a clip in which a face is seen from the front")
    if len(seen.times) < total:
        console.notice(f"evaluate: {edited} ends early, {len(seen.times)} of {total} frames judged")
    figures: Figures = {"source": str(source), "edited": str(edited), "source_frames": total}
    figures |= {"frames": len(seen.times), "judged": len(seen.judged), "every": every}
    figures |= of_images(seen, judges) | of_motion(seen, judges)
    figures |= {
        "identity": identity(seen, judges.identity),
        "attributes": attributes(seen, judges.reading, edits),
        "sound": sound(source, edited),
    }
    return Judged(figures, seen)


def judge_output(project: Project, out: Path, judges: Judges, console: Console, every: int = 1) -> Judged:
    """The video `out` against the source of a locked project, on the first face that it edits."""
    track = project.track() if project.status("align") == "done" else None
    edits = edits_of(project.edits, project.faces[0])
    return judge(project.source(), out, judges, console, every, track, edits, project.reading)


def ratio(source: float, edited: float) -> float | None:
    """edited / source; 1 when neither has any, None when the source alone has none."""
    if not np.isfinite([source, edited]).all():
        return None
    if abs(source) <= TINY:
        return 1.0 if abs(edited) <= TINY else None
    return edited / source


def mean(values: Sequence[float]) -> float | None:
    """Of the finite values."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None


def means_ratio(rows: Sequence[tuple[float, float]]) -> float | None:
    """Of the means of (source, edited)."""
    source, edited = (mean([row[k] for row in rows]) for k in (0, 1))
    return None if source is None or edited is None else ratio(source, edited)


def of_images(seen: Seen, judges: Judges) -> Figures:
    """What single frames say."""
    rows = np.array(seen.outside)
    return {
        "distance": {
            "network": judges.perceptual.name,
            "mean": mean(seen.distance),
            "max": max(seen.distance),
        },
        "frechet": frechet([np.array(seen.features)]),
        "sharpness": means_ratio(seen.sharp),
        "seam": mean(seen.seam),
        "outside": {
            "mean": float(rows[:, 0].mean()),
            "max": int(rows[:, 1].max()),
            "share": float(rows[:, 2].mean()),
        },
    }


def frechet(features: Sequence[np.ndarray]) -> Figures:
    """Distances over the frames of all videos together and over their stretches of `CLIP` judged frames.

    `features` are those of a video's judged frames, `[N, 2, K]` (source, edited).
    """
    frames = [np.concatenate([video[:, side] for video in features]) for side in (0, 1)]
    clips = [np.concatenate([clip_features(video[:, side], CLIP) for video in features]) for side in (0, 1)]
    return {
        "network": FEATURES,
        "frames": frechet_from(frames[0], frames[1], MIN_FRAMES),
        "frames_used": len(frames[0]),
        "min_frames": MIN_FRAMES,
        "clips": frechet_from(clips[0], clips[1], MIN_CLIPS),
        "clips_used": len(clips[0]),
        "min_clips": MIN_CLIPS,
    }


def of_motion(seen: Seen, judges: Judges) -> Figures:
    """What frames in a row say, within a shot."""
    shots = shots_of(seen)
    steps = [step for index, step in seen.steps if shots[index] == shots[index - 1]]
    flicker = [abs(step.change[1] - step.change[0]) for step in steps]
    temporal = [abs(step.distance[1] - step.distance[0]) for step in steps]
    found = [int(np.isfinite([pair[k] for pair in seen.landmarks]).all(axis=(1, 2)).sum()) for k in (0, 1)]
    return {
        "faces": {"source": found[0], "edited": found[1]},
        "steps": len(steps),
        "temporal": {"network": judges.perceptual.name, "mean": mean(temporal)},
        "warping": {
            "source": mean([step.warping[0] for step in steps]),
            "edited": mean([step.warping[1] for step in steps]),
            "ratio": means_ratio([step.warping for step in steps]),
        },
        "flicker": {"levels": mean(flicker), "ratio": means_ratio([step.unrest for step in steps])},
        "frozen": sum(step.frozen for step in steps),
        "jitter": landmark_jitter(seen, shots),
    }


def landmark_jitter(seen: Seen, shots: np.ndarray) -> Figures:
    """Mean acceleration of the landmarks of both, in pixels/s^2, where both are seen three frames in a row."""
    source, edited = (mean(values) for values in accelerations_of(seen, shots))
    known = source is not None and edited is not None
    return {"source": source, "edited": edited, "ratio": ratio(source or 0.0, edited or 0.0) if known else None}


def accelerations_of(seen: Seen, shots: np.ndarray) -> np.ndarray:
    """`[2, T]` (source, edited): mean acceleration of the landmarks at each frame; nan where both are not seen in the
    frame, the one before it and the one after it, all of one shot."""
    points = np.array(seen.landmarks)  # [T, 2, 68, 2]
    times = np.array(seen.times)
    whole = np.isfinite(points).all(axis=(1, 2, 3))
    found = np.full((2, len(times)), np.nan)
    for shot in np.unique(shots):
        for run in runs(whole & (shots == shot)):
            if run.stop - run.start >= 3:
                for k in (0, 1):
                    found[k, run.start + 1 : run.stop - 1] = accelerations(points[run, k], times[run])
    return found


def shots_of(seen: Seen) -> np.ndarray:
    """Number `[T]` of each frame's shot, by the source."""
    return find_shots(np.stack(seen.thumbs))


def identity(seen: Seen, name: str) -> Figures:
    """Likeness (cosine) to the source, and how constant it is: TL-ID over judged frames in a row, TG-ID over all."""
    figures: Figures = {"network": name, "mean": None, "min": None, "local": None, "global": None}
    if not seen.identity:
        return figures
    vectors = identities(seen)
    likeness = likeness_of(seen)
    figures |= {"mean": float(likeness.mean()), "min": float(likeness.min())}
    if len(likeness) >= 2:
        adjacent = (vectors[:, 1:] * vectors[:, :-1]).sum(axis=2)
        some = np.unique(np.linspace(0, len(likeness) - 1, min(GLOBAL, len(likeness))).round().astype(np.int64))
        everywhere = identity_consistency(vectors[0, some], vectors[1, some])[1]
        figures |= {"local": float((adjacent[1] / adjacent[0]).mean()), "global": everywhere}
    return figures


def identities(seen: Seen) -> np.ndarray:
    """Unit vectors `[2, n, E]` (source, edited) of who is seen, at the frames `seen.read`."""
    vectors = np.stack(seen.identity, axis=1).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True) + TINY
    return vectors


def likeness_of(seen: Seen) -> np.ndarray:
    """Cosine `[n]` of the edited face and the source's, at the frames `seen.read`."""
    if not seen.identity:
        return np.empty(0)
    source, edited = identities(seen)
    return np.asarray((source * edited).sum(axis=1))


def attributes(seen: Seen, reading: FaceReading | None, edits: Sequence[Edit]) -> Figures | None:
    """Mean change of each label, in its unit and in standard deviations, beside the strength that was asked for.

    For a label that an edit is named after: `asked` (mean strength), and `follows`, the correlation over time of
    strength and change (None when either is constant).
    """
    if reading is None or not seen.labels:
        return None
    changes = np.array(seen.labels)
    times = np.array(seen.times)[seen.read]
    asked: dict[str, np.ndarray] = {}
    for edit in edits:
        if edit.direction in reading.labels:
            asked[edit.direction] = asked.get(edit.direction, np.zeros(len(times))) + edit.strength_at(times)
    rows: Figures = {}
    for k, label in enumerate(reading.labels):
        change = changes[:, k]
        rows[label] = {"change": float(change.mean()), "change_std": float(change.mean() / reading.spread[k])}
        if label in asked:
            moves = len(times) > 1 and min(asked[label].std(), change.std()) > TINY
            follows = float(np.corrcoef(asked[label], change)[0, 1]) if moves else None
            rows[label] |= {"asked": float(asked[label].mean()), "follows": follows}
    return {"network": reading.name, "labels": rows}


def sound(source: Path, edited: Path, listen: Callable[..., np.ndarray | None] = sound_samples) -> Figures | None:
    """By how many seconds the sound comes later against the images than in the source; None where one has none."""
    heard = [listen(path, SOUND_RATE) if path.is_file() else None for path in (source, edited)]
    if heard[0] is None or heard[1] is None:
        return None
    shift, alike = sound_shift(heard[0], heard[1], SOUND_RATE)
    return {"offset": shift, "likeness": alike}
