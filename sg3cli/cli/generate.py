"""`sg3 generate`: new faces from a model, as pictures, a grid, or a walk from one to the next."""

from __future__ import annotations

import math
import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from sg3cli.cli import setting_sources
from sg3cli.cli.edit_flags import Channels, Directions, Edits, Layers, Strengths, asked_edits
from sg3cli.cli.flags import Session
from sg3cli.errors import UsageError
from sg3cli.latents.edits import Edit, with_edits
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.pipeline.generate import SEED, check_places, make_record, write_grid, write_images, write_walk
from sg3cli.pipeline.load_edits import load_edits
from sg3cli.settings import InvertConfig
from sg3cli.weights.bundle import load_model

DEFAULT = GenerateConfig()
SEED_SYNTAX = "seeds are numbers and ranges, 0-15,20, each below 4294967296"
MOST_SEEDS = 1_000_000
VIDEO = (".mp4", ".m4v", ".mov", ".mkv", ".webm")

Out = Annotated[
    str,
    typer.Option(
        *("--output", "-o"),
        metavar="OUT",
        help="What to write: .png (a grid of all seeds), .png with {seed} in its name (a picture each), "
        ".mp4 or .mkv (a walk through the seeds), or `-` (stdout).",
    ),
]
Seeds = Annotated[str, typer.Option("--seeds", metavar="LIST", help="Seeds, e.g. 0-15,20; the order is kept.")]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME|FOLDER",
        help=f"Model: a name of `sg3 models list` or a bundle folder [default: {InvertConfig().model}].",
    ),
]
Space = Annotated[
    str,
    typer.Option(
        "--space",
        metavar="z|w|w+|s",
        help="Where seeds are drawn and a walk goes straight: in w+ each layer has a code of its own, in s each style.",
    ),
]
Truncation = Annotated[float, typer.Option("--truncation", metavar="PSI", help="1 is all variety, 0 the average.")]
Cutoff = Annotated[
    int | None, typer.Option("--truncation-cutoff", metavar="N", min=0, help="Truncate the first N codes only.")
]
Walk = Annotated[
    float | None,
    typer.Option("--walk", metavar="SECONDS", help="Length of the walk, a closed loop [default: 1 s for each seed]."),
]
Fps = Annotated[
    float | None, typer.Option("--fps", metavar="F", help=f"Frames per second of a walk [default: {DEFAULT.fps:g}].")
]
Rotate = Annotated[float, typer.Option("--rotate", metavar="DEG", help="Turn the picture counter-clockwise.")]
Translate = Annotated[
    str, typer.Option("--translate", metavar="X,Y", help="Shift it right and down, in picture widths.")
]
Scale = Annotated[float, typer.Option("--scale", metavar="S", help="Enlarge it.")]
Class = Annotated[int | None, typer.Option("--class", metavar="N", help="Class, of a conditional model.")]
Columns = Annotated[
    int | None,
    typer.Option("--columns", metavar="C", min=1, help="Columns of the grid; makes a walk one of all seeds at once."),
]
Batch = Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Pictures computed at once.")]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to compute.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that sg3 did not make.", show_default=False)]


def generate(
    session: Session,
    output: Out,
    seeds: Seeds = "0-15",
    model: Model = None,
    space: Space = DEFAULT.space,
    truncation: Truncation = DEFAULT.truncation,
    truncation_cutoff: Cutoff = DEFAULT.cutoff,
    walk: Walk = None,
    fps: Fps = None,
    columns: Columns = None,
    rotate: Rotate = DEFAULT.rotate,
    translate: Translate = "0,0",
    scale: Scale = DEFAULT.scale,
    class_: Class = DEFAULT.label,
    edit: Edits = None,
    direction: Directions = None,
    strength: Strengths = None,
    channel: Channels = None,
    layers: Layers = None,
    batch: Batch = DEFAULT.batch,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Draw new faces: pictures, a grid, or a walk from one to the next."""
    began = time.monotonic()
    numbers = parse_seeds(seeds)
    config = GenerateConfig(
        truncation=within(truncation, "--truncation", -10, 10),
        cutoff=truncation_cutoff,
        label=class_,
        rotate=within(rotate, "--rotate", -1e6, 1e6),
        translate=parse_shift(translate),
        scale=within(scale, "--scale", 0.05, 20),
        fps=DEFAULT.fps if fps is None else within(fps, "--fps", 0.1, 1000),
        space=check_space(space),
        batch=batch,
    )
    kind = kind_of(output, walk is not None)
    check_fitting(kind, numbers, walk, fps, columns)
    edits = check_constant(with_edits([], asked_edits(edit, direction, strength, channel, layers) or []), kind)
    if output == "-" and session.console.as_json:
        raise UsageError("--json and `-o -` both want stdout", "write to a file")
    outs = [output.replace(SEED, str(seed)) for seed in numbers] if kind == "pictures" else [output]
    check_places(outs, force)
    job = Job(session, numbers, config, edits, model, device)
    facts = job.draw(kind, outs, walk, columns)
    for line in dict.fromkeys(outs) if output != "-" else ():
        session.console.data(line)
    facts |= {"seeds": numbers, "seconds": round(time.monotonic() - began, 2)}
    session.console.result("generate", outputs=list(dict.fromkeys(outs)), **facts)


class Job:
    """A model opened for drawing."""

    def __init__(
        self,
        session: Session,
        seeds: list[int],
        config: GenerateConfig,
        edits: list[Edit],
        model: str | None,
        device: str,
    ) -> None:
        flags: setting_sources.Values = {} if model is None else {"invert": {"model": model}}
        wanted = setting_sources.resolve(flags, setting_sources.from_here(), {}, ("invert", "encode"))
        bundle = load_model(wanted.invert.model)
        from sg3cli.pipeline.device import choose_device

        loaded = load_edits(edits, bundle, session.nets)

        self.seeds, self.console, self.encode = seeds, session.console, wanted.encode
        G = bundle.generator().to(choose_device(device, session.console))
        self.sampler = Sampler(G, config, loaded.edits)
        self.record = make_record(bundle, config, edits, loaded.digests)
        for notice in loaded.notices:
            session.console.notice(notice)
        self.model = {"name": bundle.name, "generator": bundle.digest}

    def draw(self, kind: str, outs: list[str], walk: float | None, columns: int | None) -> dict[str, Any]:
        """Write the outputs; returns facts for `--json`."""
        size = self.sampler.G.img_resolution
        facts: dict[str, Any] = {"model": self.model, "width": size, "height": size}
        count = len(self.seeds)
        if kind == "walk":
            seconds = float(count) if walk is None else walk
            across = None if columns is None else min(columns, count)
            shape = write_walk(
                self.sampler, self.seeds, seconds, across, outs[0], self.encode, self.record, self.console
            )
            facts |= zip(("width", "height", "frames"), shape, strict=True)
        elif kind == "grid":
            across = min(columns or math.ceil(math.sqrt(count)), count)
            extent = write_grid(self.sampler, self.seeds, across, outs[0], self.record, self.console)
            facts |= zip(("width", "height"), extent, strict=True)
        else:
            jobs = list(dict.fromkeys(zip(self.seeds, outs, strict=True)))
            facts["computed"] = write_images(self.sampler, jobs, self.record, self.console)
        return facts


def kind_of(out: str, walking: bool) -> str:
    """`walk`, `grid` or `pictures`, by the name of the output. Raises `UsageError`."""
    suffix = Path(out).suffix.lower()
    if out == "-":
        return "walk" if walking else "grid"
    if suffix in VIDEO:
        return "walk"
    if suffix != ".png":
        known = " ".join((".png", *VIDEO))
        raise UsageError(f"{out}: nothing is written with the suffix {suffix or '(none)'!r}", f"use one of {known}")
    return "pictures" if SEED in out else "grid"


def check_fitting(kind: str, seeds: list[int], walk: float | None, fps: float | None, columns: int | None) -> None:
    """Raise `UsageError` for options that mean nothing for this output."""
    if kind != "walk" and (walk is not None or fps is not None):
        name = "--walk" if walk is not None else "--fps"
        raise UsageError(f"{name} is for a video", "name the output .mp4 or .mkv, or leave it out")
    if kind == "pictures" and columns is not None:
        raise UsageError("--columns is for a grid", f"leave it out, or leave {SEED} out of the output's name")
    if kind == "walk":
        if len(set(seeds)) < 2:
            raise UsageError("a walk needs two seeds or more", "give them with --seeds, e.g. 0-3")
        if walk is not None:
            within(walk, "--walk", 0.01, 1e6)


def parse_seeds(text: str) -> list[int]:
    """`0-15,20` -> the seeds, in that order. Raises `UsageError`."""
    ranges = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last > 0xFFFFFFFF:
            raise UsageError(f"cannot read the seeds {text!r}", SEED_SYNTAX)
        ranges.append(range(first, last + 1))
    if sum(map(len, ranges)) > MOST_SEEDS:
        raise UsageError(f"{text} are more than {MOST_SEEDS} seeds", "ask for them in several commands")
    return [seed for some in ranges for seed in some]


def parse_shift(text: str) -> tuple[float, float]:
    """`X,Y` -> numbers. Raises `UsageError`."""
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--translate is {text!r}", "write it as X,Y in picture widths: 0.1,-0.05") from None
    return within(x, "--translate", -100, 100), within(y, "--translate", -100, 100)


def check_constant(edits: list[Edit], kind: str) -> list[Edit]:
    """The edits. Raises `UsageError` for one that changes with time where there is none."""
    for edit in edits:
        if kind != "walk" and len(edit.keyframes) > 1:
            raise UsageError(f"{edit.direction}={edit.text} changes with time, a picture does not", "give one number")
    return edits


def check_space(space: str) -> str:
    """A known space. Raises `UsageError`."""
    if space not in ("z", "w", "w+", "s"):
        raise UsageError(f"--space is {space!r}", "choose z, w, w+ or s")
    return space


def within(value: float, name: str, low: float, high: float) -> float:
    """The value, which must be a number from `low` to `high`. Raises `UsageError`."""
    if not low <= value <= high:  # false for nan
        raise UsageError(f"{name} is {value:g}", f"it must be a number from {low:g} to {high:g}")
    return value
