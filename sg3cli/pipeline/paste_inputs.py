"""What pasting needs of a whole clip, made or found in the project before the first frame is pasted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sg3cli.compositing.map_maker import MapMaker
from sg3cli.compositing.occlusion import GRID
from sg3cli.compositing.smiling import Smiling
from sg3cli.compositing.user_mask import UserMask
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.files import Chunks, in_chunks
from sg3cli.latents.edits import Edit
from sg3cli.nets.generator import Generator
from sg3cli.pipeline.face_crops import FaceEdits
from sg3cli.pipeline.face_paster import CompositingInputs, FacePaster, paster_of
from sg3cli.pipeline.load_edits import wants_network
from sg3cli.pipeline.occlusion_maps import NEAR, VisibleMaps, mapped_frames
from sg3cli.pipeline.seam import REVISION, seam_generator
from sg3cli.pipeline.transfer_maps import SteadyTransfers
from sg3cli.project import content_key, of_face
from sg3cli.video import Frame, VideoReader
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.loaded_nets import LoadedNets

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

VISIBLE = "stitch/visible"
VISIBLE_IN_RANGE = "stitch/visible-in-range"  # the same of a render with --range, which has them near the range alone
CHUNK = 32  # frames between two saves of the maps

Span = tuple[int, int]  # the first frame, and that after the last


def prepare(
    job: Job,
    face: FaceEdits,
    G: Generator,
    keys: tuple[str, str],
    adapted: Generator | None = None,
    span: Span | None = None,
) -> CompositingInputs:
    """Maps, user mask and generator for a render: made, or found in the project.

    `G` draws the face without the edits, and with them too where no `adapted` one does.
    `keys` are those of what the faces without and with the edits depend on. `span` are the frames that are rendered,
    None: all. Raises `InputError` when the user's mask does not fit the source.
    """
    paster = paster_of(face, job.settings.render, G.img_resolution)
    if paster.config.view == "face":
        return CompositingInputs(seam=seam_generator(job, face, paster, (G, adapted), keys[1]) or adapted)
    maker = map_maker(job.settings.render.transfer, job.bundle(), job.nets, face.edits)
    mask, maps = user_mask(job, len(face.track.pts)), visible_maps(job, face, paster, G, keys[0], span)
    seam = seam_generator(job, face, paster, (G, adapted), keys[1]) or adapted
    transfers = None
    if paster.transfers and maker is not None:
        source = partial(VideoReader, job.project.source(), **job.project.reading)
        transfers = SteadyTransfers(source, face, paster, G, seam, maker)
    return CompositingInputs(maps, mask, seam, maker, transfers)


def map_maker(kind: str, bundle: Bundle, nets: LoadedNets, edits: Sequence[Edit]) -> MapMaker | None:
    """What `--transfer` asks for, or for `auto` the best that the model has for these edits; None: no maps are made."""
    if kind in ("paste", "draw"):
        return None
    learned = wants_network(kind, bundle, edits)
    smile = bundle.smile()
    smiling = None if smile is None else Smiling(**smile)
    return MapMaker(nets.transfer(bundle) if learned else None, DrawnMesh.load(), smiling)


def user_mask(job: Job, frames: int) -> UserMask | None:
    """The mask of `--mask`, checked against the source of so many `frames`; None without one."""
    path = job.settings.render.mask
    if path is None:
        return None
    with VideoReader(job.project.source(), **job.project.reading) as reader:
        return UserMask(Path(path), reader.info.width, reader.info.height, frames)


def visible_maps(
    job: Job, face: FaceEdits, paster: FacePaster, G: Generator, inputs: str, span: Span | None = None
) -> VisibleMaps | None:
    """What of the face may change in each frame of the clip, or of a `span`; None where nothing is protected."""
    if not paster.protects:
        return None
    config = paster.config
    first, count = (0, len(face.track.pts)) if span is None else around(span, face.track.times, config.batch)
    settings = {"protect": config.protect, "expand": paster.sides, "smooth": job.smooth(), "revision": REVISION}
    settings |= {"precision": config.precision}
    chunks = Chunks(job.project.path / of_face(VISIBLE, face.order), content_key(inputs=inputs, **settings), first)
    if config.range is not None and chunks.rows < count:
        key = content_key(inputs=inputs, range=config.range, **settings)
        chunks = Chunks(job.project.path / of_face(VISIBLE_IN_RANGE, face.order), key, first)
    job.report_damage("render", chunks.damaged)
    if chunks.rows < count:
        make_maps(job, face, paster, G, chunks, count)
    return VisibleMaps(chunks, face.track)


def around(span: Span, times: np.ndarray, batch: int) -> Span:
    """The frames whose maps those of `span` are smoothed with, in whole batches; `times [T]` of all frames."""
    near = [times[span[0]] - NEAR, times[span[1] - 1] + NEAR]
    begin, end = (int(row) for row in np.searchsorted(times, near))
    return begin // batch * batch, min(-(-end // batch) * batch, len(times))


def make_maps(job: Job, face: FaceEdits, paster: FacePaster, G: Generator, chunks: Chunks, last: int) -> None:
    """The maps up to frame `last` that `chunks` does not hold yet, in whole batches: a resumed run is the same."""
    batch = paster.config.batch
    with VideoReader(job.project.source(), **job.project.reading) as reader:
        wanted = islice(reader.frames(chunks.rows), last - chunks.rows)
        frames = job.console.progress(wanted, last, "render: masks", chunks.rows)
        for maps in in_chunks(computed_maps(frames, face, paster, G), batch * -(-CHUNK // batch), batch):
            chunks.append({"visible": np.stack(maps)}, len(maps))


def computed_maps(frames: Iterator[Frame], face: FaceEdits, paster: FacePaster, G: Generator) -> Iterator[np.ndarray]:
    """The map `[h, w]` uint8 of each frame, white where none is needed."""
    wanted = mapped_frames(paster.track, paster.config)
    while part := list(islice(frames, paster.config.batch)):
        shown = [frame for frame in part if wanted[frame.index]]
        drawn = face.crops(shown, G, (), paster.sides)
        plain = dict(zip([frame.index for frame in shown], drawn, strict=True))
        for frame in part:
            seen = np.ones(paster.shape(GRID), np.float32)
            if frame.index in plain:
                seen = paster.visible_map(frame, plain[frame.index])
            yield np.rint(seen * 255).astype(np.uint8)
