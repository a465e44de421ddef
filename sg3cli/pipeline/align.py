"""The align stage: every frame past the detector, kept in pieces; then one face's track."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.align import Observations, Track, build_track, select_face
from sg3cli.errors import InputError
from sg3cli.faces import Face, make_detector
from sg3cli.files import read_arrays, write_arrays
from sg3cli.project import Chunks, Project, content_key
from sg3cli.video import VideoReader

if TYPE_CHECKING:
    from sg3cli.pipeline import Job, Result

TRACK = "align/track.safetensors"
FACES = "align/faces"
PIECE = 32  # frames between two saves


@dataclass(frozen=True)
class Row:
    """What is kept of a frame: when it is, and the faces in it."""

    index: int
    pts: int
    time: float
    faces: list[Face]


def digests(landmarks: str, pull: bool) -> dict[str, str]:
    """Digests of the landmark model's files; raises `ModelError` when it is missing and may not be pulled."""
    from sg3cli.weights import store

    name = {"mesh": "face-mesh", "fan": "fan"}[landmarks]
    store.require(name, pull)
    return {file: f"sha256:{digest}" for file, digest in store.verify(name).items()}


def run(job: Job, models: dict[str, str], key: str) -> Result:
    """Detect, choose the face, build its track; returns the stage's files and facts."""
    config, project = job.configs["align"], job.project
    found = Chunks(project.path / FACES, content_key(source=project.source_key, models=models))
    with VideoReader(project.source(), rate=project.rate) as reader:
        detect(job, reader, found)
        job.tell("align", reader.notices)
        size = (reader.info.height, reader.info.width)
    observations, pts, times = collect(found)
    if len(pts) == 0:
        raise InputError("no frame could be decoded", "check the file with a player")
    column = select_face(observations, config.face, size)
    track = build_track(observations, column, pts, times, config)
    write_arrays(project.path / TRACK, track.to_arrays(), {"key": key})
    return [TRACK], facts_of(track, job)


def detect(job: Job, reader: VideoReader, found: Chunks) -> None:
    """Faces of the frames that `found` does not hold yet; detection does not depend on the choice of face."""
    first, total = found.rows, len(reader)
    if first >= total > 0:
        return
    detector = make_detector(job.configs["align"].landmarks, job.pull)
    if first:
        detector.restore(found.state)
    rows: list[Row] = []
    for frame in job.console.progress(reader.frames(first), total, "align", first):
        rows.append(Row(frame.index, frame.pts, frame.time, detector.update(frame.rgb, frame.time)))
        if len(rows) == PIECE:
            found.append(pack(rows), len(rows), detector.state())
            rows = []
    if rows:
        found.append(pack(rows), len(rows), detector.state())


def pack(rows: list[Row]) -> dict[str, np.ndarray]:
    """Timing of each frame `[n]`, and one entry for each face that was found, with its frame's index."""
    faces = [(row.index, face) for row in rows for face in row.faces]
    return {
        "pts": np.array([row.pts for row in rows], np.int64),
        "times": np.array([row.time for row in rows], np.float64),
        "frame": np.array([index for index, _ in faces], np.int64),
        "track": np.array([face.track for _, face in faces], np.int64),
        "score": np.array([face.score for _, face in faces], np.float32),
        "box": np.array([face.box for _, face in faces], np.float32).reshape(-1, 4),
        "landmarks": np.array([face.landmarks for _, face in faces], np.float32).reshape(-1, 68, 2),
    }


def collect(found: Iterable[dict[str, np.ndarray]]) -> tuple[Observations, np.ndarray, np.ndarray]:
    """All pieces as padded arrays (column = track), with pts `[T]` and times `[T]` of the frames."""
    pieces = list(found)
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in (pieces[0] if pieces else ())}
    pts, times = joined.get("pts", np.empty(0, np.int64)), joined.get("times", np.empty(0))
    frames = len(pts)
    tracks = int(joined["track"].max()) + 1 if frames and len(joined["track"]) else 0
    landmarks = np.full((frames, tracks, 68, 2), np.nan, np.float32)
    boxes = np.full((frames, tracks, 4), np.nan, np.float32)
    scores = np.zeros((frames, tracks), np.float32)
    if tracks:
        at = (joined["frame"], joined["track"])
        landmarks[at], boxes[at], scores[at] = joined["landmarks"], joined["box"], joined["score"]
    return Observations(landmarks, boxes, scores), pts, times


def facts_of(track: Track, job: Job) -> dict[str, Any]:
    """Counts of frames for the record; says so when there are frames without the face."""
    found, bridged, absent = (int(np.count_nonzero(track.status == status)) for status in (0, 1, 2))
    if absent:
        job.console.notice(f"align: {absent} of {len(track.status)} frames show no face and will be passed through")
    return {"frames": len(track.status), "found": found, "interpolated": bridged, "absent": absent}


def load_track(project: Project) -> Track:
    """The track of a project that was aligned."""
    return Track.from_arrays(read_arrays(project.path / TRACK)[0])
