"""`sg3 train prepare`: raw pictures and videos to square training pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sg3cli.cli.batch_inputs import VIDEOS
from sg3cli.cli.flags import Session
from sg3cli.errors import UsageError
from sg3cli.training.config import PrepareConfig

if TYPE_CHECKING:
    from sg3cli.training.data.prepare import Shot


DEFAULT = PrepareConfig()
CROPS, FACES, LANDMARKS = ("align", "unaligned", "none"), ("all", "largest"), ("mesh", "fan")

Sources = Annotated[
    list[Path], typer.Argument(metavar="SOURCE...", help="Pictures, videos, folders of them, zips, data sets.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR|FILE.zip", help="What is written; it must not be there yet.")]
Size = Annotated[int, typer.Option("--size", metavar="PX", min=16, help="Side of the squares that are written.")]
Crop = Annotated[
    str,
    typer.Option("--crop", metavar="|".join(CROPS), help="The FFHQ square; upright beside the face; the middle."),
]
Shift = Annotated[
    float, typer.Option("--shift", min=0, max=0.5, help="unaligned: spread of the shift, in sides of the square.")
]
Every = Annotated[float, typer.Option("--every", metavar="SECONDS", min=0, help="Seconds between two frames; 0: all.")]
MinSide = Annotated[
    int | None,
    typer.Option("--min-side", metavar="PX", min=1, help="Least side of a square in its source [half of --size]."),
]
Outside = Annotated[
    float, typer.Option("--outside", min=0, max=0.9, help="Largest share of a square that may lie beyond the picture.")
]
Faces = Annotated[str, typer.Option("--faces", metavar="|".join(FACES), help="Which faces of a picture.")]
Landmarks = Annotated[str, typer.Option("--landmarks", metavar="|".join(LANDMARKS), help="Landmark detector.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of the shifts.")]
Pull = Annotated[bool, typer.Option("--pull", envvar="SG3_PULL", help="Download models that are missing.")]


def prepare(
    session: Session,
    sources: Sources,
    out: Out,
    size: Size = DEFAULT.size,
    crop: Crop = DEFAULT.crop,
    shift: Shift = DEFAULT.shift,
    every: Every = DEFAULT.every,
    min_side: MinSide = None,
    outside: Outside = DEFAULT.outside,
    faces: Faces = DEFAULT.faces,
    landmarks: Landmarks = DEFAULT.landmarks,
    seed: Seed = DEFAULT.seed,
    pull: Pull = False,
) -> None:
    """Crop raw pictures and videos for training, and name what was dropped and why."""
    for name, value, choices in (("crop", crop, CROPS), ("faces", faces, FACES), ("landmarks", landmarks, LANDMARKS)):
        if value not in choices:
            raise UsageError(f"--{name} is {value!r}", f"choose {', '.join(choices)}")
    from sg3cli.training.data import prepare as stage

    def progress(shots: Iterable[Shot]) -> Iterable[Shot]:
        return session.console.progress(shots, None, "train prepare")

    config = PrepareConfig(size, crop, shift, every, min_side, outside, faces, landmarks, seed)
    done = stage.prepare(sources, out, config, VIDEOS, session.console.notice, progress, pull)
    if done.dropped:
        session.console.notice(f"left out: {stage.summary(done)}")
    session.console.notice(f"{len(done.kept)} pictures of {size}x{size}; {stage.RECORD} says where from")
    session.console.data(str(out))
    facts = {"kept": len(done.kept), "dropped": done.reasons(), "settings": asdict(config)}
    session.console.result("train prepare", out=str(out), **facts)
