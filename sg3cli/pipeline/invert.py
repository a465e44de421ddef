"""The invert stage: aligned crops to codes, kept in chunks; and the smoothed codes that are tuned on and rendered."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.errors import ModelError
from sg3cli.faces import alignment
from sg3cli.faces import crops as crops_
from sg3cli.faces.alignment import Track
from sg3cli.files import Chunks, RowFile, in_chunks, npy_writer, remove, write_json
from sg3cli.latents import inversion
from sg3cli.latents.codes import CodeRows
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.pipeline import likeness
from sg3cli.pipeline.device import choose_device
from sg3cli.pipeline.partial_render import tee
from sg3cli.project import CODE_PARTS, Project, content_key, of_face
from sg3cli.settings import InvertConfig
from sg3cli.video import VideoReader
from sg3cli.weights.bundle import Bundle

if TYPE_CHECKING:
    from sg3cli.nets.encoder import Encoder
    from sg3cli.nets.generator import Generator
    from sg3cli.pipeline import Job, Result

DESCRIPTION = "invert/ws.json"
CHUNK_FOLDER = "invert/parts"
CHUNK = 32  # at least so many frames between two saves
BLOCK = 64  # columns of the codes that are smoothed together


def run(job: Job, bundle: Bundle, key: str) -> Result:
    """Invert every frame that shows a chosen face; returns the stage's files and facts."""
    project, tracks = job.project, job.project.tracks()
    files: list[str] = []
    losses: list[np.ndarray] = []
    for face, track in enumerate(tracks):
        chunks = Chunks(project.path / of_face(CHUNK_FOLDER, face), key)
        job.report_damage("invert", chunks.damaged)
        if chunks.rows < len(track.pts):
            encode(job, bundle, track, chunks)
        present = track.status != alignment.ABSENT
        nearest = inversion.fill_absent(np.arange(len(present)), present)
        common = likeness.correction(job, bundle, track, chunks, face, key)
        files += write_codes(project, chunks, nearest, face, common)
        losses += [chunk["loss"] for chunk in chunks if "loss" in chunk]
    shape = RowFile(project.path / files[0]).shape
    write_json(project.path / DESCRIPTION, {"generator": bundle.digest, "encoder": bundle.encoder_digest, "key": key})
    for face in range(len(tracks)):
        Chunks(project.path / of_face(CHUNK_FOLDER, face), key).clear()
        remove(project.path / of_face(likeness.CHECKPOINT, face))
    for outdated in (path for name in CODE_PARTS for path in project.path.glob(f"invert/{name}*.npy")):
        if f"invert/{outdated.name}" not in files:
            outdated.unlink()
    facts = {"num_ws": shape[1], "w_dim": shape[2], "frames": shape[0]}
    return [*files, DESCRIPTION], facts | gain(job, losses)


def gain(job: Job, losses: list[np.ndarray]) -> dict[str, Any]:
    """What a refinement has brought, for the record, said once; nothing without one."""
    if not losses:
        return {}
    config, both = job.settings.invert, np.nanmean(np.concatenate(losses), axis=0)
    before, after = (float(value) for value in both)
    share = 1 - after / before if before > 0 else 0.0
    said = f"{config.refine} steps in {config.refine_space} took the loss from {before:.4f} to {after:.4f}"
    job.console.notice(f"invert: {said}, {share:.0%} less")
    return {"refined": {"space": config.refine_space, "steps": config.refine, "before": before, "after": after}}


def encode_range(job: Job, bundle: Bundle, key: str, first: int, last: int) -> None:
    """Codes of the frames `first` to `last` alone, in the chunks from which `run` goes on: the same, if both are whole
    blocks (`last` may be the clip's end).
    """
    for face, track in enumerate(job.project.tracks()):
        chunks = Chunks(job.project.path / of_face(CHUNK_FOLDER, face), key, first)
        if chunks.rows < last:
            encode(job, bundle, track, chunks, last)


def encode(job: Job, bundle: Bundle, track: Track, chunks: Chunks, last: int | None = None) -> None:
    """Codes of the frames that `chunks` does not hold yet, up to `last`, None: the end.

    Chunks are whole blocks, so a resumed run is the same.
    """
    config, total = job.inversion(), len(track.pts) if last is None else last
    device = choose_device(job.device, job.console)
    G, encoder = job.nets.generator(bundle).to(device), job.nets.encoder(bundle).to(device)
    whole = inversion.block_frames(G.img_resolution)
    with VideoReader(job.project.source(), **job.project.reading) as reader:
        frames = islice(reader.frames(chunks.rows), total - chunks.rows)
        crops = crops_.aligned_crops(frames, track, encoder.config.input_size)
        codes = code_parts(crops, G, encoder, config, chunks.rows, job.pull)
        shown = job.console.progress(codes, total, "invert", chunks.rows)
        for chunk in in_chunks(shown, CHUNK, whole):
            chunks.append({name: np.stack([parts[name] for parts in chunk]) for name in chunk[0]}, len(chunk))


def code_parts(
    crops: Iterable[np.ndarray | None], G: Generator, encoder: Encoder, config: InvertConfig, first: int, pull: bool
) -> Iterator[dict[str, np.ndarray]]:
    """Of each aligned crop `ws [num_ws, w_dim]`; after a refinement also `loss [2]` and what it has added."""
    if config.refine == 0:
        yield from ({"ws": ws} for ws in inversion.invert(crops, G, encoder, config, first=first))
        return
    from sg3cli.latents.refinement import RefineConfig, Refiner, refined
    from sg3cli.metrics.perceptual import make_perceptual

    kept: deque[np.ndarray | None] = deque()  # a block at most
    codes = inversion.invert(tee(iter(crops), kept), G, encoder, config, first=first)
    settings = RefineConfig(config.refine, config.refine_space, batch=config.batch)
    refiner = Refiner(G, settings, make_perceptual("auto", pull))
    yield from refined(((kept.popleft(), ws) for ws in codes), refiner, first)


def write_codes(
    project: Project, chunks: Chunks, nearest: np.ndarray, face: int = 0, common: np.ndarray | None = None
) -> list[str]:
    """All chunks as one array for each part; a frame without a face takes that of the `nearest` with one.

    `common [num_ws, w_dim]` is added to every code of W+.

    Returns the files, relative to the project.
    """
    first, names = next(iter(chunks)), []
    for part in (part for part in CODE_PARTS if part in first):
        name = of_face(CODE_PARTS[part], face)
        path, shape = project.path / name, (len(nearest), *first[part].shape[1:])
        with npy_writer(path, shape) as write:
            for chunk in chunks:
                write(chunk[part] if common is None or part != "ws" else chunk[part] + common)
        if (nearest != np.arange(len(nearest))).any():
            rows = RowFile(path)
            with npy_writer(path, shape) as write:
                for row in nearest:
                    write(rows.rows(row, row + 1))
        names.append(name)
    return names


def load_codes(project: Project, generator: str, face: int = 0) -> CodeRows:
    """The codes; raises `ModelError` when they were made with another generator than `generator` (a digest)."""
    described = json.loads(project.result("invert", DESCRIPTION).read_text(encoding="utf8"))
    if described["generator"] != generator:
        raise ModelError(
            f"the codes of {project.path} belong to another generator ({described['generator'][:19]}...)",
            "run `sg3 invert` with the model you want to render with",
        )
    files = project.record("invert").files
    names = {part: of_face(name, face) for part, name in CODE_PARTS.items()}
    more = {p: RowFile(project.result("invert", n)) for p, n in names.items() if p != "ws" and n in files}
    return CodeRows(project.codes(face), **more)


def smoothed_codes(
    project: Project, bundle: Bundle, track: Track, mode: str, face: int = 0, job: Job | None = None
) -> CodeRows:
    """The codes smoothed over time as `mode` says, kept on disk.

    Smoothing treats every column alike, so it goes through the columns in blocks and its memory stays small. `job` is
    told when what was kept is damaged.
    """
    codes = load_codes(project, bundle.origin.digest, face)
    names = smoothed_names(project, mode, codes, face)
    damage = {name: project.damage(name) for name in names.values()}
    if all(project.is_sealed(name) and not damage[name] for name in names.values()):
        return CodeRows(**{part: RowFile(project.path / name) for part, name in names.items()})
    if job is not None and (damaged := [project.path / name for name in damage if damage[name] == "damaged"]):
        job.report_damage("render", damaged)
    stem = Path(smoothed_names(project, mode, codes)["ws"]).stem
    for outdated in (project.path / names["ws"]).parent.glob("smooth-*.npy"):
        if not outdated.name.startswith(stem):  # nor those of other faces
            outdated.unlink()
    for part, name in names.items():
        rows: RowFile = getattr(codes, part)
        smooth = smoothed_part(part, rows.rows(0, len(rows)), track, mode, bundle.config)
        with npy_writer(project.path / name, rows.shape) as write:
            for first in range(0, len(smooth), CHUNK):
                write(smooth[first : first + CHUNK])
        project.seal(name)
    project.save()
    return CodeRows(**{part: RowFile(project.path / name) for part, name in names.items()})


def smoothed_names(project: Project, mode: str, codes: CodeRows, face: int = 0) -> dict[str, str]:
    """Under which names in the project the parts of the `face`-th chosen face's codes, smoothed as `mode` says, lie."""
    key = content_key(codes=project.key("invert"), align=project.key("align"), mode=mode)[:12]
    there = [part for part in CODE_PARTS if getattr(codes, part) is not None]
    names = {part: f"invert/smooth-{key}{'' if part == 'ws' else f'.{part}'}.npy" for part in there}
    return {part: of_face(name, face) for part, name in names.items()}


def smoothed_part(part: str, values: np.ndarray, track: Track, mode: str, config: GeneratorConfig) -> np.ndarray:
    """A part of all frames' codes `[T, ...]`, smoothed; the same rows and layers count as fine in each."""
    rows = values if part == "ws" else values.reshape(len(values), -1, 1)
    fine = inversion.fine_row(config.num_ws)
    if part == "shift":
        fine = sum(list(config.style_sizes.values())[:fine])
    elif part == "pose":
        fine = rows.shape[1]
    smoothed = np.empty(rows.shape, np.float32)
    for first in range(0, rows.shape[2], BLOCK):
        columns = slice(first, first + BLOCK)
        smoothed[:, :, columns] = inversion.smooth_codes(rows[:, :, columns], track.times, track.shots, mode, fine)
    return smoothed.reshape(values.shape)
