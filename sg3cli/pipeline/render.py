"""The render stage: frames and edited codes, batch by batch, to composed frames and the output file."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.align import Track, shot_slices
from sg3cli.borders import Crowd
from sg3cli.config import RenderConfig
from sg3cli.directions.condition import condition
from sg3cli.directions.load import load_direction
from sg3cli.edit import Edit, apply_edits, edits_of
from sg3cli.errors import UsageError
from sg3cli.files import RowFile, digest_of
from sg3cli.invert import ABSENT
from sg3cli.masks import smooth_landmarks
from sg3cli.nets.generator import Generator
from sg3cli.nets.synthesis import NOWHERE, Sides
from sg3cli.pipeline import output
from sg3cli.pipeline.align import faces_of, load_crowd, load_track
from sg3cli.pipeline.device import choose_device
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.invert import smoothed_codes
from sg3cli.pipeline.stitch import NO_TOOLS, Look, Tools, mask_digest, pixel_sides, prepare
from sg3cli.preview import edits_text
from sg3cli.project import Project, content_key
from sg3cli.ranges import noted, only_inside, opacity, parse_ranges
from sg3cli.render import compare_view, render_crops
from sg3cli.video import Cut, Frame, SegmentedWriter, VideoReader
from sg3cli.weights.bundle import Bundle

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

FADE = 0.2  # seconds over which the face fades in and out beside frames that show none


@dataclass(frozen=True)
class Plan:
    """All that a render depends on; `key` is its content key, `record` its provenance, `tools` what pastes the face."""

    key: str
    inputs: str  # key of what the edited faces are made from
    edits: list[Edit]
    directions: dict[str, np.ndarray]  # title of an edit -> [num_ws, w_dim] or [1, w_dim]
    bundle: Bundle
    tuned: bool
    record: dict[str, Any]
    tools: Tools = NO_TOOLS


@dataclass(frozen=True)
class Shown:
    """One of the faces that are edited: where it is, its codes, its own edits, and who is beside it."""

    number: int
    track: Track
    codes: RowFile
    plan: Plan
    crowd: Crowd | None = None  # None: nobody else is in the clip

    def border(self, frame: int, look: Look) -> np.ndarray | float:
        """Opacity `[H, W]` of the crop that keeps off the other faces; 1.0 where none is near."""
        if self.crowd is None:
            return 1.0
        shape = look.shape(look.resolution)
        return self.crowd.border(self.number, frame, self.track.landmarks[frame], look.window(frame), shape)


def faces_shown(job: Job, plan: Plan, G: Generator) -> list[Shown]:
    """The faces that the project edits, each with its own edits and with what pastes it."""
    project = job.project
    crowd, found = load_crowd(project), []
    for k, number in enumerate(faces_of(project)):
        track = load_track(project, k)
        codes = smoothed_codes(project, plan.bundle.digest, track, job.smooth(), k)
        mine = with_tools(job, replace(plan, edits=edits_of(plan.edits, number)), G, track, codes, k)
        found.append(Shown(number, calm(track), codes, mine, crowd))
    return found


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
    made_from = content_key(inputs=project.key(last), edits=project.edits, directions=digests)
    parts = {"render": config, "encode": job.configs["encode"], "tuned": tuned, "mask": mask_digest(config)}
    key = content_key(inputs=project.key(last), edits=project.edits, directions=digests, **parts)
    models = {**invert["models"], "tuned": project.key("finetune") if tuned else None, "directions": digests}
    vectors = {edit.title: conditioned(edit, {name: d.vector for name, d in loaded.items()}) for edit in edits}
    return Plan(key, made_from, edits, vectors, bundle, tuned, output.provenance(project, project.edits, models))


def conditioned(edit: Edit, vectors: dict[str, np.ndarray]) -> np.ndarray:
    """The edit's direction with what it must preserve projected out."""
    kept = [vectors[name] for name in edit.preserve]
    return condition(vectors[edit.direction], kept) if kept else vectors[edit.direction]


def run(job: Job, plan: Plan, out: str) -> dict[str, Any]:
    """Write the video to `out`; returns the facts for the project's record."""
    project, config = job.project, job.configs["render"]
    G = tuned_generator(project, plan.bundle, plan.tuned).to(choose_device(job.device, job.console))
    G.synthesis.set_precision(config.precision)
    faces = faces_shown(job, plan, G)
    comment = {"comment": json.dumps({"sg3": plan.record}, separators=(",", ":"))}
    with VideoReader(project.source(), rate=project.rate) as reader:
        size = output_size(config, G.img_resolution, reader.info.width, reader.info.height)
        length = piece_frames(job.configs["encode"].segment, reader.info.average_rate, config.batch)
        cut = Cut(pieces_of(project, plan.key), plan.key, len(reader), length)
        vouch = partial(output.vouch, project, out)
        with SegmentedWriter(out, reader.info, job.configs["encode"], size, comment, cut, vouch) as writer:
            if writer.start:
                job.console.notice(f"render: {writer.start} of {len(reader)} frames are there from an earlier run")
            frames = chosen(reader.frames(writer.start), faces, G, config)
            for frame in job.console.progress(frames, len(reader), "render", writer.start):
                writer.write(frame)
        job.tell("render", writer.notices)
    digest = None if out == "-" else output.write_sidecar(out, plan.record)
    params = {**asdict(config), "encode": asdict(job.configs["encode"])}
    return {"params": params, "inputs": ("finetune",) if plan.tuned else ("invert",), "sha256": digest}


def with_tools(job: Job, plan: Plan, G: Generator, track: Track, codes: RowFile, face: int = 0) -> Plan:
    """The plan with what pasting needs of the whole clip: steady masks, the user's matte, a generator for the seam.

    `face` counts the faces that the project edits.
    """
    track = calm(track)

    def draw(frames: list[Frame], edited: bool, sides: Sides) -> Iterator[np.ndarray]:
        return drawn_crops(frames, track, codes, G, plan if edited else None, sides)

    def edited(frames: np.ndarray) -> np.ndarray:
        return apply_edits(codes.take(frames), track.times[frames], plan.edits, plan.directions)

    generator = job.project.key("finetune" if plan.tuned else "invert")
    return replace(plan, tools=prepare(job, track, G, draw, edited, (generator, plan.inputs), face))


def output_size(config: RenderConfig, crop: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the output, for a generator of `crop` pixels."""
    left, right, top, bottom = pixel_sides(config, crop)
    face = (crop + left + right, crop + top + bottom)
    return {"frame": (width, height), "face": face, "compare": (2 * width, height)}[config.view]


def compose_all(frames: Iterator[Frame], faces: list[Shown], G: Generator, config: RenderConfig) -> Iterator[Frame]:
    """Each source frame with all edited faces in it: each face's frames go on to the next, as their masks part them.

    The view of the face shows the first one.
    """
    if len(faces) == 1 or config.view == "face":
        yield from compose_face(frames, faces[0], G, config)
        return
    sources: deque[Frame] = deque()  # as many as the batches of all faces hold back
    result = noted(frames, sources)
    for face in faces:
        result = compose_face(result, face, G, replace(config, view="frame"))
    for frame in result:
        source = sources.popleft().rgb
        if config.view == "compare":
            everything = replace(faces[0].plan, edits=[edit for face in faces for edit in face.plan.edits])
            shown = any(face.track.status[frame.index] != ABSENT for face in faces)
            frame = replace(frame, rgb=beside(source, frame.rgb, frame.time, everything, config, shown))
        yield frame


def pieces_of(project: Project, key: str) -> Path:
    """Folder of the pieces of a render with this content key; what renders of other keys have left is removed."""
    folder = project.path / output.UNFINISHED / key
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def piece_frames(seconds: float, rate: Fraction, batch: int) -> int:
    """Frames of a piece of about `seconds`: whole batches, because a batch's pictures depend on its size. 0: none."""
    return batch * max(1, round(seconds * float(rate) / batch)) if seconds > 0 else 0


def clear(project: Project) -> None:
    """Remove the pieces of a film that stands, with its records."""
    shutil.rmtree(project.path / output.UNFINISHED, ignore_errors=True)


def chosen(frames: Iterator[Frame], faces: list[Shown], G: Generator, config: RenderConfig) -> Iterator[Frame]:
    """`compose_all`, but frames outside of `config.range` keep their bits and no face is drawn for them."""
    if config.range is None:
        return compose_all(frames, faces, G, config)

    def edited(part: Iterator[Frame]) -> Iterator[Frame]:
        return compose_all(part, faces, G, config)

    def plain(frame: Frame) -> Frame:
        if config.view != "compare":
            return frame
        return replace(frame, rgb=beside(frame.rgb, frame.rgb, frame.time, faces[0].plan, config, False))

    def blend(below: Frame, above: Frame, share: float) -> Frame:
        mixed = below.rgb + np.float32(share) * (above.rgb.astype(np.float32) - below.rgb)
        return replace(below, rgb=np.rint(mixed).astype(np.uint8))

    shown = opacity(faces[0].track.times, parse_ranges(config.range))
    return only_inside(frames, shown, config.batch, edited, plain, blend)


def compose(
    frames: Iterator[Frame], track: Track, codes: RowFile, G: Generator, plan: Plan, config: RenderConfig
) -> Iterator[Frame]:
    """Each source frame with one edited face in it that is alone in the clip; see `compose_face`."""
    return compose_face(frames, Shown(0, calm(track), codes, plan), G, config)


def compose_face(frames: Iterator[Frame], face: Shown, G: Generator, config: RenderConfig) -> Iterator[Frame]:
    """Each frame with the edited face in it, or what else the view shows; one batch in memory."""
    track, codes, plan = face.track, face.codes, face.plan
    opacity = presence(track.times, track.status, track.shots)
    look = Look(track, config, G.img_resolution, plan.tools)
    blank = np.zeros((*look.shape(G.img_resolution), 3), np.uint8)
    while batch := list(islice(frames, config.batch)):
        shown = [frame for frame in batch if track.status[frame.index] != ABSENT]
        indices = [frame.index for frame in shown]
        drawn = drawn_crops(shown, track, codes, plan.tools.seam or G, plan, look.sides)
        crops = dict(zip(indices, drawn, strict=True))
        plain: dict[int, np.ndarray] = {}
        if look.wants_plain:
            plain = dict(zip(indices, drawn_crops(shown, track, codes, G, None, look.sides), strict=True))
        for frame in batch:
            crop = crops.get(frame.index)
            if config.view == "face":
                yield replace(frame, rgb=crop if crop is not None else blank)
                continue
            result = frame.rgb
            if crop is not None:
                alpha = opacity[frame.index] * face.border(frame.index, look)
                result = look.paste(frame, crop, plain.get(frame.index), alpha)
            if config.view == "compare":
                result = beside(frame.rgb, result, frame.time, plan, config, crop is not None)
            yield replace(frame, rgb=result)


def beside(
    source: np.ndarray, result: np.ndarray, time: float, plan: Plan, config: RenderConfig, shown: bool
) -> np.ndarray:
    """The comparison of one frame, with captions where they are wanted."""
    return compare_view(source, result, captions(plan, time, shown) if config.labels == "on" else None)


def captions(plan: Plan, time: float, shown: bool) -> tuple[str, str]:
    """What stands over the two sides of a comparison at `time` seconds."""
    return "source", f"edited: {edits_text(plan.edits, time)}" if shown else "no face: as the source"


def calm(track: Track) -> Track:
    """The track with the landmarks that the mask follows: smoothed, so that its edge does not tremble."""
    landmarks = track.landmarks.copy()
    for shot in shot_slices(track.shots):
        landmarks[shot] = smooth_landmarks(track.landmarks[shot], track.times[shot])
    return replace(track, landmarks=landmarks)


def drawn_crops(
    frames: list[Frame], track: Track, codes: RowFile, G: Generator, plan: Plan | None, sides: Sides = NOWHERE
) -> Iterator[np.ndarray]:
    """The face of each frame as seen through its window, `[N, N, 3]` uint8: with the plan's edits, without if None.

    `sides`: pixels more on each side.
    """
    if not frames:
        return iter(())
    index = np.array([frame.index for frame in frames])
    ws = codes.take(index)
    if plan is not None:
        ws = apply_edits(ws, track.times[index], plan.edits, plan.directions)
    return render_crops(G, ws, track.transforms[index], len(index), sides)


def presence(times: np.ndarray, status: np.ndarray, shots: np.ndarray | None = None) -> np.ndarray:
    """Opacity of the face `[T]`: 1, falling to 0 over `FADE` seconds towards frames of its shot that show none."""
    opacity, shots = np.ones(len(times)), np.zeros(len(times), np.int32) if shots is None else shots
    for shot in shot_slices(shots):
        gaps = times[shot][status[shot] == ABSENT]
        if len(gaps):
            after = np.searchsorted(gaps, times[shot])
            before, after = np.clip(after - 1, 0, None), np.clip(after, None, len(gaps) - 1)
            distance = np.minimum(np.abs(times[shot] - gaps[before]), np.abs(gaps[after] - times[shot]))
            opacity[shot] = np.clip(distance / FADE, 0.0, 1.0)
    return opacity
