"""Pictures from noise: seeds to codes, a walk through them, and the picture's own motion.

A seed is that of the published StyleGAN tools, `numpy.random.RandomState(seed).randn(z_dim)`, so that theirs can be
looked up here. What a seed gives does not depend on what else is asked for. A walk is a closed, periodic cubic spline
through the seeds' codes in W: it starts and ends at the first seed and meets each at even distances of time.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.config import EncodeConfig, RenderConfig
from sg3cli.console import Console
from sg3cli.directions.load import find_direction, load_direction
from sg3cli.edit import Edit, apply_edits
from sg3cli.errors import InputError, UsageError
from sg3cli.files import digest_of
from sg3cli.picture import grid, png_bytes, write_png
from sg3cli.pipeline import output
from sg3cli.weights.bundle import Bundle

if TYPE_CHECKING:
    from sg3cli.nets.generator import Generator

GRID_PIXELS = 1 << 27  # largest grid; it is held in memory
SEED = "{seed}"  # in the name of an output: one picture per seed


@dataclass(frozen=True)
class GenerateConfig:
    """What is drawn from the seeds, and how it is turned, shifted and scaled: as the picture is seen to move."""

    truncation: float = 1.0  # psi: 1 leaves the codes alone, 0 makes all of them the average
    cutoff: int | None = None  # so many codes are truncated, counted from the input; None: all
    label: int | None = None  # class, of a conditional model
    rotate: float = 0.0  # degrees counter-clockwise
    translate: tuple[float, float] = (0.0, 0.0)  # right and down, in picture widths
    scale: float = 1.0
    fps: float = 25.0  # of a walk
    batch: int = RenderConfig.batch

    def transform(self) -> np.ndarray:
        """`[3, 3]` for the Fourier input, which wants the inverse of the motion."""
        from sg3cli.geometry import similarity

        return np.linalg.inv(similarity(*self.translate, self.rotate, self.scale))


class Sampler:
    """Draws pictures `[N, N, 3]` uint8 from a generator. Raises `UsageError` for what the generator has not."""

    def __init__(
        self,
        G: Generator,
        config: GenerateConfig,
        edits: Sequence[Edit] = (),
        directions: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.G, self.config = G, config
        self.edits, self.directions = edits, directions or {}
        self.transform = config.transform()
        _check_class(config.label, G.config.c_dim)
        if config.cutoff is not None and config.cutoff > G.num_ws:
            raise UsageError(f"--truncation-cutoff is {config.cutoff}", f"this model has {G.num_ws} codes")
        for edit in edits:
            edit.rows(G.num_ws)

    def codes(self, seeds: Sequence[int]) -> np.ndarray:
        """`[n, num_ws, w_dim]` float32. One seed at a time, so that its code is the same to the bit in any company."""
        import torch

        mapping, config = self.G.mapping, self.config
        label = None
        if config.label is not None:
            label = torch.zeros(1, self.G.config.c_dim, device=mapping.w_avg.device)
            label[0, config.label] = 1
        with torch.inference_mode():
            drawn = [torch.from_numpy(latent(seed, self.G.config.z_dim)).to(mapping.w_avg) for seed in seeds]
            ws = [mapping(z[None], label, psi=config.truncation, cutoff=config.cutoff) for z in drawn]
            return torch.cat(ws).cpu().numpy()

    def pictures(self, seeds: Sequence[int]) -> Iterator[np.ndarray]:
        """One picture per seed; a batch in memory."""
        for start in range(0, len(seeds), self.config.batch):
            ws = self.codes(seeds[start : start + self.config.batch])
            yield from self._render(ws, np.zeros(len(ws)))

    def walk(self, seeds: Sequence[int], frames: int, cells: int = 1) -> Iterator[np.ndarray]:
        """`cells` pictures per frame of a walk of `frames`; those after the first are ahead by even shares of it."""
        path = closed_path(self.codes(seeds))
        moments = ((frame, cell) for frame in range(frames) for cell in range(cells))
        while some := list(islice(moments, self.config.batch)):
            frame, cell = np.array(some).T
            yield from self._render(path(frame / frames + cell / cells), frame / self.config.fps)

    def _render(self, ws: np.ndarray, times: np.ndarray) -> Iterator[np.ndarray]:
        from sg3cli.render import render_crops

        ws = apply_edits(ws, times, self.edits, self.directions)
        return render_crops(self.G, ws, np.repeat(self.transform[None], len(ws), axis=0), self.config.batch)


def latent(seed: int, z_dim: int) -> np.ndarray:
    """The noise `[z_dim]` of a seed."""
    return np.random.RandomState(seed).randn(z_dim)


def closed_path(points: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The periodic cubic spline through `points [K, ...]`: at k/K it is point k, and it has period 1."""
    from scipy.interpolate import CubicSpline

    places = np.arange(len(points) + 1)
    spline = CubicSpline(places, np.concatenate([points, points[:1]]), bc_type="periodic")
    return lambda share: spline(share * len(points) % len(points)).astype(np.float32)


def _check_class(label: int | None, classes: int) -> None:
    if classes == 0 and label is not None:
        raise UsageError(f"--class is {label}, but this model has no classes", "leave --class out")
    if classes > 0 and (label is None or not 0 <= label < classes):
        what = "this model draws one of several classes" if label is None else f"there is no class {label}"
        raise UsageError(what, f"give --class with a number from 0 to {classes - 1}")


def load_vectors(bundle: Bundle, edits: Sequence[Edit]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Vectors and digests of the edits' directions. Raises when one is unknown or of another generator."""
    known = {name: bundle.direction_path(name) for name in bundle.direction_names()}
    files = {edit.direction: find_direction(edit.direction, known) for edit in edits}
    loaded = {name: load_direction(path) for name, path in files.items()}
    return {name: d.vector for name, d in loaded.items()}, {name: digest_of(path) for name, path in files.items()}


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
            output.check_folder(path)
            folders.add(path.parent)
        output.check_replaceable(out, force)


def make_record(bundle: Bundle, config: GenerateConfig, edits: Sequence[Edit], digests: Mapping[str, str]) -> Any:
    """What goes with every output: the tool, the model and all that the picture depends on, as plain JSON."""
    settings = {name: value for name, value in asdict(config).items() if name != "batch"}
    record = output.stamped(
        "made by a generative model",
        models={"name": bundle.name, "generator": bundle.digest, "directions": dict(digests)},
        generate=settings,
        edits=[edit.to_dict() for edit in edits],
    )
    return json.loads(json.dumps(record))


def is_current(out: str, record: Mapping[str, Any]) -> bool:
    """Whether `out` is what this record describes, to the byte."""
    there = output.read_sidecar(out) if out != "-" and Path(out).is_file() else None
    return there is not None and {k: v for k, v in there.items() if k != "output"} == dict(record)


def write_pictures(sampler: Sampler, jobs: Sequence[tuple[int, str]], record: Mapping[str, Any], show: Console) -> int:
    """A PNG per (seed, path), those that are there already left alone; returns how many were made."""
    records = {out: {**record, "seeds": [seed]} for seed, out in jobs}
    missing = [(seed, out) for seed, out in jobs if not is_current(out, records[out])]
    if len(missing) < len(jobs):
        show.notice(f"generate: {len(jobs) - len(missing)} of {len(jobs)} pictures are up to date")
    pictures = show.progress(sampler.pictures([seed for seed, _ in missing]), len(missing), "generate")
    for (_, out), picture in zip(missing, pictures, strict=True):
        _write_picture(out, picture, records[out])
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
    tiles = show.progress(sampler.pictures(seeds), len(seeds), "generate")
    _write_picture(out, grid(tiles, len(seeds), columns, size), record)
    return shape


def _write_picture(out: str, picture: np.ndarray, record: Mapping[str, Any]) -> None:
    comment = json.dumps({"sg3": record}, separators=(",", ":"))
    if out == "-":
        sys.stdout.buffer.write(png_bytes(picture, comment))
        sys.stdout.buffer.flush()
        return
    write_png(Path(out), picture, comment)
    output.write_sidecar(out, record)


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
        output.write_sidecar(out, record)
    return width, height, info.frames


def check_grid(count: int, columns: int, size: int) -> tuple[int, int]:
    """Width and height of a grid; raises `UsageError` for one that is too large to be made."""
    width, height = columns * size, -(-count // columns) * size
    if width * height > GRID_PIXELS:
        hint = f"take fewer seeds, or write one picture each: -o face-{SEED}.png"
        raise UsageError(f"a grid of {count} pictures would have {width}x{height} pixels", hint)
    return width, height
