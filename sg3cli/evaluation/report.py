"""What a report shows of one project: videos, frames, figures over time, edits, models, stages, provenance.

Figures are those of `sg3 evaluate` and `sg3 evaluate video`; what they lack is None and shown as not computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.console import Console
from sg3cli.drawing.images import jpeg_bytes, tint_bytes
from sg3cli.drawing.line_plot import Panel, Shade
from sg3cli.drawing.plot_layout import DrawnPanel, layout
from sg3cli.errors import InputError, ModelError, Sg3Error, UsageError
from sg3cli.evaluation import project_metrics, report_models, timeline, video_timeline
from sg3cli.evaluation.figure_words import Row, figure_rows, video_rows
from sg3cli.evaluation.report_masks import Masks
from sg3cli.evaluation.report_videos import Footage, Pixels, SmallVideos, data_url, small_videos
from sg3cli.evaluation.video_figures import Judged, JudgeStore, judge_output
from sg3cli.faces.alignment import ABSENT, Track
from sg3cli.geometry import warp_quad
from sg3cli.latents.edits import edits_of
from sg3cli.latents.inversion import spread
from sg3cli.pipeline import Job, provenance
from sg3cli.project import STAGES, Project
from sg3cli.video import VideoReader

TILES = 8  # frames of the strip
TILE = 160  # pixels of their sides; half of it where there is little room
TINT = (20, 140, 120)  # of a mask
WIDER = 0.15  # of the face's window: what a tile shows around it
MOST_VIDEO = 6 << 20  # bytes of a clip's two videos, however much room there is
BESIDE = 120_000  # bytes of a clip's part of the page without its videos, about


@dataclass(frozen=True)
class Tile:
    """A frame of the strip: addresses that hold the images; `mask` is laid over them."""

    time: float
    source: str
    edited: str | None
    mask: str | None


@dataclass(frozen=True)
class StageRow:
    """What is known of a stage's last run; None: not recorded."""

    name: str
    status: str
    seconds: float | None
    memory: int | None  # bytes: the most that its process had taken by its end
    version: str
    settings: list[Row]


@dataclass(frozen=True)
class ClipReport:
    """All that a page shows of one project."""

    name: str  # of the clip
    project: str
    facts: list[Row]
    edits: list[str]
    videos: SmallVideos | None
    tiles: list[Tile]
    panels: list[DrawnPanel]
    figures: Mapping[str, Any] | None  # of `sg3 evaluate video`
    features: np.ndarray | None  # `[N, 2, K]` of the judged frames, for distances over all clips
    measured: list[Row]  # the same in words, and those of `sg3 evaluate`
    evaluated: list[Row]
    stages: list[StageRow]
    models: list[report_models.ModelRow]
    provenance: list[Row]
    notices: list[str]
    shapes: list[dict[str, Any]] = field(default_factory=list)
    mask_words: str = ""

    @property
    def seconds(self) -> float | None:
        """That all recorded stages took together."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if known else None


@dataclass(frozen=True)
class Wanted:
    """How a report is made: `room` bytes for each clip; `quick` leaves out what networks would have to judge."""

    room: int
    every: int = 1
    quick: bool = False
    edited: Path | None = None  # instead of what the project rendered last


def clip_report(job: Job, judges: JudgeStore, wanted: Wanted) -> ClipReport:
    """The report of a locked project. What cannot be had is left out, and a notice says why."""
    project, console = job.project, job.console
    out = wanted.edited or last_output(project)
    footage = Footage(project.source(), out, project.reading)
    if out is not None:
        footage = usable(footage, console)
    judged = None if wanted.quick or footage.edited is None else judged_output(job, judges, footage.edited, wanted)
    evaluated = [] if wanted.quick else evaluated_rows(job, footage.edited, wanted)
    track = project.track() if project.status("align") == "done" else None
    masks = masks_of(job) if track is not None else None
    tiles: dict[int, Tile] = {}
    chosen = strip_frames(track, int(project.stream.get("frames") or 0))
    room = max(0, min(MOST_VIDEO, wanted.room - BESIDE) * 3 // 4)  # base64 makes four bytes of three
    size = TILE if wanted.room > 2 * BESIDE else TILE // 2

    def keep(index: int, pixels: Pixels) -> None:
        tiles[index] = tile(index, pixels, track, masks, rate_of(project), size)

    try:
        videos = small_videos(footage, room, console, set(chosen), keep)
        shapes, words = (masks.shapes(), masks.words) if masks is not None else ([], "")
    finally:
        if masks is not None:
            masks.close()
    if videos is None:
        console.notice("the videos are left out: the page would be too large (--max-size)")
    return ClipReport(
        name=Path(project.manifest["source"]["path"]).name,
        project=project.path.name,
        facts=clip_facts(project, videos),
        edits=[edit.describe() for edit in project.edits],
        videos=videos,
        tiles=[tiles[k] for k in sorted(tiles)],
        panels=panels_of(job, judged, judges, track),
        figures=None if judged is None else judged.figures,
        features=None if judged is None else np.array(judged.seen.features),
        measured=[] if judged is None else list(video_rows(judged.figures)),
        evaluated=evaluated,
        stages=[stage_row(project, stage) for stage in STAGES if stage != "edit"],
        models=report_models.models_of(project, judged),
        provenance=provenance_rows(project, footage.edited),
        notices=notices_of(project, console),
        shapes=shapes,
        mask_words=words,
    )


# ---- the videos


def last_output(project: Project) -> Path | None:
    """The video that the project rendered last, of those that are still there."""
    record = project.record("render")
    outputs = record.facts.get("outputs", {})
    there = [path for path in outputs if Path(path).is_file()]
    latest = [path for path in there if outputs[path].get("key") == record.key]
    return Path((latest or there)[-1]) if there else None


def usable(footage: Footage, console: Console) -> Footage:
    """The footage without its edited video where that cannot be laid on the source; a notice says so."""
    try:
        with closing(footage.frames()) as frames:
            return footage if next(frames, None) is not None else replace(footage, edited=None)
    except InputError as error:
        console.notice(f"{footage.edited} is not shown: {error}")
        return replace(footage, edited=None)


def judged_output(job: Job, judges: JudgeStore, out: Path, wanted: Wanted) -> Judged | None:
    """The edited video against the source; None, and a notice, where that cannot be."""
    try:
        return judge_output(job.project, out, judges.of(job.settings.invert.model), job.console, wanted.every)
    except (InputError, ModelError) as error:
        job.console.notice(f"{out.name} is not judged: {error}")
        return None


def evaluated_rows(job: Job, out: Path | None, wanted: Wanted) -> list[Row]:
    """What `sg3 evaluate` says of the project, in words."""
    try:
        found = project_metrics.evaluate(job, [] if out is None else [str(out)], wanted.every)
    except (InputError, ModelError, UsageError) as error:
        job.console.notice(f"the project is not evaluated: {error}")
        return []
    return list(figure_rows(found))


# ---- frames


def strip_frames(track: Track | None, frames: int) -> list[int]:
    """Frames of the strip: evenly spread over those that show the face, or over all."""
    shown = np.flatnonzero(track.status != ABSENT) if track is not None else np.arange(frames)
    return [int(k) for k in spread(shown if len(shown) else np.arange(frames), TILES)]


def tile(index: int, pixels: Pixels, track: Track | None, masks: Masks | None, rate: float, size: int) -> Tile:
    """The face in one frame, or the middle of the frame where no face is known, as squares of `size` pixels."""
    source, edited = pixels
    quad = around(track, index, source.shape[:2])

    def image(rgb: np.ndarray) -> str:
        seen = warp_quad(rgb, quad, size).round().astype(np.uint8)
        return data_url(jpeg_bytes(seen, quality=82), "image/jpeg")

    mask = None
    if masks is not None:
        opacity = np.repeat(255 * masks.at(index, source.shape[:2])[..., None], 3, axis=2)
        mask = data_url(tint_bytes(warp_quad(opacity, quad, size // 2)[..., 0] / 255 * 0.6, TINT), "image/png")
    time = float(track.times[index]) if track is not None else index / rate
    return Tile(time, image(source), None if edited is None else image(edited), mask)


def around(track: Track | None, index: int, shape: tuple[int, int]) -> np.ndarray:
    """The square `[4, 2]`, upright and within the frame of `shape` as far as it fits, that shows the face."""
    height, width = shape
    middle, half = np.array([width, height]) / 2, min(shape) / 2
    if track is not None and track.status[index] != ABSENT:
        window = track.windows[index].astype(np.float64)
        half = min(half, (0.5 + WIDER) * float(np.linalg.norm(window[3] - window[0])))
        middle = np.clip(window.mean(axis=0), half, np.array([width, height]) - half)
    return middle + half * np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]], np.float64)


def masks_of(job: Job) -> Masks | None:
    """The masks of the last render's settings; None where the model or the user's mask is gone."""
    try:
        return Masks(job.project, job.settings.render, job.bundle().config.img_resolution)
    except Sg3Error as error:
        job.console.notice(f"masks are not shown: {error}")
        return None


# ---- over time


def panels_of(job: Job, judged: Judged | None, judges: JudgeStore, track: Track | None) -> list[DrawnPanel]:
    """Jitter, identity, attributes and strength over the clip's time."""
    project = job.project
    duration = float(project.stream.get("duration") or (track.times[-1] if track is not None else 0.0))
    edits = edits_of(project.edits, project.faces[0])
    known = judges.of(job.settings.invert.model) if judged is not None else None
    panels: list[Panel] = video_timeline.panels(judged, known, edits, duration)
    if judged is None and track is not None:
        panels[0] = timeline.jitter_panel(track)
    shades: list[Shade] = [] if track is None else timeline.shades(track, duration)
    return [layout(panel, duration, shades) for panel in panels]


# ---- facts


def rate_of(project: Project) -> float:
    """Frames a second."""
    above, _, below = str(project.stream.get("average_rate") or "25/1").partition("/")
    return float(above) / float(below or 1)


def clip_facts(project: Project, videos: SmallVideos | None) -> list[Row]:
    """The clip and how it is shown."""
    stream, faces = project.stream, project.faces
    rows = [("project", project.path.name)]
    if stream:
        rows.append(("clip", f"{stream['width']}x{stream['height']}, {stream['codec']}"))
        rows.append(("length", f"{stream['duration']:.2f} s, {stream['frames']} frames, {rate_of(project):g}/s"))
    if videos is not None:
        rows.append(("shown", videos.note))
    if len(faces) > 1:
        rows.append(("faces", f"{', '.join(map(str, faces))}; figures are of face {faces[0]}"))
    return rows


def stage_row(project: Project, stage: str) -> StageRow:
    """What the project records of a stage."""
    record = project.record(stage)
    if not record:
        return StageRow(stage, project.status(stage), None, None, "", [])
    memory = record.facts.get("peak_memory")
    settings = [(name, "none" if value is None else str(value)) for name, value in record.params.items()]
    return StageRow(stage, project.status(stage), record.seconds, memory, record.version, settings)


def provenance_rows(project: Project, out: Path | None) -> list[Row]:
    """Where the videos come from: digests, and what the record beside the edited one says."""
    source = project.manifest["source"]
    rows = [("source", Path(source["path"]).name), ("  digest", source["sha256"]), ("  bytes", f"{source['size']:,}")]
    record = None if out is None else provenance.read_sidecar(str(out))
    if out is None:
        return [*rows, ("edited", "no edited video")]
    if record is None:
        return [*rows, ("edited", out.name), ("  record", "none that belongs to this file")]
    rows += [("edited", out.name), ("  digest", record["output"]["sha256"])]
    rows += [("  made by", record["tool"]), ("  note", str(record.get("note", "")))]
    return rows


def notices_of(project: Project, console: Console) -> list[str]:
    """What was said of reading, of the render, and while the report was made."""
    read: list[str] = []
    with suppress(InputError), VideoReader(project.source(), **project.reading) as reader:
        read = reader.notices
    rendered = project.record("render").facts.get("notices", [])
    return list(
        dict.fromkeys(
            [*(f"source: {words}" for words in read), *(f"render: {words}" for words in rendered), *console.notices]
        )
    )
