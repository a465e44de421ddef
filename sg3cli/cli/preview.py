"""`sg3 preview`: one frame, or a grid of before, inversion and edits, as a picture in seconds."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sg3cli.cli import find_project, setting_sources
from sg3cli.cli.edit_flags import Channels, asked_edits
from sg3cli.cli.flags import Session
from sg3cli.errors import UsageError
from sg3cli.latents.edits import Edit, Keyframe, make_edit, parse_time, with_edits
from sg3cli.pipeline.load_edits import check_edits
from sg3cli.project import SCHEMA, Project, default_path

if TYPE_CHECKING:
    import numpy as np

    from sg3cli.drawing.labelled_grid import Row
    from sg3cli.pipeline import Job
    from sg3cli.pipeline.preview import PreviewFrame, Viewer
    from sg3cli.weights.bundle import Bundle

SUFFIXES = (".png", ".jpg", ".jpeg")
STRENGTHS = "-2,-1,0,1,2"
COLUMNS = ("before", "inversion", "edits")
ALL_COLUMNS = ",".join(COLUMNS)
MOST_CELLS = 400

At = Annotated[
    list[str] | None,
    typer.Option(
        "--at", metavar="TIME", help="Moment to show, e.g. 1.5s; repeatable [default: a good frame near the middle]."
    ),
]
Edits = Annotated[
    list[str] | None,
    typer.Option("--edit", metavar="DIRECTION=STRENGTH", help="Show this edit in place of the project's; repeatable."),
]
Directions = Annotated[
    list[str] | None,
    typer.Option("--direction", metavar="NAME|FILE", help="Show a row of strengths of this direction; repeatable."),
]
Strengths = Annotated[
    str | None,
    typer.Option(
        metavar="S,S,...",
        help=f"Strengths of a row [default: {STRENGTHS}]; without --direction of each edit's direction.",
    ),
]
Columns = Annotated[
    str, typer.Option("--columns", metavar="C,C,...", help=f"Which columns: any of {', '.join(COLUMNS)}.")
]
Size = Annotated[
    int | None,
    typer.Option(min=16, max=8192, metavar="PX", help="Longest side of a cell [default: to fit; one cell as it is]."),
]
NoLabels = Annotated[bool, typer.Option("--no-labels", help="Pictures only, no words.", show_default=False)]
Output = Annotated[
    str | None,
    typer.Option(
        *("--output", "-o"),
        metavar="OUT",
        show_default=False,
        help="Picture to write, .png or .jpg; `-` is stdout [default: STEM_preview.png].",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that sg3 did not make.", show_default=False)]
Source = Annotated[
    str | None,
    typer.Argument(metavar="INPUT|PROJECT", help="A video, or a project (*.sg3).", show_default=False),
]


@dataclass(frozen=True)
class PreviewRequest:
    """What the picture shall show."""

    times: tuple[float, ...]
    edits: tuple[Edit, ...] | None  # None: the project's
    directions: tuple[str, ...]
    strengths: tuple[float, ...]
    swept: bool  # whether strengths are asked for
    columns: tuple[str, ...]
    size: int | None
    labels: bool


def preview(
    session: Session,
    source: Source = None,
    at: At = None,
    edit: Edits = None,
    direction: Directions = None,
    strengths: Strengths = None,
    channel: Channels = None,
    columns: Columns = ALL_COLUMNS,
    size: Size = None,
    no_labels: NoLabels = False,
    output: Output = None,
    force: Force = False,
) -> None:
    """Show one moment before and after as a picture; a clip need not be processed first, and nothing is stored."""
    began = time.monotonic()
    request = PreviewRequest(
        times=tuple(parse_time(text) for text in at or ()),
        edits=None if (asked := asked_edits(edit, None, None, channel)) is None else tuple(with_edits([], asked)),
        directions=tuple(dict.fromkeys(direction or ())),
        strengths=parse_strengths(strengths or STRENGTHS),
        swept=strengths is not None or bool(direction),
        columns=parse_columns(columns),
        size=size,
        labels=not no_labels,
    )
    project = open_source(find_project.find_target(source, session.project, session.console), session.project)
    clip = project.source()
    out = output or f"{clip.stem}_preview.png"
    check_output(out, clip, force, session.console.as_json)
    job = make_job(session, project)
    facts, image, record = draw(job, request)
    write(out, image, record)
    if out != "-":
        session.console.data(out)
    stored = str(project.path) if (project.path / "project.json").is_file() else None
    facts |= {"width": image.shape[1], "height": image.shape[0], "seconds": round(time.monotonic() - began, 2)}
    session.console.result("preview", output=out, input=str(clip), project=stored, **facts)


# ---- what is asked for


def parse_strengths(text: str) -> tuple[float, ...]:
    """`-2,-1,0,1,2` -> numbers. Raises `UsageError`."""
    try:
        strengths = tuple(float(part) for part in text.split(","))
    except ValueError:
        strengths = ()
    if not strengths or not all(map(math.isfinite, strengths)):
        raise UsageError(f"cannot read the strengths {text!r}", f"write them as numbers with commas: {STRENGTHS}")
    return tuple(dict.fromkeys(strengths))


def parse_columns(text: str) -> tuple[str, ...]:
    """`before,edits` -> the columns, in the order they are shown in. Raises `UsageError`."""
    chosen = {part.strip() for part in text.split(",")}
    if not chosen <= set(COLUMNS):
        raise UsageError(f"unknown columns {text!r}", f"choose from: {', '.join(COLUMNS)}")
    return tuple(name for name in COLUMNS if name in chosen)


def open_source(named: str, option: Path | None) -> Project:
    """The project, or the clip as a project that exists in memory only (its bytes are not even hashed)."""
    path = Path(named)
    where = option or default_path(path)
    if not path.is_file() or path.stat().st_size == 0 or (where / "project.json").is_file():
        return find_project.open_target(named, option)
    stat = path.stat()
    source = {"path": str(path.resolve()), "size": stat.st_size, "sha256": "", "mtime_ns": stat.st_mtime_ns}
    return Project(where, {"schema": SCHEMA, "source": source, "stream": {}, "stages": {}, "edits": []})


def check_output(out: str, clip: Path, force: bool, as_json: bool) -> None:
    """Raise before any work when the picture could not be written, or would replace what is not ours."""
    from sg3cli.pipeline.generate import check_places

    if out == "-" and as_json:
        raise UsageError("--json and `-o -` both want stdout", "write to a file")
    if out != "-" and Path(out).suffix.lower() not in SUFFIXES:
        raise UsageError(f"{out} is not the name of a picture", f"end it with one of: {' '.join(SUFFIXES)}")
    if out != "-" and Path(out).exists() and Path(out).samefile(clip):
        raise UsageError(f"output and input are the same file, {out}", "choose another output name")
    check_places([out], force)


def make_job(session: Session, project: Project) -> Job:
    """A job with the settings asked for; those of stages that are done stay."""
    wanted = setting_sources.of_project(project, session.flags, session.own)
    if wanted.render.view == "compare":
        if "view" in session.flags.get("render", {}):
            raise UsageError("a preview shows before and after anyway", "choose --view frame or --view face")
        wanted = wanted.having(render={"view": "frame"})
    from sg3cli.pipeline import Job

    return Job(project, wanted, session.console, session.pull, session.device, session.nets)


# ---- the picture


def draw(job: Job, request: PreviewRequest) -> tuple[dict[str, Any], np.ndarray, dict[str, Any]]:
    """Facts for `--json`, the picture `[H, W, 3]` and its provenance."""
    bundle = job.bundle()
    edits = job.project.edits if request.edits is None else list(request.edits)
    variants = plan_variants(job, bundle, request, edits)
    from sg3cli.drawing.labelled_grid import cell_side, labelled_grid
    from sg3cli.pipeline.preview import Viewer
    from sg3cli.video import VideoReader

    with VideoReader(job.project.source(), **job.project.reading) as reader:
        viewer = Viewer(job, reader, bundle, job.settings.finetune.steps > 0)
        indices = [viewer.index_at(seconds) for seconds in request.times] or [viewer.best_index()]
        rows, shown = [], []
        for index in dict.fromkeys(indices):
            frame = viewer.frame(index)
            rows += frame_rows(viewer, frame, variants, request.columns)
            seconds = float(viewer.times[index])
            shown.append({"frame": index, "time": round(seconds, 6), "landmarks": face_word(frame)})
    view = job.settings.render.view
    cells = sum(len(row.cells) for row in rows)
    side = request.size or cell_side(view, rows[0].cells[0].image.shape, cells)
    image = labelled_grid(rows, side, request.labels)
    record = make_record(job, bundle, shown, variants)
    facts: dict[str, Any] = {
        "frames": shown,
        "rows": [row_facts(row) for row in rows],
        "view": view,
        "model": bundle.name,
    }
    facts |= {"codes": "project" if viewer.reusable.codes else "computed", "tuned": viewer.reusable.tuned}
    return facts, image, record


def plan_variants(
    job: Job, bundle: Bundle, request: PreviewRequest, edits: list[Edit]
) -> list[tuple[str, list[list[Edit]]]]:
    """(direction or nothing, the lists of edits of its cells) per row, with all directions known to exist."""
    swept = list(request.directions) or ([edit.direction for edit in edits] if request.swept else [])
    known = ", ".join(bundle.direction_names())
    if request.swept and not swept:
        raise UsageError("--strengths of what?", f"add --direction, one of: {known}")
    check_edits([*(make_edit(name, "1") for name in swept), *edits], bundle)
    if not edits and not swept and "edits" in request.columns:
        job.console.notice(f"preview: no edit is set; choose with --edit or --direction: {known}")
    if len(request.strengths) * max(len(swept), 1) * max(len(request.times), 1) > MOST_CELLS:
        raise UsageError("that is a picture of too many cells", f"ask for at most {MOST_CELLS}")
    if swept:
        return [(name, [at_strength(edits, name, strength) for strength in request.strengths]) for name in swept]
    return [("", [edits] if edits else [])]


def at_strength(edits: Sequence[Edit], direction: str, strength: float) -> list[Edit]:
    """The edits with one direction at a strength that stays; its layers and the other edits are kept."""
    known = next((edit for edit in edits if edit.direction == direction), make_edit(direction, "1"))
    moved = replace(known, keyframes=(Keyframe(0.0, strength),), text=f"{strength:g}")
    return [*(edit for edit in edits if edit.direction != direction), moved]


def frame_rows(
    viewer: Viewer, frame: PreviewFrame, variants: list[tuple[str, list[list[Edit]]]], columns: tuple[str, ...]
) -> list[Row]:
    """The rows of one frame: as it is, its inversion, and a cell per list of edits."""
    from sg3cli.drawing.labelled_grid import Cell, Row, edits_text, short_name, strength_text, time_text

    seconds = frame.frame.time
    first = []
    if "before" in columns:
        first.append(Cell("before", viewer.source(frame)))
    if "inversion" in columns:
        tuned = ", tuned" if viewer.reusable.tuned else ""
        first.append(Cell(f"inversion{tuned}", viewer.inverted(frame)))
    rows = []
    for direction, lists in variants:
        cells = list(first)
        for edits in lists if "edits" in columns else ():
            label = edits_text(edits, seconds)
            if direction:
                label = f"{short_name(direction)} {strength_text(float(edits[-1].keyframes[0].strength))}"
            cells.append(Cell(label, viewer.edited(frame, edits)))
        if not cells:
            raise UsageError("there is nothing to show", "choose an edit, or --columns before,inversion")
        kept = edits_text(lists[0][:-1], seconds) if direction else "no edit"
        words = [time_text(seconds), *([short_name(direction)] if direction else [])]
        rows.append(Row("   ".join(words) + ("" if kept == "no edit" else f"   with {kept}"), cells))
    return rows


def face_word(frame: PreviewFrame) -> str:
    """Whether the face was found in the frame itself, or interpolated between its neighbours."""
    from sg3cli.faces.alignment import FOUND

    return "found" if frame.track.status[frame.frame.index] == FOUND else "interpolated"


def row_facts(row: Row) -> dict[str, Any]:
    return {"heading": row.heading, "cells": [cell.label for cell in row.cells]}


def make_record(
    job: Job, bundle: Bundle, shown: list[dict[str, Any]], variants: list[tuple[str, list[list[Edit]]]]
) -> dict[str, Any]:
    """Provenance: what goes with every output of a generative model."""
    from sg3cli.pipeline.provenance import stamped

    source = job.project.manifest["source"]
    return stamped(
        "a preview, edited with a generative model",
        source={"name": Path(source["path"]).name, "size": source["size"]},
        frames=shown,
        edits=[[edit.to_dict() for edit in edits] for _, lists in variants for edits in lists],
        models={"name": bundle.name, "generator": bundle.digest},
    )


def write(out: str, image: np.ndarray, record: dict[str, Any]) -> None:
    """The picture at `out` with its provenance inside and beside it; PNG on stdout for `-`."""
    from sg3cli.drawing.images import png_bytes, write_image
    from sg3cli.pipeline.provenance import write_sidecar

    comment = json.dumps({"sg3": record}, separators=(",", ":"))
    if out == "-":
        sys.stdout.buffer.write(png_bytes(image, comment))
        sys.stdout.buffer.flush()
        return
    write_image(Path(out), image, comment)
    write_sidecar(out, record)
