"""The invert stage's last part: one correction for all codes of a person, found on a few frames of the clip."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sg3cli.errors import InputError
from sg3cli.faces import crops as crops_
from sg3cli.faces.alignment import ABSENT, Track
from sg3cli.files import SAVE_SECONDS, Chunks, read_arrays, write_arrays
from sg3cli.latents.inversion import spread
from sg3cli.latents.likeness import AT_ONCE, FRAMES, Likeness
from sg3cli.metrics.perceptual import make_perceptual
from sg3cli.pipeline.device import choose_device
from sg3cli.project import of_face
from sg3cli.video import Frame, VideoReader
from sg3cli.weights.bundle import Bundle

if TYPE_CHECKING:
    from sg3cli.nets.generator import Generator
    from sg3cli.pipeline import Job

CHECKPOINT = "invert/likeness.safetensors"


def correction(job: Job, bundle: Bundle, track: Track, chunks: Chunks, face: int, key: str) -> np.ndarray | None:
    """What is added to each code of the `face`-th person, `[num_ws, w_dim]`; None where none was asked for."""
    steps = job.settings.invert.likeness
    if steps == 0:
        return None
    finder = make_finder(job, bundle, track, chunks, steps)
    path = job.project.path / of_face(CHECKPOINT, face)
    if path.is_file():
        try:
            arrays, meta = read_arrays(path)
        except InputError:
            job.report_damage("invert", [path])
        else:
            if meta.get("key") == key:
                finder.restore(arrays)
    saved = time.monotonic()
    for _ in job.console.progress(finder.run(), steps, "invert: likeness", finder.step):
        if time.monotonic() - saved > SAVE_SECONDS:
            write_arrays(path, finder.state(), {"key": key})
            saved = time.monotonic()
    write_arrays(path, finder.state(), {"key": key})
    found, losses = finder.correction()
    before, after = losses.mean(0)
    share = 1 - after / before if before > 0 else 0.0
    job.console.notice(f"invert: {steps} steps brought the person closer, the loss went down by {share:.0%}")
    return found


def make_finder(job: Job, bundle: Bundle, track: Track, chunks: Chunks, steps: int) -> Likeness:
    """On frames spread over the clip, with the codes that the encoder gave them."""
    G = job.nets.generator(bundle).to(choose_device(job.device, job.console))
    frames = spread(np.flatnonzero(track.status != ABSENT), FRAMES)
    with VideoReader(job.project.source(), **job.project.reading) as reader:
        seen = (next(reader.frames(int(frame))) for frame in frames)
        crops = [crop for crop in crops_.aligned_crops(seen, track, G.img_resolution) if crop is not None]
    wanted = set(frames.tolist())
    ws = np.stack([row for number, row in enumerate(rows_of(chunks)) if number in wanted])
    return Likeness(G, make_perceptual("auto", job.pull), ws, np.stack(crops), steps)


def of_frames(job: Job, G: Generator, frames: list[Frame], track: Track, ws: np.ndarray) -> np.ndarray:
    """The correction `[num_ws, w_dim]` of a few frames that are looked at, whose codes are `ws [n, num_ws, w_dim]`."""
    there = [k for k, frame in enumerate(frames) if track.status[frame.index] != ABSENT]
    chosen = spread(np.array(there), AT_ONCE)
    seen = crops_.aligned_crops((frames[k] for k in chosen), track, G.img_resolution)
    crops = np.stack([crop for crop in seen if crop is not None])
    finder = Likeness(G, make_perceptual("auto", job.pull), ws[chosen], crops, job.settings.invert.likeness)
    for _ in finder.run():
        pass
    return finder.correction()[0]


def rows_of(chunks: Chunks) -> Iterator[np.ndarray]:
    """Every frame's codes `[num_ws, w_dim]`, in order."""
    for chunk in chunks:
        yield from chunk["ws"]
