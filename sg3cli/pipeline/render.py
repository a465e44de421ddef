"""The render stage: frames and edited codes, batch by batch, to composed frames and the output file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.align import Track
from sg3cli.config import RenderConfig
from sg3cli.directions.condition import condition
from sg3cli.directions.load import load_direction
from sg3cli.edit import Edit, apply_edits
from sg3cli.errors import UsageError
from sg3cli.files import RowFile, digest_of
from sg3cli.invert import ABSENT
from sg3cli.nets.generator import Generator
from sg3cli.pipeline import output
from sg3cli.pipeline.align import load_track
from sg3cli.pipeline.device import choose_device
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.invert import smoothed_codes
from sg3cli.project import Project, content_key
from sg3cli.ranges import only_inside, opacity, parse_ranges
from sg3cli.render import compare_view, render_crops
from sg3cli.stitch import face_mask, landmarks_in_window, paste, smooth_landmarks
from sg3cli.video import Cut, Frame, SegmentedWriter, VideoReader
from sg3cli.weights.bundle import Bundle

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

PIECES = "render"  # folder of the pieces of a film that is not finished
FADE = 0.2  # seconds over which the face fades in and out beside frames that show none


@dataclass(frozen=True)
class Plan:
    """All that a render depends on; `key` is its content key, `record` its provenance."""

    key: str
    edits: list[Edit]
    directions: dict[str, np.ndarray]  # name -> [num_ws, w_dim] or [1, w_dim]
    bundle: Bundle
    tuned: bool
    record: dict[str, Any]


def plan(job: Job, bundle: Bundle, tuned: bool) -> Plan:
    """Read the edits and their directions; raises when one is unknown or belongs to another generator."""
    project, config = job.project, job.configs["render"]
    if config.range is not None and config.view == "face":
        raise UsageError("--range passes frames through, and --view face shows none", "use --view frame or compare")
    edits = [Edit.from_dict(fields) for fields in project.edits]
    names = sorted({name for edit in edits for name in (edit.direction, *edit.preserve)})
    files = {name: job.direction_file(name, bundle) for name in names}
    digests = {name: digest_of(path) for name, path in files.items()}
    loaded = {name: load_direction(path) for name, path in files.items()}
    invert = project.record("invert")
    for direction in loaded.values():
        direction.check_fits(invert["num_ws"], invert["w_dim"], bundle.digest)
    last = "finetune" if tuned else "invert"
    parts = {"render": config, "encode": job.configs["encode"], "tuned": tuned}
    key = content_key(inputs=project.key(last), edits=project.edits, directions=digests, **parts)
    models = {**invert["models"], "tuned": project.key("finetune") if tuned else None, "directions": digests}
    vectors = {edit.direction: _vector(edit, {name: d.vector for name, d in loaded.items()}) for edit in edits}
    return Plan(key, edits, vectors, bundle, tuned, output.provenance(project, project.edits, models))


def _vector(edit: Edit, vectors: dict[str, np.ndarray]) -> np.ndarray:
    """The edit's direction with what it must preserve projected out."""
    kept = [vectors[name] for name in edit.preserve]
    return condition(vectors[edit.direction], kept) if kept else vectors[edit.direction]


def run(job: Job, plan: Plan, out: str) -> dict[str, Any]:
    """Write the video to `out`; returns the facts for the project's record."""
    project, config, track = job.project, job.configs["render"], load_track(job.project)
    G = tuned_generator(project, plan.bundle, plan.tuned).to(choose_device(job.device, job.console))
    codes = smoothed_codes(project, plan.bundle.digest, track, job.smooth())
    comment = {"comment": json.dumps({"sg3": plan.record}, separators=(",", ":"))}
    with VideoReader(project.source()) as reader:
        size = output_size(config.view, G.img_resolution, reader.info.width, reader.info.height)
        length = piece_frames(job.configs["encode"].segment, reader.info.average_rate, config.batch)
        cut = Cut(pieces_of(project, plan.key), plan.key, len(reader), length)
        with SegmentedWriter(out, reader.info, job.configs["encode"], size, comment, cut) as writer:
            if writer.start:
                job.console.notice(f"render: {writer.start} of {len(reader)} frames are there from an earlier run")
            frames = chosen(reader.frames(writer.start), track, codes, G, plan, config)
            for frame in job.console.progress(frames, len(track.pts), "render", writer.start):
                writer.write(frame)
        job.tell("render", writer.notices)
    if out != "-":
        output.write_sidecar(out, plan.record)
    params = {**asdict(config), "encode": asdict(job.configs["encode"])}
    return {"params": params, "inputs": ("finetune",) if plan.tuned else ("invert",)}


def pieces_of(project: Project, key: str) -> Path:
    """Folder of the pieces of a render with this content key; what renders of other keys have left is removed."""
    folder = project.path / PIECES / key
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def piece_frames(seconds: float, rate: Fraction, batch: int) -> int:
    """Frames of a piece of about `seconds`: whole batches, because a batch's pictures depend on its size. 0: none."""
    return batch * max(1, round(seconds * float(rate) / batch)) if seconds > 0 else 0


def clear(project: Project) -> None:
    """Remove the pieces of a film that stands, with its records."""
    shutil.rmtree(project.path / PIECES, ignore_errors=True)


def chosen(
    frames: Iterator[Frame], track: Track, codes: RowFile, G: Generator, plan: Plan, config: RenderConfig
) -> Iterator[Frame]:
    """`compose`, but frames outside of `config.range` keep their bits and cost nothing."""
    if config.range is None:
        return compose(frames, track, codes, G, plan, config)
    compare = config.view == "compare"

    def edited(part: Iterator[Frame]) -> Iterator[Frame]:
        return compose(part, track, codes, G, plan, config)

    def plain(frame: Frame) -> Frame:
        return replace(frame, rgb=compare_view(frame.rgb, frame.rgb)) if compare else frame

    def blend(below: Frame, above: Frame, share: float) -> Frame:
        mixed = below.rgb + np.float32(share) * (above.rgb.astype(np.float32) - below.rgb)
        return replace(below, rgb=np.rint(mixed).astype(np.uint8))

    shown = opacity(track.times, parse_ranges(config.range))
    return only_inside(frames, shown, config.batch, edited, plain, blend)


def output_size(view: str, crop: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the output."""
    return {"frame": (width, height), "face": (crop, crop), "compare": (2 * width, height)}[view]


def compose(
    frames: Iterator[Frame], track: Track, codes: RowFile, G: Generator, plan: Plan, config: RenderConfig
) -> Iterator[Frame]:
    """Each source frame with the edited face in it, or what else the view shows; one batch in memory."""
    track = calm(track)
    opacity = presence(track.times, track.status)
    blank = np.zeros((G.img_resolution, G.img_resolution, 3), np.uint8)
    while batch := list(islice(frames, config.batch)):
        shown = [frame for frame in batch if track.status[frame.index] != ABSENT]
        indices = [frame.index for frame in shown]
        crops = dict(zip(indices, drawn_crops(shown, track, codes, G, plan), strict=True))
        plain: dict[int, np.ndarray] = {}
        if config.view != "face" and config.stitch == "paste" and config.detail > 0:
            plain = dict(zip(indices, drawn_crops(shown, track, codes, G, None), strict=True))
        for frame in batch:
            crop = crops.get(frame.index)
            if config.view == "face":
                yield replace(frame, rgb=crop if crop is not None else blank)
                continue
            result = frame.rgb
            if crop is not None:
                result = paste_face(frame, crop, plain.get(frame.index), track, opacity[frame.index], config)
            yield replace(frame, rgb=compare_view(frame.rgb, result) if config.view == "compare" else result)


def calm(track: Track) -> Track:
    """The track with the landmarks that the mask follows: smoothed, so that its edge does not tremble."""
    return replace(track, landmarks=smooth_landmarks(track.landmarks, track.times))


def drawn_crops(
    frames: list[Frame], track: Track, codes: RowFile, G: Generator, plan: Plan | None
) -> Iterator[np.ndarray]:
    """The face of each frame as seen through its window, `[N, N, 3]` uint8: with the plan's edits, without if None."""
    if not frames:
        return iter(())
    index = np.array([frame.index for frame in frames])
    ws = codes.take(index)
    if plan is not None:
        ws = apply_edits(ws, track.times[index], plan.edits, plan.directions)
    return render_crops(G, ws, track.transforms[index], len(index))


def presence(times: np.ndarray, status: np.ndarray) -> np.ndarray:
    """Opacity of the face `[T]`: 1, falling to 0 over `FADE` seconds towards frames that show none."""
    gaps = times[status == ABSENT]
    if len(gaps) == 0:
        return np.ones(len(times))
    after = np.searchsorted(gaps, times)
    before = np.clip(after - 1, 0, None)
    distance = np.minimum(np.abs(times - gaps[before]), np.abs(gaps[np.clip(after, None, len(gaps) - 1)] - times))
    return np.clip(distance / FADE, 0.0, 1.0)


def paste_face(
    frame: Frame, crop: np.ndarray, plain: np.ndarray | None, track: Track, opacity: float, config: RenderConfig
) -> np.ndarray:
    """The frame `[H, W, 3]` uint8 with the crop in its window; pixels outside the mask keep their bits."""
    window, size = track.windows[frame.index], len(crop)
    alpha = np.ones((size, size), np.float32)
    if config.stitch == "paste":
        points = landmarks_in_window(track.landmarks[frame.index], window, size)
        alpha = face_mask(points, size, config.feather)
    return paste(frame.rgb, crop, window, alpha * np.float32(opacity), plain=plain, detail=config.detail)
