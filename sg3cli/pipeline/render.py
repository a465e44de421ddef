"""The render stage: frames and edited codes, batch by batch, to composed frames and the output file."""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.compositing.face_overlap import AllFaces
from sg3cli.compositing.transfer import Transfer
from sg3cli.drawing.compare import compare_view
from sg3cli.drawing.labelled_grid import edits_text
from sg3cli.faces.alignment import ABSENT, Track
from sg3cli.latents.edits import Edit
from sg3cli.nets.generator import Generator
from sg3cli.pipeline import provenance
from sg3cli.pipeline.align import load_everybody
from sg3cli.pipeline.device import choose_device
from sg3cli.pipeline.face_crops import FaceEdits, with_smooth_landmarks
from sg3cli.pipeline.face_paster import NO_INPUTS, CompositingInputs, FacePaster, paster_of, pixel_sides
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.invert import smoothed_codes
from sg3cli.pipeline.partial_render import chunk_frames, only_inside, opacity, tee
from sg3cli.pipeline.paste_inputs import Span, prepare
from sg3cli.pipeline.presence import presence
from sg3cli.pipeline.render_plan import Plan
from sg3cli.project import Project
from sg3cli.settings import RenderConfig
from sg3cli.time_ranges import parse_ranges
from sg3cli.video import Cut, Frame, SegmentedWriter, VideoReader, write_chunk

if TYPE_CHECKING:
    from sg3cli.pipeline import Job


@dataclass(frozen=True)
class RenderedFace:
    """One of the faces that are edited, with what pastes it and who is beside it."""

    edits: FaceEdits  # with smooth landmarks
    inputs: CompositingInputs = NO_INPUTS
    everybody: AllFaces | None = None  # None: nobody else is in the clip

    @property
    def track(self) -> Track:
        """Where the face is."""
        return self.edits.track

    def overlap(self, frame: int, paster: FacePaster) -> np.ndarray | float:
        """Opacity `[H, W]` of the crop that keeps off the other faces; 1.0 where none is near."""
        if self.everybody is None:
            return 1.0
        shape, landmarks = paster.shape(paster.resolution), self.track.landmarks[frame]
        return self.everybody.overlap(self.edits.number, frame, landmarks, paster.window(frame), shape)


def rendered_faces(
    job: Job, plan: Plan, G: Generator, adapted: Generator | None = None, span: Span | None = None
) -> list[RenderedFace]:
    """The faces that the project edits, each with its own edits and with what pastes it into the frames of `span`.

    `adapted` draws the edited faces where it is not `G`, which draws those without edits.
    """
    project = job.project
    everybody, found = load_everybody(project), []
    untouched = project.key("finetune" if plan.tuned else "invert")
    for order, number in enumerate(project.faces):
        track = project.track(order)
        codes = smoothed_codes(project, plan.bundle, track, job.smooth(), order, job)
        face = plan.of_face(with_smooth_landmarks(track), codes, number, order)
        if adapted is None and fades_by_strength(job.settings.render):
            face = replace(face, shares=shares_of(track, job.settings.render))
        found.append(RenderedFace(face, prepare(job, face, G, (untouched, plan.inputs), adapted, span), everybody))
    return found


def fades_by_strength(config: RenderConfig) -> bool:
    """Whether less of an edit is less of a change, and none of it the source: it then fades by its strength.

    Where it fades by opacity, two heads are seen that are turned differently.
    """
    alike = config.view != "face" and config.stitch not in ("none", "tune")
    return alike and config.transfer != "draw" and config.detail == 1


def shares_of(track: Track, config: RenderConfig) -> np.ndarray:
    """How much of its edits each frame of a face has `[T]`: less towards frames without it, and at a range's ends."""
    shown = presence(track.times, track.status, track.shots)
    return shown if config.range is None else shown * opacity(track.times, parse_ranges(config.range))


def run(job: Job, plan: Plan, out: str) -> dict[str, Any]:
    """Write the video to `out`, signed if that is asked for; returns the facts for the project's record."""
    project, config, signing = job.project, job.settings.render, job.signing(out)
    comment = {"comment": json.dumps({"sg3": plan.record}, separators=(",", ":"))}
    with VideoReader(project.source(), **project.reading) as reader, ExitStack() as stack:
        size, cut = shape_of(job, plan, reader)
        before_publish = partial(provenance.mark_as_ours, project, out)
        made = SegmentedWriter(out, reader.info, job.settings.encode, size, comment, cut, before_publish, signing)
        frames: Iterator[Frame] = iter(())
        if made.start < len(reader):  # else they are only to be joined, which takes no networks
            frames = edited_frames(job, plan, reader, stack, made.start)
        with made as writer:
            if 0 < writer.start < len(reader):
                job.console.notice(f"render: {writer.start} of {len(reader)} frames are there from an earlier run")
            for frame in job.console.progress(frames, len(reader), "render", writer.start):
                writer.write(frame)
        job.report("render", writer.notices)
    digest = None if out == "-" else provenance.write_sidecar(out, plan.record, signing)
    params = {**asdict(config), "encode": asdict(job.settings.encode)}
    signed = None if signing is None else signing.mark
    inputs, notices = ("finetune",) if plan.tuned else ("invert",), list(writer.notices)
    return {"params": params, "inputs": inputs, "sha256": digest, "signed": signed, "notices": notices}


def run_range(job: Job, plan: Plan, out: str, first: int, last: int) -> None:
    """Keep the chunk of the frames `first` to `last` in the project: `run`, which finds it there, would make the same.

    `first` and `last` are those of a chunk of the `shape_of` the output, of which `out` tells the container.
    """
    project = job.project
    with VideoReader(project.source(), **project.reading) as reader, ExitStack() as stack:
        size, cut = shape_of(job, plan, reader)
        frames = islice(edited_frames(job, plan, reader, stack, first, (first, last)), last - first)
        shown = job.console.progress(frames, last, "render", first)
        job.report("render", write_chunk(out, reader.info, job.settings.encode, size, cut, shown))


def shape_of(job: Job, plan: Plan, reader: VideoReader) -> tuple[tuple[int, int], Cut]:
    """(width, height) of the output, and where it is cut into chunks."""
    config, info = job.settings.render, reader.info
    size = output_size(config, plan.bundle.origin.config.img_resolution, info.width, info.height)
    length = chunk_frames(job.settings.encode.segment, info.average_rate, config.batch)
    return size, Cut(chunk_folder(job.project, plan.key), plan.key, len(reader), length)


def edited_frames(
    job: Job, plan: Plan, reader: VideoReader, stack: ExitStack, start: int, span: Span | None = None
) -> Iterator[Frame]:
    """The frames from `start` on, where a batch begins, as the output shows them. What they hold is freed by `stack`.

    With a `span` only its frames come out right, and nothing is made in the project for others.
    """
    project, config, bundle = job.project, job.settings.render, plan.bundle
    device = choose_device(job.device, job.console)
    G = tuned_generator(project, bundle.origin, plan.tuned, job.nets).to(device)
    adapted = tuned_generator(project, bundle, plan.tuned, job.nets).to(device) if bundle.is_adapted else None
    for net in (G,) if adapted is None else (G, adapted):
        net.synthesis.set_precision(config.precision)
    faces = rendered_faces(job, plan, G, adapted, span)
    for face in faces:
        stack.callback(face.inputs.close)
    return frames_in_range(reader.frames(start), faces, G, config)


def output_size(config: RenderConfig, crop: int, width: int, height: int) -> tuple[int, int]:
    """(width, height) of the output, for a generator of `crop` pixels."""
    left, right, top, bottom = pixel_sides(config, crop)
    face = (crop + left + right, crop + top + bottom)
    return {"frame": (width, height), "face": face, "compare": (2 * width, height)}[config.view]


def compose_all(
    frames: Iterator[Frame], faces: list[RenderedFace], G: Generator, config: RenderConfig
) -> Iterator[Frame]:
    """Each source frame with all edited faces in it: each face's frames go on to the next, as their masks part them.

    The view of the face shows the first one.
    """
    if len(faces) == 1 or config.view == "face":
        yield from compose_face(frames, faces[0], G, config)
        return
    sources: deque[Frame] = deque()  # as many as the batches of all faces hold back
    result = tee(frames, sources)
    for face in faces:
        result = compose_face(result, face, G, replace(config, view="frame"))
    for frame in result:
        source = sources.popleft().rgb
        if config.view == "compare":
            everything = [edit for face in faces for edit in face.edits.edits]
            shown = any(face.track.status[frame.index] != ABSENT for face in faces)
            frame = replace(frame, rgb=side_by_side(source, frame.rgb, frame.time, everything, config, shown))
        yield frame


def chunk_folder(project: Project, key: str) -> Path:
    """Folder of the chunks of a render with this content key; what renders of other keys have left is removed."""
    folder = project.path / provenance.UNFINISHED / key
    for other in folder.parent.glob("*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def clear(project: Project) -> None:
    """Remove the chunks of a video that stands, with its records."""
    shutil.rmtree(project.path / provenance.UNFINISHED, ignore_errors=True)


def frames_in_range(
    frames: Iterator[Frame], faces: list[RenderedFace], G: Generator, config: RenderConfig
) -> Iterator[Frame]:
    """`compose_all`, but frames outside of `config.range` keep their bits and no face is drawn for them."""
    if config.range is None:
        return compose_all(frames, faces, G, config)

    def edited(part: Iterator[Frame]) -> Iterator[Frame]:
        return compose_all(part, faces, G, config)

    def plain(frame: Frame) -> Frame:
        if config.view != "compare":
            return frame
        return replace(frame, rgb=side_by_side(frame.rgb, frame.rgb, frame.time, faces[0].edits.edits, config, False))

    def blend(below: Frame, above: Frame, share: float) -> Frame:
        mixed = below.rgb + np.float32(share) * (above.rgb.astype(np.float32) - below.rgb)
        return replace(below, rgb=np.rint(mixed).astype(np.uint8))

    shown = opacity(faces[0].track.times, parse_ranges(config.range))
    if faces[0].edits.shares is not None:
        shown = np.where(shown > 0, 1.0, 0.0)
    return only_inside(frames, shown, config.batch, edited, plain, blend)


def compose(
    frames: Iterator[Frame], face: FaceEdits, G: Generator, config: RenderConfig, inputs: CompositingInputs = NO_INPUTS
) -> Iterator[Frame]:
    """Each source frame with one edited face in it that is alone in the clip; see `compose_face`."""
    return compose_face(frames, RenderedFace(replace(face, track=with_smooth_landmarks(face.track)), inputs), G, config)


def compose_face(frames: Iterator[Frame], face: RenderedFace, G: Generator, config: RenderConfig) -> Iterator[Frame]:
    """Each frame with the edited face in it, or what else the view shows; one batch in memory."""
    track = face.track
    opacity = presence(track.times, track.status, track.shots)
    if face.edits.shares is not None:
        opacity = np.where(opacity > 0, 1.0, 0.0)
    paster = paster_of(face.edits, config, G.img_resolution, face.inputs)
    blank = np.zeros((*paster.shape(G.img_resolution), 3), np.uint8)
    while batch := list(islice(frames, config.batch)):
        drawn = drawings(batch, face, paster, G)
        for frame in batch:
            plain, crop, transfer = drawn.get(frame.index, (None, None, None))
            if config.view == "face":
                yield replace(frame, rgb=crop if crop is not None else blank)
                continue
            result = frame.rgb
            if crop is not None:
                alpha = opacity[frame.index] * face.overlap(frame.index, paster)
                result = paster.paste(frame, crop, plain, alpha, transfer)
            if config.view == "compare":
                result = side_by_side(frame.rgb, result, frame.time, face.edits.edits, config, crop is not None)
            yield replace(frame, rgb=result)


def drawings(
    batch: list[Frame], face: RenderedFace, paster: FacePaster, G: Generator
) -> Mapping[int, tuple[np.ndarray | None, np.ndarray, Transfer | None]]:
    """{frame: its drawing without the edit where one is needed, that with it, how the edit goes over}."""
    shown = [frame for frame in batch if face.track.status[frame.index] != ABSENT]
    if paster.transfers and face.inputs.transfers is not None:
        return {frame.index: face.inputs.transfers.at(frame.index) for frame in shown}
    by = face.inputs.seam or G
    if not paster.wants_plain:
        edited = face.edits.crops(shown, by, face.edits.edits, paster.sides)
        return {frame.index: (None, crop, None) for frame, crop in zip(shown, edited, strict=True)}
    pairs = face.edits.pairs(shown, G, by, paster.config, paster.sides)
    maker, found = face.inputs.maker if paster.transfers else None, {}
    for frame, (before, after) in zip(shown, pairs, strict=True):
        alone = (before, after, None)
        found[frame.index] = alone if maker is None else paster.drawn(maker, frame, before, after)
    return found


def side_by_side(
    source: np.ndarray, result: np.ndarray, time: float, edits: list[Edit], config: RenderConfig, shown: bool
) -> np.ndarray:
    """The comparison of one frame, with captions where they are wanted."""
    return compare_view(source, result, captions(edits, time, shown) if config.labels == "on" else None)


def captions(edits: list[Edit], time: float, shown: bool) -> tuple[str, str]:
    """What stands over the two sides of a comparison at `time` seconds."""
    return "source", f"edited: {edits_text(edits, time)}" if shown else "no face: as the source"
