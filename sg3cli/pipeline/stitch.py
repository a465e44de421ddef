"""What a render pastes with: masks that are kept in the project, the user's matte, a generator tuned at the seam."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from safetensors.torch import load_file

from sg3cli.align import Track
from sg3cli.config import FinetuneConfig, RenderConfig, parse_sides
from sg3cli.files import read_arrays
from sg3cli.finetune import apply_delta, select_targets
from sg3cli.geometry import expanded_quad, warp_quad
from sg3cli.invert import ABSENT
from sg3cli.masks import edge_mask, face_mask, landmarks_in_window
from sg3cli.matte import Matte
from sg3cli.nets.generator import Generator
from sg3cli.nets.synthesis import NOWHERE, Sides
from sg3cli.pipeline.finetune import read_meta, restore, save_tensors
from sg3cli.project import Chunks, content_key, of_face
from sg3cli.protect import GRID, STEADY, smooth_maps, stretches, visible
from sg3cli.ranges import opacity, parse_ranges, whole_batches, within_reach
from sg3cli.sequence import identity
from sg3cli.smoothing import REACH
from sg3cli.stitch import paste
from sg3cli.stitchtune import SeamTargets, SeamTuner, seam_target
from sg3cli.video import Frame, VideoReader

if TYPE_CHECKING:
    from sg3cli.pipeline import Job

VISIBLE = "stitch/visible"
VISIBLE_IN_RANGE = "stitch/visible-in-range"  # the same of a render with --range, which has them near the range alone
SEAM = "stitch/seam.safetensors"
SEAM_CHECKPOINT = "stitch/seam-checkpoint.safetensors"
# frames, whether with the edits, pixels more on each side -> the generator's crops of them
Draw = Callable[[list[Frame], bool, Sides], Iterator[np.ndarray]]
Edited = Callable[[np.ndarray], np.ndarray]  # indices of frames -> their edited codes

PIECE = 32  # frames between two saves of the masks
REVISION = 1  # raised when masks or seams of the same settings come out differently


def pixel_sides(config: RenderConfig, resolution: int) -> Sides:
    """By how many pixels the view of `resolution` is expanded to the left, right, top and bottom."""
    left, right, top, bottom = (round(share * resolution) for share in parse_sides(config.expand))
    return left, right, top, bottom


def mask_digest(config: RenderConfig) -> str | None:
    """What a user's matte contributes to the content key."""
    if config.mask is None:
        return None
    return identity(Path(config.mask))[1]


@dataclass(frozen=True)
class Tools:
    """What pasting needs of the whole clip; without, each frame is judged on its own."""

    maps: VisibleMaps | None = None
    matte: Matte | None = None
    seam: Generator | None = None


NO_TOOLS = Tools()


@dataclass(frozen=True)
class Look:
    """How one person is pasted: through which windows, and what of the face may change."""

    track: Track  # with calm landmarks
    config: RenderConfig
    resolution: int  # the generator's
    tools: Tools = NO_TOOLS

    @property
    def sides(self) -> Sides:
        """Pixels by which the crops are larger than the generator's square."""
        return pixel_sides(self.config, self.resolution)

    def window(self, index: int) -> np.ndarray:
        """What the crop of a frame shows, `[4, 2]`: the track's window and what it is expanded by."""
        left, right, top, bottom = (side / self.resolution for side in self.sides)
        return expanded_quad(self.track.windows[index], (left, right, top, bottom))

    def shape(self, size: int) -> tuple[int, int]:
        """(height, width) of the crop where the generator's square counts `size` pixels."""
        left, right, top, bottom = (side * size / self.resolution for side in self.sides)
        return round(size + top + bottom), round(size + left + right)

    def opacity(self, index: int) -> np.ndarray:
        """The crop's opacity `[H, W]` float32 from the landmarks (or its edge alone: `replace`)."""
        size, feather = self.shape(self.resolution), self.config.feather
        if self.config.stitch == "none":
            return np.ones(size, np.float32)
        if self.replaced:
            return edge_mask(size, feather)
        return face_mask(landmarks_in_window(self.track.landmarks[index], self.window(index), size), size, feather)

    @property
    def replaced(self) -> bool:
        """Whether the user's matte stands in the place of all other masks."""
        return self.config.mask is not None and self.config.mask_mode == "replace"

    @property
    def protects(self) -> bool:
        """Whether hair or what stands before the face is looked for."""
        return self.config.protect != "none" and self.config.stitch != "none" and not self.replaced

    @property
    def wants_plain(self) -> bool:
        """Whether pasting needs the generator's face without the edit."""
        if self.config.view == "face" or self.config.stitch == "none":
            return False
        looks = self.protects and self.config.protect != "hair" and self.tools.maps is None
        return self.config.detail > 0 or looks

    def visible(self, frame: Frame, plain: np.ndarray | None) -> np.ndarray | None:
        """What of the crop may change: from the maps that were made before, else from this frame alone."""
        if not self.protects:
            return None
        maps = self.tools.maps
        return self.judge(frame, plain) if maps is None else maps.at(frame.index)

    def judge(self, frame: Frame, plain: np.ndarray | None) -> np.ndarray:
        """What of the crop may change in one frame, not smoothed: `[h, w]` float32."""
        shape, window = self.shape(GRID), self.window(frame.index)
        source = warp_quad(frame.rgb, window, shape)
        small = None
        if plain is not None and self.config.protect in ("all", "occlusion"):
            small = cv2.resize(plain.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
        landmarks = landmarks_in_window(self.track.landmarks[frame.index], window, shape)
        return visible(source, small, landmarks, hair=self.config.protect in ("all", "hair"))

    def paste(
        self, frame: Frame, crop: np.ndarray, plain: np.ndarray | None, presence: float | np.ndarray
    ) -> np.ndarray:
        """The frame `[H, W, 3]` uint8 with the crop in its window; pixels outside the mask keep their bits.

        `presence` is an opacity, or one for each pixel of the crop `[h, w]`.
        """
        config, matte = self.config, self.tools.matte
        return paste(
            frame.rgb,
            crop,
            self.window(frame.index),
            self.opacity(frame.index) * np.asarray(presence, np.float32),
            match_ring=config.match,
            plain=plain,
            detail=config.detail,
            visible=self.visible(frame, plain),
            matte=None if matte is None else matte.at(frame.index),
            blend=config.blend if config.stitch != "none" else "alpha",
        )


class VisibleMaps:
    """The maps of a whole clip, kept in pieces and steadied over time when they are asked for."""

    def __init__(self, chunks: Chunks, track: Track) -> None:
        self.chunks, self.times = chunks, track.times
        self.numbers = stretches(track.status != ABSENT, track.shots)
        self.firsts = [int(path.stem) for path in chunks.pieces]
        self._smooth: tuple[int, np.ndarray] | None = None

    def at(self, index: int) -> np.ndarray:
        """The map of frame `index`, `[h, w]` float32."""
        piece = int(np.searchsorted(self.firsts, index, side="right")) - 1
        if self._smooth is None or self._smooth[0] != piece:
            self._smooth = (piece, self._steady(piece))
        return self._smooth[1][index - self.firsts[piece]]

    def _steady(self, piece: int) -> np.ndarray:
        """The maps of one piece, smoothed together with what is near in time: as if the whole clip were at once."""
        first, last = self.firsts[piece], [*self.firsts, self.chunks.rows][piece + 1]
        near = REACH * STEADY + 1e-6
        begin, end = np.searchsorted(self.times, [self.times[first] - near, self.times[last - 1] + near])
        wanted = range(
            int(np.searchsorted(self.firsts, begin, side="right")) - 1, int(np.searchsorted(self.firsts, end))
        )
        maps = np.concatenate([read_arrays(self.chunks.pieces[k])[0]["visible"] for k in wanted])
        start = self.firsts[wanted[0]]
        rows = slice(int(begin), min(int(end), start + len(maps)))
        smooth = smooth_maps(maps[rows.start - start : rows.stop - start] / 255, self.times[rows], self.numbers[rows])
        return smooth[first - rows.start : last - rows.start]


def prepare(
    job: Job, track: Track, G: Generator, draw: Draw, edited: Edited, keys: tuple[str, str], face: int = 0
) -> Tools:
    """Maps, matte and generator for a render: made, or found in the project.

    `edited(frames)` gives the edited codes of frames; `keys` are those of what the faces without and with the edits
    depend on; `face` counts the faces that the project edits. Raises `InputError` when the user's matte does not fit
    the source.
    """
    look = Look(track, job.configs["render"], G.img_resolution)
    if look.config.view == "face":
        return Tools(seam=seam_generator(job, look, G, draw, edited, keys[1], face))
    matte = None
    if look.config.mask is not None:
        with VideoReader(job.project.source(), rate=job.project.rate) as reader:
            matte = Matte(Path(look.config.mask), reader.info.width, reader.info.height, len(track.pts))
    maps = None
    if look.protects:
        settings = {"protect": look.config.protect, "expand": look.sides, "smooth": job.smooth(), "revision": REVISION}
        settings |= {"precision": look.config.precision}
        chunks = Chunks(job.project.path / of_face(VISIBLE, face), content_key(inputs=keys[0], **settings))
        if look.config.range is not None and chunks.rows < len(track.pts):
            key = content_key(inputs=keys[0], range=look.config.range, **settings)
            chunks = Chunks(job.project.path / of_face(VISIBLE_IN_RANGE, face), key)
        if chunks.rows < len(track.pts):
            make_maps(job, look, chunks, draw)
        maps = VisibleMaps(chunks, track)
    return Tools(maps, matte, seam_generator(job, look, G, draw, edited, keys[1], face))


def mapped_frames(track: Track, config: RenderConfig) -> np.ndarray:
    """Which frames `[T]` bool need a map: those with a face, as far as `--range` and the smoothing reach."""
    present = track.status != ABSENT
    if config.range is None:
        return present
    shown = opacity(track.times, parse_ranges(config.range)) > 0
    near = within_reach(track.times, shown, REACH * STEADY + 1e-6)
    return present & whole_batches(near, config.batch)


def make_maps(job: Job, look: Look, chunks: Chunks, draw: Draw) -> None:
    """The maps of the frames that `chunks` does not hold yet, in whole batches so that a resumed run is the same."""
    batch, wanted = look.config.batch, mapped_frames(look.track, look.config)
    size = batch * -(-PIECE // batch)
    maps: list[np.ndarray] = []
    with VideoReader(job.project.source(), rate=job.project.rate) as reader:
        frames = job.console.progress(reader.frames(chunks.rows), len(look.track.pts), "render: masks", chunks.rows)
        while part := list(islice(frames, batch)):
            shown = [frame for frame in part if wanted[frame.index]]
            plain = dict(zip([frame.index for frame in shown], draw(shown, False, look.sides), strict=True))
            for frame in part:
                seen = np.ones(look.shape(GRID), np.float32)
                if frame.index in plain:
                    seen = look.judge(frame, plain[frame.index])
                maps.append(np.rint(seen * 255).astype(np.uint8))
            if len(maps) >= size:
                chunks.append({"visible": np.stack(maps)}, len(maps))
                maps = []
    if maps:
        chunks.append({"visible": np.stack(maps)}, len(maps))


def seam_generator(
    job: Job, look: Look, G: Generator, draw: Draw, edited: Edited, inputs: str, face: int
) -> Generator | None:
    """With `--stitch tune`, a copy of `G` whose edited faces meet the frame at the mask's edge; kept in the project."""
    config = look.config
    seam, checkpoint = (job.project.path / of_face(name, face) for name in (SEAM, SEAM_CHECKPOINT))
    if config.stitch != "tune":
        return None
    tuning = replace(job.configs["finetune"], steps=config.stitch_steps)
    settings: dict[str, Any] = {
        "detail": config.detail,
        "feather": config.feather,
        "threshold": config.stitch_threshold,
    }
    settings |= {"mask_mode": config.mask_mode if config.mask else None, "smooth": job.smooth(), "revision": REVISION}
    settings |= {"precision": config.precision}
    key = content_key(inputs=inputs, tuning=tuning, **settings)
    result = copy.deepcopy(G)
    if read_meta(seam).get("key") == key:
        apply_delta(result, load_file(str(seam)))
        return result
    tuner = seam_tuner(job, look, G, draw, edited, tuning)
    restore(tuner, checkpoint, key)
    last = None
    for last in job.console.progress(tuner.run(), config.stitch_steps, "render: seam", tuner.step):
        if last.step % tuning.save_every == 0:
            save_tensors(checkpoint, tuner.state(), {"key": key, "log": []})
    save_tensors(seam, tuner.delta(), {"key": key})
    checkpoint.unlink(missing_ok=True)
    if last is not None:
        job.console.notice(f"render: the seam was tuned in {last.step} steps to a squared error of {last.l2:.4f}")
    apply_delta(result, tuner.delta())  # what a later run gets from the file, to the bit
    return result


def seam_tuner(
    job: Job,
    look: Look,
    G: Generator,
    draw: Draw,
    edited: Edited,
    tuning: FinetuneConfig,
) -> SeamTuner:
    """A tuner on the edited codes of the frames that show the face, or of as many as memory allows."""
    track, config, size = look.track, look.config, G.img_resolution
    square = replace(look, config=replace(config, expand=None))  # beyond the square nothing was tuned, nor is it now
    chosen = select_targets(track.status != ABSENT, size)
    images = np.empty((len(chosen), size, size, 3), np.uint8)
    masks = np.empty((len(chosen), size, size), np.uint8)
    rows = {int(index): row for row, index in enumerate(chosen)}
    with VideoReader(job.project.source(), rate=job.project.rate) as reader:
        frames = job.console.progress(reader.frames(), len(track.pts), "render: reading")
        wanted = (frame for frame in frames if frame.index in rows)
        while part := list(islice(wanted, config.batch)):
            crops = zip(part, draw(part, True, NOWHERE), draw(part, False, NOWHERE), strict=True)
            for frame, after, before in crops:
                source = warp_quad(frame.rgb, track.windows[frame.index], size)
                row = rows[frame.index]
                images[row], masks[row] = seam_target(after, before, source, square.opacity(frame.index), config.detail)
    targets = SeamTargets(images, np.arange(len(chosen)), masks)
    tuner = SeamTuner(G, edited(chosen), track.transforms[chosen], targets, tuning, config.stitch_threshold)
    tuner.G.synthesis.set_precision("fp32")
    return tuner
