"""The invert stage: aligned crops to codes, kept in chunks; and the smoothed codes that are tuned on and rendered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sg3cli.errors import ModelError
from sg3cli.faces import alignment
from sg3cli.faces import crops as crops_
from sg3cli.faces.alignment import Track
from sg3cli.files import Chunks, RowFile, in_chunks, npy_writer, write_json
from sg3cli.latents import inversion
from sg3cli.latents.codes import CodeRows
from sg3cli.pipeline.device import choose_device
from sg3cli.project import CODES, Project, content_key, of_face
from sg3cli.video import VideoReader
from sg3cli.weights.bundle import Bundle

if TYPE_CHECKING:
    from sg3cli.pipeline import Job, Result

DESCRIPTION = "invert/ws.json"
CHUNK_FOLDER = "invert/parts"
CHUNK = 32  # at least so many frames between two saves
BLOCK = 64  # columns of the codes that are smoothed together


def run(job: Job, bundle: Bundle, key: str) -> Result:
    """Invert every frame that shows a chosen face; returns the stage's files and facts."""
    project = job.project
    shape: tuple[int, ...] = ()
    tracks = project.tracks()
    for face, track in enumerate(tracks):
        chunks = Chunks(project.path / of_face(CHUNK_FOLDER, face), key)
        if chunks.rows < len(track.pts):
            encode(job, bundle, track, chunks)
        present = track.status != alignment.ABSENT
        nearest = inversion.fill_absent(np.arange(len(present)), present)
        shape = write_codes(project, chunks, nearest, face)
    write_json(project.path / DESCRIPTION, {"generator": bundle.digest, "encoder": bundle.encoder_digest, "key": key})
    for face in range(len(tracks)):
        Chunks(project.path / of_face(CHUNK_FOLDER, face), key).clear()
    files = [of_face(CODES, face) for face in range(len(tracks))]
    for outdated in project.path.glob("invert/ws-*.npy"):
        if f"invert/{outdated.name}" not in files:
            outdated.unlink()
    return [*files, DESCRIPTION], {"num_ws": shape[1], "w_dim": shape[2], "frames": shape[0]}


def encode(job: Job, bundle: Bundle, track: Track, chunks: Chunks) -> None:
    """Codes of the frames that `chunks` does not hold yet. Chunks are whole blocks, so a resumed run is the same."""
    config = job.settings.invert
    device = choose_device(job.device, job.console)
    G, encoder = job.nets.generator(bundle).to(device), job.nets.encoder(bundle).to(device)
    whole = inversion.block_frames(G)
    with VideoReader(job.project.source(), **job.project.reading) as reader:
        crops = crops_.aligned_crops(reader.frames(chunks.rows), track, encoder.config.input_size)
        codes = inversion.invert(crops, G, encoder, config, first=chunks.rows)
        shown = job.console.progress(codes, len(track.pts), "invert", chunks.rows)
        for chunk in in_chunks(shown, CHUNK, whole):
            chunks.append({"ws": np.stack(chunk)}, len(chunk))


def write_codes(project: Project, chunks: Chunks, nearest: np.ndarray, face: int = 0) -> tuple[int, ...]:
    """All chunks as one array `[T, num_ws, w_dim]`; a frame without a face takes the code of the `nearest` with one."""
    first = next(iter(chunks))["ws"]
    shape = (len(nearest), *first.shape[1:])
    path = project.path / of_face(CODES, face)
    with npy_writer(path, shape) as write:
        for chunk in chunks:
            write(chunk["ws"])
    if (nearest != np.arange(len(nearest))).any():
        codes = RowFile(path)
        with npy_writer(path, shape) as write:
            for row in nearest:
                write(codes.rows(row, row + 1))
    return shape


def load_codes(project: Project, generator: str, face: int = 0) -> RowFile:
    """The codes; raises `ModelError` when they were made with another generator than `generator` (a digest)."""
    described = json.loads((project.path / DESCRIPTION).read_text(encoding="utf8"))
    if described["generator"] != generator:
        raise ModelError(
            f"the codes of {project.path} belong to another generator ({described['generator'][:19]}...)",
            "run `sg3 invert` with the model you want to render with",
        )
    return project.codes(face)


def smoothed_codes(project: Project, generator: str, track: Track, mode: str, face: int = 0) -> CodeRows:
    """The codes smoothed over time as `mode` says, `[T, num_ws, w_dim]`, kept on disk.

    Smoothing treats every column alike, so it goes through the columns in blocks and its memory stays small.
    """
    codes = load_codes(project, generator, face)
    path = smoothed_path(project, mode, face)
    if path.is_file():
        return CodeRows(RowFile(path))
    for outdated in path.parent.glob("smooth-*.npy"):
        if not outdated.name.startswith(smoothed_path(project, mode).stem):  # nor those of other faces
            outdated.unlink()
    with npy_writer(path, codes.shape) as write:
        for rows in _smooth_rows(codes, track, mode):
            write(rows)
    return CodeRows(RowFile(path))


def smoothed_path(project: Project, mode: str, face: int = 0) -> Path:
    """Where the codes of the `face`-th chosen face, smoothed as `mode` says, are kept."""
    key = content_key(codes=project.key("invert"), align=project.key("align"), mode=mode)[:12]
    return project.path / of_face(f"invert/smooth-{key}.npy", face)


def _smooth_rows(codes: RowFile, track: Track, mode: str) -> Iterator[np.ndarray]:
    smoothed = np.empty(codes.shape, np.float32)
    whole = codes.rows(0, len(codes))
    for first in range(0, codes.shape[2], BLOCK):
        columns = slice(first, first + BLOCK)
        smoothed[:, :, columns] = inversion.smooth_codes(whole[:, :, columns], track.times, track.shots, mode)
    for first in range(0, len(codes), CHUNK):
        yield smoothed[first : first + CHUNK]
