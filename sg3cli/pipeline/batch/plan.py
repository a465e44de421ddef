"""What a batch consists of: which inputs are this shard's, which clips are cut, and where. Nothing is run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from sg3cli.errors import UsageError
from sg3cli.pipeline.partial_render import chunk_frames
from sg3cli.settings import Settings

T = TypeVar("T")

CUT = 20.0  # seconds: longer clips are cut into ranges
Span = tuple[int, int]  # the first frame, and that after the last


@dataclass(frozen=True)
class Cuts:
    """The ranges in which a clip is inverted and rendered; none of either: it is one task."""

    invert: tuple[Span, ...] = ()
    render: tuple[Span, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.render)

    @property
    def tasks(self) -> int:
        """How many tasks there are at most: alignment and tuning take the whole clip."""
        return 2 + len(self.invert) + len(self.render) if self else 1


def parse_shard(text: str) -> tuple[int, int]:
    """`2/4` as (2, 4): the second of four parts. Raises `UsageError`."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"the shard is {text!r}", "it is a number and a count: --shard 1/4 to --shard 4/4")
    return number, count


def of_shard(items: Sequence[T], number: int, count: int) -> list[T]:
    """Every `count`-th item from that of this `number` on, which begins at 1: each is in exactly one shard."""
    return list(items[number - 1 :: count])


def cuts_of(stream: Mapping[str, Any], settings: Settings, out: str, resolution: int, longest: float) -> Cuts:
    """Where a clip of these facts is cut, if it is longer than `longest` seconds (0: never).

    Rendering is cut where a single run's chunks end, inversion where its blocks do, so that both give the same bytes.
    A video that is no chain of chunks is one task, and so is one whose seam is tuned on all its frames. `resolution`
    is that of the generator.
    """
    from sg3cli.latents.inversion import block_frames
    from sg3cli.video.segments import Cut

    frames, rate = int(stream["frames"]), Fraction(str(stream["average_rate"]))
    if (
        longest <= 0
        or frames <= longest * float(rate)
        or settings.render.stitch == "tune"
        or not joined(out, settings.encode.format)
    ):
        return Cuts()
    length = chunk_frames(settings.encode.segment, rate, settings.render.batch)
    bounds = Cut(Path(), "", frames, length).bounds()
    if not bounds:
        return Cuts()
    block = block_frames(resolution)
    return Cuts(
        spans([*range(whole := -(-length // block) * block, frames, whole), frames]),
        spans(bounds),
    )


def spans(bounds: Sequence[int]) -> tuple[Span, ...]:
    """The ranges that end at these frames, one after the other."""
    return tuple(zip([0, *bounds], bounds, strict=False))


def joined(out: str, container: str | None) -> bool:
    """Whether an output is made of chunks: not a stream, nor images. `container` is what `--format` asks for."""
    from sg3cli.video.output_file import IMAGES, format_of

    return out != "-" and format_of(out, container) != IMAGES
