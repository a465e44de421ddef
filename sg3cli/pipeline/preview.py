"""A preview: the frames around one frame, seen, inverted and edited in memory. Nothing is stored.

What a project already holds (track, codes, tuned generator) is used as far as it is up to date and was made with the
parameters asked for; the rest is computed for the frames near the frame only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sg3cli.drawing.labelled_grid import time_text
from sg3cli.errors import InputError, UsageError
from sg3cli.faces import crops as crops_
from sg3cli.faces.alignment import ABSENT, Track
from sg3cli.faces.detectors import make_detector
from sg3cli.faces.face import Detector
from sg3cli.faces.frame_quality import frame_quality
from sg3cli.faces.identity_embedding import make_embedder
from sg3cli.faces.selection import NOBODY, choose
from sg3cli.files import ArrayRows, RowFile
from sg3cli.geometry import warp_quad
from sg3cli.latents import inversion
from sg3cli.latents.codes import CodeRows
from sg3cli.latents.edits import Edit, edits_of
from sg3cli.nets.generator import Generator
from sg3cli.pipeline import likeness
from sg3cli.pipeline.align import clip_of, named_appearances, pack, row_of, track_of
from sg3cli.pipeline.device import choose_device
from sg3cli.pipeline.face_crops import FaceEdits
from sg3cli.pipeline.face_paster import CompositingInputs
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.invert import code_parts, load_codes, smoothed_names, smoothed_part
from sg3cli.pipeline.load_edits import load_edits
from sg3cli.pipeline.paste_inputs import map_maker
from sg3cli.pipeline.render import compose
from sg3cli.project import CODE_PARTS
from sg3cli.video import Frame, VideoReader
from sg3cli.weights.bundle import Bundle

if TYPE_CHECKING:
    from sg3cli.nets.encoder import Encoder
    from sg3cli.pipeline import Job

NEAR = 0.6  # seconds on each side of a frame in which the face is followed, so that its square is smoothed
CODES = 1  # frames on each side whose codes are averaged with the frame's
APPEARANCE_FRAMES = 3  # a face's appearance is taken in every so many frames
STRETCH = 1.0  # seconds on each side of the clip's middle that are searched for a good frame
REACH = 10.0  # seconds on each side that are searched for the nearest face, when a frame has none
STEP = 0.2  # seconds between the frames looked at meanwhile
SEARCHED_FRAMES = 24  # frames all over the clip that are looked at after that
PLACES = (0.5, 0.35, 0.65, 0.2, 0.8, 0.05, 0.95)  # of the clip, in the order in which a good frame is looked for


@dataclass(frozen=True)
class PreviewFrame:
    """One frame, and what is known of the face around it. `frame.index` counts in `track` and `codes`."""

    index: int  # in the clip
    frame: Frame
    track: Track
    codes: CodeRows


@dataclass(frozen=True)
class ReusableStages:
    """What of a project can be used as it is."""

    track: Track | None
    codes: bool
    tuned: bool


def reusable_stages(job: Job, bundle: Bundle, tuned: bool) -> ReusableStages:
    """Look which stages are done with the parameters that the job asks for; `tuned`: whether tuning is wanted."""
    project = job.project
    aligned = fits(job, "align", ())
    inverted = aligned and fits(job, "invert", ("model", "batch"))
    if inverted and project.record("invert").models["generator"] != bundle.origin.digest:
        job.console.notice(f"preview: the project's codes are not of {bundle.origin.name}, the face is inverted anew")
        inverted = False
    finetuned = inverted and project.status("finetune") == "done"
    return ReusableStages(project.track() if aligned else None, inverted, tuned and finetuned)


def fits(job: Job, stage: str, ignored: Sequence[str]) -> bool:
    """Whether a stage is done, with the job's parameters."""
    project = job.project
    if project.status(stage) != "done":
        return False
    known = project.record(stage).params
    asked = {name: value for name, value in asdict(getattr(job.settings, stage)).items() if name not in ignored}
    same = all(known.get(name, value) == value for name, value in asked.items())
    if not same:
        job.console.notice(f"preview: {stage} was done with other settings, it is done anew for the frames shown")
    return same


class CachedSynthesis(torch.nn.Module):
    """A synthesis network that keeps its last images: all cells of a frame need the same unedited face."""

    KEPT = 4

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.known: OrderedDict[tuple[Any, ...], torch.Tensor] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.inner, name)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """What the network inside gives, computed once for equal arguments."""
        parts = [*args, *(part for pair in sorted(kwargs.items()) for part in pair)]
        key = tuple(p.cpu().numpy().tobytes() if isinstance(p, torch.Tensor) else p for p in parts)
        image = self.known.pop(key, None)
        self.known[key] = self.inner(*args, **kwargs) if image is None else image
        while len(self.known) > self.KEPT:
            self.known.popitem(last=False)
        return self.known[key]


class Viewer:
    """A clip and a model opened for previews; `times [T]` are the clip's."""

    def __init__(self, job: Job, reader: VideoReader, bundle: Bundle, tuned: bool = True) -> None:
        self.job, self.reader, self.bundle = job, reader, bundle
        self.reusable = reusable_stages(job, bundle, tuned)
        self.device = choose_device(job.device, job.console)
        self.G = self._opened(bundle.origin)
        self.adapted = self._opened(bundle) if bundle.is_adapted else None  # draws the edited face
        self.times = reader.times
        self._models: tuple[Generator, Encoder] | None = None

    def _opened(self, bundle: Bundle) -> Generator:
        """The generator, tuned if that is wanted, which keeps its images."""
        G = tuned_generator(self.job.project, bundle, self.reusable.tuned).to(self.device)
        G.synthesis = CachedSynthesis(G.synthesis)  # type: ignore[assignment]  # it behaves as the one inside
        return G

    # ---- choosing frames

    def index_at(self, seconds: float) -> int:
        """The frame that is on screen at `seconds`; raises `UsageError` for a time beyond the clip."""
        duration = self.reader.info.duration
        if seconds > duration + 1e-6:
            what = f"--at {seconds:g}s lies beyond the clip, which lasts {duration:.2f} s"
            raise UsageError(what, f"choose a time from 0s to {self.times[-1]:.2f}s")
        return max(0, int(np.searchsorted(self.times, seconds + 1e-4, side="right")) - 1)

    def best_index(self) -> int:
        """A sharp, frontal frame near the middle of the clip; raises `InputError` when no face is found."""
        stretches = [self._around(place * float(self.times[-1]), STRETCH) for place in PLACES]
        for first, last in dict.fromkeys(stretches):
            track, thumbs = self._aligned_faces(first, last)
            if track is not None and (track.status != ABSENT).any():
                return first + int(np.argmax(frame_quality(track, thumbs)))
        raise InputError(f"{self.reader.info.path}: {NOBODY[0]}", NOBODY[1])

    def _aligned_faces(self, first: int, last: int) -> tuple[Track | None, list[np.ndarray | None]]:
        """Track of a stretch of frames, and the small aligned face of each."""
        frames = list(islice(self.reader.frames(first), last - first))
        track = part_of(self.reusable.track, first, last) if self.reusable.track else self._follow(frames)
        if track is None:
            return None, []
        numbered = (replace(frame, index=k) for k, frame in enumerate(frames))
        return track, list(crops_.aligned_crops(numbered, track, 96))

    def _around(self, seconds: float, reach: float) -> tuple[int, int]:
        """First and last + 1 of the frames at most `reach` seconds away, at least one."""
        first = int(np.searchsorted(self.times, seconds - reach))
        last = int(np.searchsorted(self.times, seconds + reach, side="right"))
        return min(first, len(self.times) - 1), max(last, first + 1)

    # ---- looking at them

    def frame(self, index: int) -> PreviewFrame:
        """The frame `index` with track and codes; raises `InputError` naming the nearest face if it has none."""
        first, last = self._around(float(self.times[index]), NEAR)
        here = index - first
        if self.reusable.track is not None:
            track: Track | None = part_of(self.reusable.track, first, last)
            near = list(self._subset(index, first, last))
        else:
            track, near = self._watched(index, first, last)
        if track is None or track.status[here] == ABSENT:
            raise self._no_face(index, first, track)
        codes = self._codes(first, last) if self.reusable.codes else self._invert(near, track)
        frame = next(frame for frame in near if frame.index == here)
        return PreviewFrame(index, frame, track, codes)

    def _subset(self, index: int, first: int, last: int) -> Iterator[Frame]:
        """The frames beside `index`, numbered from `first`; only itself where its code is there."""
        beside = 0 if self.reusable.codes else CODES
        start = max(index - beside, first)
        for frame in islice(self.reader.frames(start), min(index + beside + 1, last) - start):
            yield replace(frame, index=frame.index - first)

    def _watched(self, index: int, first: int, last: int) -> tuple[Track | None, list[Frame]]:
        """Track of the frames `first` to `last`, and those beside `index`; one pass, a few frames in memory."""
        near: list[Frame] = []

        def kept() -> Iterator[Frame]:
            for frame in islice(self.reader.frames(first), last - first):
                frame = replace(frame, index=frame.index - first)
                if abs(frame.index + first - index) <= CODES:
                    near.append(frame)
                yield frame

        return self._follow(kept()), near

    def _follow(self, frames: Iterator[Frame] | list[Frame]) -> Track | None:
        """The chosen face through consecutive frames; None when they show none."""
        config = self.job.settings.align
        detector = make_detector(config.landmarks, self.job.pull)
        embedder = make_embedder(config.embedder)
        rows = [row_of(replace(f, index=k), detector, embedder, APPEARANCE_FRAMES) for k, f in enumerate(frames)]
        clip = clip_of([pack(rows)], embedder, (self.reader.info.height, self.reader.info.width))
        if not clip.candidates.people:
            return None
        if config.face.isdigit():
            said = "preview: faces are numbered in the part that was looked at; `sg3 align` numbers the whole clip's"
            self.job.console.notice(said)
        person = choose(clip.candidates, config.face, named_appearances(self.job, config))[0]
        return track_of(clip, person, config)

    def _no_face(self, index: int, first: int, track: Track | None) -> InputError:
        """The error of a frame without a face, with the nearest time that has one."""
        seconds = float(self.times[index])
        nearest = self._nearest_face(index, first, track)
        what = f"no face is seen at {time_text(seconds)}"
        if nearest is None:
            return InputError(f"{what}, nor in the frames around it", "give --at a time at which a face is seen")
        return InputError(what, f"the nearest one is at {time_text(nearest)}: --at {nearest:.2f}s")

    def _nearest_face(self, index: int, first: int, track: Track | None) -> float | None:
        here = float(self.times[index])
        known, start = (self.reusable.track, 0) if self.reusable.track is not None else (track, first)
        seen = [] if known is None else self.times[start + np.flatnonzero(known.status != ABSENT)].tolist()
        if not seen and self.reusable.track is None:
            detector = make_detector(self.job.settings.align.landmarks, self.job.pull)
            seen = list(self._seen_near(here, detector)) or list(islice(self._seen_far(here, detector), 1))
        return min(seen, key=lambda time: abs(time - here), default=None)

    def _seen_near(self, here: float, detector: Detector) -> Iterator[float]:
        """Times within reach at which there is a face."""
        first, last = self._around(here, REACH)
        due = -np.inf
        for frame in islice(self.reader.frames(first), last - first):
            if frame.time >= due - 1e-6:
                due = frame.time + STEP
                if detector.update(frame.rgb, frame.time):
                    yield frame.time

    def _seen_far(self, here: float, detector: Detector) -> Iterator[float]:
        """The same for a few frames beyond it, the nearest first."""
        spread = np.unique(np.linspace(0, len(self.times) - 1, SEARCHED_FRAMES).round().astype(int))
        beyond = [k for k in spread.tolist() if abs(self.times[k] - here) > REACH]
        for index in sorted(beyond, key=lambda k: abs(self.times[k] - here)):
            frame = next(self.reader.frames(index))
            if detector.update(frame.rgb, frame.time):
                yield frame.time

    # ---- codes

    def _codes(self, first: int, last: int) -> CodeRows:
        """The project's codes of frames `first` to `last`, smoothed as they will be rendered; nothing is written."""
        project, mode, track = self.job.project, self.job.smooth(), self.reusable.track
        codes = load_codes(project, self.bundle.origin.digest)
        assert track is not None
        found: dict[str, RowFile] = {}
        for part, name in smoothed_names(project, mode, codes).items():
            if project.is_sealed(name) and not project.damage(name):
                found[part] = ArrayRows(RowFile(project.path / name).rows(first, last))
                continue
            rows: RowFile = getattr(codes, part)
            smooth = smoothed_part(part, rows.rows(0, len(rows)), track, mode, self.bundle.config)
            found[part] = ArrayRows(smooth[first:last])
        return CodeRows(**found)

    def _invert(self, near: list[Frame], track: Track) -> CodeRows:
        """Codes of the frames beside this one, smoothed; the rows of other frames stay empty."""
        config = self.job.inversion()
        if self._models is None:  # gradients do not go through a generator that keeps its images
            own = self.reusable.tuned or config.refine > 0 or config.likeness > 0
            untuned = self.bundle.origin.generator().to(self.device) if own else self.G
            self._models = untuned, self.bundle.encoder().to(self.device)
        G, encoder = self._models
        crops = crops_.aligned_crops(near, track, encoder.config.input_size)
        rows = np.array([frame.index for frame in near])
        parts = list(code_parts(crops, G, encoder, config, int(rows[0]), self.job.pull))
        if config.likeness:
            common = likeness.of_frames(self.job, G, near, track, np.stack([part["ws"] for part in parts]))
            parts = [{**part, "ws": part["ws"] + common} for part in parts]
        beside = Track(**{field.name: getattr(track, field.name)[rows] for field in fields(Track)})
        found: dict[str, RowFile] = {}
        for name in (name for name in CODE_PARTS if name in parts[0]):
            values = inversion.fill_absent(np.stack([part[name] for part in parts]), beside.status != ABSENT)
            smooth = smoothed_part(name, values, beside, self.job.smooth(), self.bundle.config)
            whole = np.zeros((len(track), *smooth.shape[1:]), np.float32)
            whole[rows] = smooth
            found[name] = ArrayRows(whole)
        return CodeRows(**found)

    # ---- images

    def source(self, shown: PreviewFrame) -> np.ndarray:
        """The frame, or what is seen of it through the face's window, as the view says."""
        if self.job.settings.render.view == "frame":
            return shown.frame.rgb
        window = shown.track.windows[shown.frame.index]
        return np.rint(warp_quad(shown.frame.rgb, window, self.G.img_resolution)).astype(np.uint8)

    def inverted(self, shown: PreviewFrame) -> np.ndarray:
        """The face as the generator knows it, without an edit and without the source's fine detail."""
        return self._drawn(shown, [], detail=0.0)

    def edited(self, shown: PreviewFrame, edits: Sequence[Edit]) -> np.ndarray:
        """What `render` would show with these edits, but for what steadies a clip over time."""
        return self._drawn(shown, edits)

    def _drawn(self, shown: PreviewFrame, edits: Sequence[Edit], **changes: Any) -> np.ndarray:
        config = replace(self.job.settings.render, **changes)
        # A project's first face is shown, with its own edits.
        mine = edits_of(edits, self.job.project.faces[0]) if self.reusable.track is not None else list(edits)
        loaded = load_edits(mine, self.bundle, self.job.nets).edits
        face = FaceEdits(shown.track, shown.codes, loaded, restyled=self.adapted is not None)
        maker = map_maker(config.transfer, self.bundle, self.job.nets, loaded)
        inputs = CompositingInputs(seam=self.adapted, maker=maker)
        return next(compose(iter([shown.frame]), face, self.G, config, inputs)).rgb


def part_of(track: Track, first: int, last: int) -> Track:
    """Frames `first` to `last` of a track."""
    return Track(**{field.name: getattr(track, field.name)[first:last] for field in fields(Track)})
