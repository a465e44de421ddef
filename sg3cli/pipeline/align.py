"""The align stage: every frame past the detector, kept in chunks; who is who; then the track of each chosen face."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.compositing.face_overlap import AllFaces
from sg3cli.drawing.images import read_image
from sg3cli.errors import InputError
from sg3cli.faces.alignment import ABSENT, FOUND, INTERPOLATED, Track, build_track
from sg3cli.faces.clustering import Person, Sightings, find_people
from sg3cli.faces.detectors import make_detector
from sg3cli.faces.face import Detector, Face
from sg3cli.faces.identity_embedding import Embedder, make_embedder
from sg3cli.faces.selection import NOBODY, FaceCandidates, check_choice, choose, is_image_file, split_choice
from sg3cli.faces.visibility import hidden, trusted
from sg3cli.files import Chunks, digest_of, in_chunks, read_arrays, write_arrays
from sg3cli.project import TRACK, Project, content_key, of_face
from sg3cli.settings import AlignConfig
from sg3cli.video import Frame, VideoReader
from sg3cli.video.shot_detection import find_shots, thumbnail

if TYPE_CHECKING:
    from sg3cli.pipeline import Job, Result

FACES = "align/faces"
FORMAT = 4  # of the chunks; 4: cuts within a calm scene are found
CHUNK = 32  # frames between two saves
APPEARANCE_EVERY = 0.1  # seconds between two appearances taken of a face


@dataclass(frozen=True)
class Row:
    """What is kept of a frame: when it is, a small image of it, the faces in it and their appearances (if taken)."""

    index: int
    pts: int
    time: float
    thumb: np.ndarray  # [9, 16, 3] uint8
    faces: list[Face]
    appearances: list[np.ndarray]  # [K] each


@dataclass(frozen=True)
class Clip:
    """All that detection found in a clip."""

    candidates: FaceCandidates
    pts: np.ndarray  # [T] int64
    shots: np.ndarray  # [T] int32


def digests(config: AlignConfig, pull: bool) -> dict[str, str]:
    """Digests of the landmark model's files, of the embedder and of images in the choice of face.

    Raises `ModelError` when a model is missing and may not be pulled, `UsageError` for a choice that is none.
    """
    from sg3cli.weights import store

    check_choice(config.face)
    name = {"mesh": "face-mesh", "fan": "fan"}[config.landmarks]
    store.require(name, pull)
    found = {file: f"sha256:{digest}" for file, digest in store.verify(name).items()}
    images = [part for part in split_choice(config.face) if is_image_file(part)]
    for path in [*images, *([config.embedder] if config.embedder else [])]:
        try:
            found[path] = digest_of(Path(path))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}", "check the path") from error
    return found


def run(job: Job, models: dict[str, str], key: str) -> Result:
    """Detect, choose the faces, build their tracks; returns the stage's files and facts."""
    config, project = job.settings.align, job.project
    clip = find_clip(job, models)
    if not clip.candidates.people:
        raise InputError(f"{project.source()}: {NOBODY[0]}", NOBODY[1])
    chosen = choose(clip.candidates, config.face, named_appearances(job, config))
    files, faces = [], []
    for k, person in enumerate(chosen):
        track = track_of(clip, person, config)
        write_arrays(project.path / of_face(TRACK, k), track.to_arrays(), {"key": key})
        files.append(of_face(TRACK, k))
        faces.append({"face": person.number, **facts_of(track)})
        report_face(job, clip, person, track)
    for outdated in (project.path / "align").glob("track-*.safetensors"):
        if f"align/{outdated.name}" not in files:
            outdated.unlink()
    if len(clip.candidates.people) > 1:
        files.append(write_neighbours(project, clip, key))
    first = {name: value for name, value in faces[0].items() if name != "face"}
    return files, {**first, "shots": int(clip.shots[-1]) + 1, "people": len(clip.candidates.people), "faces": faces}


def find_clip(job: Job, models: dict[str, str]) -> Clip:
    """The faces of all frames and the people they belong to; what was detected before is not detected again."""
    config, project = job.settings.align, job.project
    networks = {name: digest for name, digest in models.items() if not is_image_file(name)}
    found = Chunks(project.path / FACES, content_key(source=project.source_key, models=networks, format=FORMAT))
    job.report_damage("align", found.damaged)
    embedder = make_embedder(config.embedder)
    with VideoReader(project.source(), **project.reading) as reader:
        detect(job, reader, found, embedder)
        job.report("align", reader.notices)
        size, joins = (reader.info.height, reader.info.width), reader.timeline.breaks
    clip = clip_of(found, embedder, size, joins)
    if len(clip.pts) == 0:
        raise InputError("no frame could be decoded", "check the file with a player")
    return clip


def clip_of(
    chunks: Iterable[dict[str, np.ndarray]], embedder: Embedder, size: tuple[int, int], joins: Sequence[int] = ()
) -> Clip:
    """The people in frames of `size` (height, width) that were looked at, see `pack`; `joins`: frames near which the
    source was joined."""
    seen, pts, times, thumbs = collect(chunks)
    shots = find_shots(thumbs, joins)
    return Clip(
        FaceCandidates(find_people(seen, shots, times, embedder.same), seen, times, size, embedder.same), pts, shots
    )


def detect(job: Job, reader: VideoReader, found: Chunks, embedder: Embedder) -> None:
    """Faces of the frames that `found` does not hold yet; detection does not depend on the choice of face."""
    first, total = found.rows, len(reader)
    if first >= total > 0:
        return
    detector = make_detector(job.settings.align.landmarks, job.pull)
    if first:
        detector.restore(found.state)
    rate = float(reader.info.average_rate or 25)
    every = max(1, round(APPEARANCE_EVERY * rate))
    frames = job.console.progress(reader.frames(first), total, "align", first)
    for rows in in_chunks((row_of(frame, detector, embedder, every) for frame in frames), CHUNK):
        found.append(pack(rows), len(rows), detector.state())


def row_of(frame: Frame, detector: Detector, embedder: Embedder, every: int) -> Row:
    """The faces of the next frame, with their appearances in one frame of `every`."""
    faces = detector.update(frame.rgb, frame.time)
    appearances = [embedder.vector(frame.rgb, face.landmarks) for face in faces] if frame.index % every == 0 else []
    return Row(frame.index, frame.pts, frame.time, thumbnail(frame.rgb), faces, appearances)


def pack(rows: list[Row]) -> dict[str, np.ndarray]:
    """Timing of each frame `[n]`, and one entry for each face that was found, with its frame's index."""
    faces = [(row.index, face) for row in rows for face in row.faces]
    taken = [(row.index, k, appearance) for row in rows for k, appearance in enumerate(row.appearances)]
    return {
        "pts": np.array([row.pts for row in rows], np.int64),
        "times": np.array([row.time for row in rows], np.float64),
        "thumb": np.array([row.thumb for row in rows], np.uint8),
        "frame": np.array([index for index, _ in faces], np.int64),
        "track": np.array([face.track for _, face in faces], np.int64),
        "score": np.array([face.score for _, face in faces], np.float32),
        "yaw": np.array([face.yaw for _, face in faces], np.float32),
        "box": np.array([face.box for _, face in faces], np.float32).reshape(-1, 4),
        "landmarks": np.array([face.landmarks for _, face in faces], np.float32).reshape(-1, 68, 2),
        "look_at": np.array([(index, k) for index, k, _ in taken], np.int64).reshape(-1, 2),
        "look": np.array([appearance for *_, appearance in taken], np.float32).reshape(len(taken), -1 if taken else 0),
    }


def collect(found: Iterable[dict[str, np.ndarray]]) -> tuple[Sightings, np.ndarray, np.ndarray, np.ndarray]:
    """All chunks: the faces, and of each frame pts `[T]`, times `[T]` and thumbnails `[T, 9, 16, 3]`."""
    chunks = [_with_appearances(chunk) for chunk in found]
    length = max((chunk["look"].shape[1] for chunk in chunks), default=0) or 1
    for chunk in chunks:
        if chunk["look"].shape[1] != length:  # no appearance was taken in this chunk
            chunk["look"] = np.full((len(chunk["frame"]), length), np.nan, np.float32)
    joined = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in (chunks[0] if chunks else ())}
    if not chunks:
        nothing = pack([])
        joined = _with_appearances(nothing)
    names = ("frame", "track", "box", "landmarks", "score", "yaw", "look")
    return Sightings(*(joined[name] for name in names)), joined["pts"], joined["times"], joined["thumb"]


def _with_appearances(chunk: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A chunk with one appearance for each face, nan where none was taken."""
    appearances = np.full((len(chunk["frame"]), chunk["look"].shape[1]), np.nan, np.float32)
    for (index, k), appearance in zip(chunk["look_at"], chunk["look"], strict=True):
        appearances[np.searchsorted(chunk["frame"], index) + k] = appearance
    return {**{name: value for name, value in chunk.items() if name != "look_at"}, "look": appearances}


def named_appearances(job: Job, config: AlignConfig) -> dict[str, np.ndarray]:
    """The appearance of the largest face in each image that the choice of face names. Raises `InputError`."""
    found = {}
    for path in (part for part in split_choice(config.face) if is_image_file(part)):
        rgb = read_image(Path(path))
        faces = make_detector(config.landmarks, job.pull).update(rgb, 0.0)
        if not faces:
            raise InputError(f"no face was found in {path}", "give a picture that shows a face from the front")
        largest = max(faces, key=lambda face: face.area)
        found[path] = make_embedder(config.embedder).vector(rgb, largest.landmarks)
    return found


def track_of(clip: Clip, person: Person, config: AlignConfig) -> Track:
    """The track of one person through the clip."""
    count = len(clip.pts)
    seen = clip.candidates.seen.take(person.rows)
    landmarks, boxes = np.full((count, 68, 2), np.nan, np.float32), np.full((count, 4), np.nan, np.float32)
    yaws, present = np.zeros(count, np.float32), np.zeros(count, bool)
    landmarks[seen.frames], boxes[seen.frames], yaws[seen.frames] = seen.landmarks, seen.boxes, seen.yaws
    present[seen.frames] = True
    whole = trusted(landmarks, yaws, present, clip.candidates.size)
    if not whole.any():
        what = f"face {person.number} is never seen from the front and whole"
        raise InputError(what, f"choose another one: the clip shows {clip.candidates.describe()}")
    lost = ~present & ~hidden(boxes, present, boxes_beside(clip, person))
    return build_track(landmarks, clip.pts, clip.candidates.times, config, clip.shots, whole | lost)


def boxes_beside(clip: Clip, person: Person) -> np.ndarray:
    """Boxes `[T, F, 4]` of the other faces in each frame, nan where there are fewer than F."""
    seen = clip.candidates.seen
    rows = np.setdiff1d(np.arange(len(seen)), person.rows)
    frames = seen.frames[rows]
    place = np.arange(len(rows)) - np.searchsorted(frames, frames)  # the how manieth of its frame
    boxes = np.full((len(clip.pts), int(place.max(initial=-1)) + 1, 4), np.nan, np.float32)
    boxes[frames, place] = seen.boxes[rows]
    return boxes


def facts_of(track: Track) -> dict[str, Any]:
    """Counts of frames and the jitter of the square, for the record."""
    found, bridged, absent = (int(np.count_nonzero(track.status == status)) for status in (FOUND, INTERPOLATED, ABSENT))
    raw, smooth = (round(pixels, 4) for pixels in track.jitter)
    counts = {"frames": len(track.status), "found": found, "interpolated": bridged, "absent": absent}
    return {**counts, "jitter": {"raw": raw, "smoothed": smooth}}


def report_face(job: Job, clip: Clip, person: Person, track: Track) -> None:
    """Say when there are frames without the face, and why."""
    absent = track.status == ABSENT
    if not absent.any():
        return
    turned = int(np.count_nonzero(absent[clip.candidates.seen.frames[person.rows]]))
    who = "no face" if len(clip.candidates.people) == 1 else f"no face {person.number}"
    why = f" ({turned} of them in profile or half outside the picture)" if turned else ""
    count = int(np.count_nonzero(absent))
    job.console.notice(f"align: {count} of {len(absent)} frames show {who} and will be passed through{why}")


# ---- what later stages read

NEIGHBOURS = "align/people.safetensors"


def write_neighbours(project: Project, clip: Clip, key: str) -> str:
    """All faces of the clip with the person they belong to, so that no face is pasted over another."""
    seen = clip.candidates.seen
    person = np.full(len(seen), -1, np.int64)
    for somebody in clip.candidates.people:
        person[somebody.rows] = somebody.number
    arrays = {"frames": seen.frames, "people": person, "landmarks": seen.landmarks, "boxes": seen.boxes}
    write_arrays(project.path / NEIGHBOURS, {**arrays, "scores": seen.scores, "yaws": seen.yaws}, {"key": key})
    return NEIGHBOURS


def load_everybody(project: Project) -> AllFaces | None:
    """Everybody in the clip; None when that is one person."""
    if int(project.record("align").facts.get("people", 1)) < 2:
        return None
    arrays, track = read_arrays(project.result("align", NEIGHBOURS))[0], project.track()
    return AllFaces.of(arrays["frames"], arrays["people"], arrays["landmarks"], track.times, track.shots)
