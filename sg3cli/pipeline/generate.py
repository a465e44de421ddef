"""Images from noise, written as files: single images, grids, and walks as videos."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.console import Console
from sg3cli.drawing.images import grid, png_bytes, write_png
from sg3cli.errors import InputError, UsageError
from sg3cli.latents.edits import Edit
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.pipeline import provenance
from sg3cli.settings import EncodeConfig
from sg3cli.weights.bundle import Bundle

GRID_PIXELS = 1 << 27  # largest grid; it is held in memory
SEED = "{seed}"  # in the name of an output: one image per seed


# ---- outputs -------------------------------------------------------------------------------------------------------


def check_places(outs: Sequence[str], force: bool) -> None:
    """Raise before any work when an output could not be written or would replace what is not ours."""
    if outs[0] == "-":
        if sys.stdout.isatty():
            what = "`-` writes a picture or video to standard output, which is a terminal"
            raise UsageError(what, "pipe it on, or name a file")
        return
    folders = set()
    for out in outs:
        path = Path(out)
        if path.is_dir():
            raise InputError(f"cannot write {out}: it is a folder", "give a file name, as in out.png")
        if path.parent not in folders:
            provenance.check_folder(path)
            folders.add(path.parent)
        provenance.check_replaceable(out, force)


def make_record(bundle: Bundle, config: GenerateConfig, edits: Sequence[Edit], digests: Mapping[str, str]) -> Any:
    """What goes with every output: the tool, the model and all that the image depends on, as plain JSON."""
    settings = {name: value for name, value in asdict(config).items() if name != "batch"}
    record = provenance.stamped(
        "made by a generative model",
        models={"name": bundle.name, "generator": bundle.digest, "directions": dict(digests)},
        generate=settings,
        edits=[edit.to_dict() for edit in edits],
    )
    return json.loads(json.dumps(record))


def is_current(out: str, record: Mapping[str, Any]) -> bool:
    """Whether `out` is what this record describes, to the byte."""
    there = provenance.read_sidecar(out) if out != "-" and Path(out).is_file() else None
    return there is not None and {k: v for k, v in there.items() if k != "output"} == dict(record)


def write_images(sampler: Sampler, jobs: Sequence[tuple[int, str]], record: Mapping[str, Any], show: Console) -> int:
    """A PNG per (seed, path), those that are there already left alone; returns how many were made."""
    records = {out: {**record, "seeds": [seed]} for seed, out in jobs}
    missing = [(seed, out) for seed, out in jobs if not is_current(out, records[out])]
    if len(missing) < len(jobs):
        show.notice(f"generate: {len(jobs) - len(missing)} of {len(jobs)} pictures are up to date")
    images = show.progress(sampler.images([seed for seed, _ in missing]), len(missing), "generate")
    for (_, out), image in zip(missing, images, strict=True):
        _write_image(out, image, records[out])
    return len(missing)


def write_grid(
    sampler: Sampler, seeds: Sequence[int], columns: int, out: str, record: Mapping[str, Any], show: Console
) -> tuple[int, int]:
    """All seeds in one PNG at `out` (`-` is stdout); returns its width and height."""
    size = sampler.G.img_resolution
    shape = check_grid(len(seeds), columns, size)
    record = {**record, "seeds": list(seeds), "columns": columns}
    if is_current(out, record):
        show.notice(f"generate: {out} is up to date, nothing was computed")
        return shape
    tiles = show.progress(sampler.images(seeds), len(seeds), "generate")
    _write_image(out, grid(tiles, len(seeds), columns, size), record)
    return shape


def _write_image(out: str, image: np.ndarray, record: Mapping[str, Any]) -> None:
    comment = json.dumps({"sg3": record}, separators=(",", ":"))
    if out == "-":
        sys.stdout.buffer.write(png_bytes(image, comment))
        sys.stdout.buffer.flush()
        return
    write_png(Path(out), image, comment)
    provenance.write_sidecar(out, record)


def write_walk(
    sampler: Sampler,
    seeds: Sequence[int],
    seconds: float,
    columns: int | None,
    out: str,
    encode: EncodeConfig,
    record: Mapping[str, Any],
    show: Console,
) -> tuple[int, int, int]:
    """The walk as a video; with `columns` a grid in which each seed walks on to the next. Width, height, frames."""
    from sg3cli.video import Frame, VideoWriter, drawn

    size, rate = sampler.G.img_resolution, Fraction(sampler.config.fps).limit_denominator(1001)
    cells = 1 if columns is None else len(seeds)
    width, height = check_grid(cells, columns or 1, size)
    info = drawn(width, height, rate, max(1, round(seconds * rate)))
    record = {**record, "seeds": list(seeds), "columns": columns, "walk": seconds, "encode": asdict(encode)}
    if is_current(out, record):
        show.notice(f"generate: {out} is up to date, nothing was computed")
        return width, height, info.frames
    comment = {"comment": json.dumps({"sg3": record}, separators=(",", ":"))}
    with VideoWriter(out, info, encode, metadata=comment) as writer:
        tiles = sampler.walk(seeds, info.frames, cells)
        for index in show.progress(range(info.frames), info.frames, "generate"):
            rgb = grid(islice(tiles, cells), cells, columns or 1, size)
            pts = index * rate.denominator
            writer.write(Frame(index, pts, info.time_base, rgb, rate.denominator))
    for notice in writer.notices:
        show.notice(f"generate: {notice}")
    if out != "-":
        provenance.write_sidecar(out, record)
    return width, height, info.frames


def check_grid(count: int, columns: int, size: int) -> tuple[int, int]:
    """Width and height of a grid; raises `UsageError` for one that is too large to be made."""
    width, height = columns * size, -(-count // columns) * size
    if width * height > GRID_PIXELS:
        hint = f"take fewer seeds, or write one picture each: -o face-{SEED}.png"
        raise UsageError(f"a grid of {count} pictures would have {width}x{height} pixels", hint)
    return width, height
