"""How the edit went over to the source: sharpness and unrest of the face against the source's, what moved, what is new.

Judged on a few pairs of frames in a row, as a render composes them before they are encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from sg3cli.compositing.face_mask import face_mask, landmarks_in_window
from sg3cli.compositing.optical_flow import GRID
from sg3cli.compositing.paste import warp_alpha
from sg3cli.faces.alignment import ABSENT, Track
from sg3cli.metrics.sharpness import frame_flow, sharpness, unrest
from sg3cli.nets.generator import Generator
from sg3cli.pipeline import Job
from sg3cli.pipeline.face_crops import FaceEdits, with_smooth_landmarks
from sg3cli.pipeline.face_paster import CompositingInputs, paster_of
from sg3cli.pipeline.paste_inputs import map_maker
from sg3cli.pipeline.render import compose
from sg3cli.pipeline.transfer_maps import SteadyTransfers
from sg3cli.settings import RenderConfig
from sg3cli.video import Frame, VideoReader


@dataclass
class _Tally:
    sharp: list[tuple[float, float]] = field(default_factory=list)  # (source, result)
    unrest: list[tuple[float, float]] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)


def inputs_of(job: Job, face: FaceEdits, G: Generator, config: RenderConfig) -> CompositingInputs:
    """What a render has, but for the masks that only a whole clip gives."""
    paster = paster_of(face, config, G.img_resolution)
    maker = map_maker(config.transfer, job.bundle(), job.nets, face.edits)
    if maker is None or not paster.transfers:
        return CompositingInputs(maker=maker)
    source = partial(VideoReader, job.project.source(), **job.project.reading)
    return CompositingInputs(maker=maker, transfers=SteadyTransfers(source, face, paster, G, None, maker))


def transfer_figures(
    job: Job, face: FaceEdits, G: Generator, config: RenderConfig, frames: Sequence[int]
) -> dict[str, Any] | None:
    """Figures over the pairs of frames that begin with `frames`; None when no pair shows the face.

    sharpness: result over source, variance of the Laplacian. flicker: mean change from frame to frame along the
    source's motion, result over source. motion: mean pixels of the frame. new: share of the face that is the drawing's.
    """
    track = with_smooth_landmarks(face.track)
    inputs, tally = inputs_of(job, face, G, config), _Tally()
    try:
        with VideoReader(job.project.source(), **job.project.reading) as reader:
            for first in pairs_in_a_row(track, frames):
                pair = list(islice(reader.frames(first), 2))
                results = [frame.rgb for frame in compose(iter(pair), face, G, config, inputs)]
                _measure(tally, track, pair, results, inputs)
    finally:
        inputs.close()
    if not tally.sharp:
        return None
    (sharp, sharp_after), (calm, calm_after) = (np.mean(rows, axis=0) for rows in (tally.sharp, tally.unrest))
    return {
        "pairs": len(tally.sharp),
        "sharpness": float(sharp_after / max(sharp, 1e-6)),
        "flicker": float(calm_after / max(calm, 1e-6)),
        "motion": float(np.mean(tally.motion)) if tally.motion else None,
        "new": float(np.mean(tally.new)) if tally.new else None,
    }


def pairs_in_a_row(track: Track, frames: Sequence[int]) -> list[int]:
    """Those of `frames` that show the face, as the next frame does, in the same shot."""
    last = len(track) - 1
    return [
        int(k)
        for k in frames
        if k < last and (track.status[k : k + 2] != ABSENT).all() and track.shots[k] == track.shots[k + 1]
    ]


def _measure(
    tally: _Tally, track: Track, pair: list[Frame], results: list[np.ndarray], inputs: CompositingInputs
) -> None:
    before, after = pair
    window = track.windows[after.index]
    face = face_mask(landmarks_in_window(track.landmarks[after.index], window, GRID), GRID, 0.02)
    mask = warp_alpha(face, window, after.rgb.shape[:2])
    flow = frame_flow(before.rgb, after.rgb)
    tally.sharp.append((sharpness(after.rgb, mask), sharpness(results[1], mask)))
    tally.unrest.append((unrest(before.rgb, after.rgb, flow, mask), unrest(results[0], results[1], flow, mask)))
    if inputs.transfers is not None:
        maps, seen = inputs.transfers.at(after.index).transfer, inputs.transfers.paster.window(after.index)
        shape = maps.new.shape[:2]
        inside = face_mask(landmarks_in_window(track.landmarks[after.index], seen, shape), shape, 0.02) > 0.5
        side = float(np.linalg.norm(window[3] - window[0]))
        tally.motion.append(side * float(np.linalg.norm(maps.motion, axis=2)[inside].mean()))
        tally.new.append(float(maps.new[..., 0][inside].mean()))
