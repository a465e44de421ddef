"""Images in files of their own, read as the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from sg3cli.errors import InputError
from sg3cli.time_ranges import parse_rate
from sg3cli.video.container import DRAWN, MAX_PIXELS, check_size, decoded, packets
from sg3cli.video.image_sequence import DEFAULT_RATE, images_of
from sg3cli.video.info import Timeline, VideoInfo, describe_image

FORMATS = "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"


def examine_stills(path: Path, rate: str | None) -> tuple[VideoInfo, Timeline, list[Path]]:
    """Facts, timeline and files of a sequence, by its first image; raises `InputError`."""
    files = images_of(path)
    each = parse_rate(rate or DEFAULT_RATE)
    first = read_still(files[0])
    if first is None:
        raise InputError(f"{files[0]} is not a picture that can be read", "the file is damaged or of another kind")
    pts = np.arange(len(files), dtype=np.int64) * each.denominator
    timeline = Timeline(pts, np.full(len(files), each.denominator, np.int64))
    info = VideoInfo(
        path=path,
        format="images",
        codec=files[0].suffix.lstrip(".").lower(),
        time_base=Fraction(1, each.numerator),
        average_rate=each,
        start_pts=0,
        duration=float(len(files) / each),
        frames=len(files),
        variable_rate=False,
        sample_aspect_ratio=Fraction(1),
        stream=DRAWN,
        **describe_image(first),
    )
    return info, timeline, files


def stills(files: list[Path], timeline: Timeline, start: int) -> Iterator[tuple[int, Any]]:
    """(pts, image) from index `start` on, or from the last one before it that decodes; others are passed over."""
    while start and read_still(files[start]) is None:
        start -= 1
    for index in range(start, len(files)):
        image = read_still(files[index])
        if image is not None:
            yield int(timeline.pts[index]), image


def read_still(path: Path) -> Any:
    """The decoded image in a file, None when there is none."""
    try:
        with av.open(
            str(path.absolute()),
            options={"max_pixels": str(MAX_PIXELS)},
            container_options={"format_whitelist": FORMATS},
        ) as container:
            stream = container.streams.video[0]
            check_size(stream.codec_context, path)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            return next(decoded(packets(container, stream, path)), None)
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return None
