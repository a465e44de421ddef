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
from sg3cli.video.color_profile import ColorProfile
from sg3cli.video.container import DRAWN, MAX_PIXELS, check_size, decoded, packets, video_streams
from sg3cli.video.heif import Grid, facts_of, transparency_notes
from sg3cli.video.image_file import fault_of, kind_of, profile_of
from sg3cli.video.image_sequence import DEFAULT_RATE, images_of
from sg3cli.video.info import Timeline, VideoInfo, describe_image, tags_of
from sg3cli.video.pixel_conversion import is_planar, planes, refuse_matrix, upright


def examine_stills(path: Path, rate: str | None) -> tuple[VideoInfo, Timeline, list[Path]]:
    """Facts, timeline and files of a sequence, by its first image; raises `InputError`."""
    files = images_of(path)
    each = parse_rate(rate or DEFAULT_RATE)
    first = read_still(files[0])
    if first is None:
        raise _not_read(files[0])
    refuse_matrix(tags_of(first), first.format.name, files[0])
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
        notes=(*_profile_notes(files), *transparency_notes(path for path in files if kind_of(path) == "mov")),
        **describe_image(first),
    )
    return info, timeline, files


def _not_read(path: Path) -> InputError:
    if name := fault_of(path):
        return InputError(
            f"{path} is {name}, which is not read", "convert it to PNG or JPEG first, what is animated to a video"
        )
    return InputError(f"{path} is not a picture that can be read", "the file is damaged or of another kind")


def _profile_notes(files: list[Path]) -> tuple[str, ...]:
    """What becomes of the colour profiles of the images, one sentence for each profile."""
    notes = []
    for data in dict.fromkeys(profile_of(path) for path in files):
        profile = ColorProfile(data)
        if data and not profile.convertible:
            notes.append(f"the colour profile ({profile.name}) is of a kind that is not converted; sRGB is assumed")
        elif data and not profile.is_srgb:
            notes.append(f"the colours are converted from the profile {profile.name} to sRGB")
    return tuple(notes)


def profile_to_convert(path: Path) -> ColorProfile | None:
    """The colour profile of an image file whose numbers mean other colours than in sRGB."""
    profile = ColorProfile(profile_of(path))
    return profile if profile.convertible and not profile.is_srgb else None


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
    kind = kind_of(path)  # by its bytes: FFmpeg would go by the name, and take a number in it for a pattern
    if not kind or fault_of(path):
        return None
    try:
        with av.open(str(path.absolute()), format=kind, options={"max_pixels": str(MAX_PIXELS)}) as container:
            grid = facts_of(path).grid if kind == "mov" else None
            if grid is not None:
                return _from_tiles(container, grid)
            stream = video_streams(container)[0]
            check_size(stream.codec_context, path)
            stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            return next(decoded(packets(container, stream, path)), None)
    except (av.FFmpegError, OSError, ValueError, IndexError, KeyError):
        return None


def _from_tiles(container: Any, grid: Grid) -> Any:
    """The upright image of a grid of tiles; None when one of them is missing."""
    if grid.width * grid.height > MAX_PIXELS:
        return None
    streams = {stream.id: stream for stream in container.streams.video}
    wanted = [streams[item] for item in grid.tiles]
    tiles: dict[int, Any] = {}
    for packet in container.demux(wanted):
        for image in packet.decode():
            tiles.setdefault(packet.stream.id, image)
    first = tiles[grid.tiles[0]]
    if not is_planar(first.format):
        return None
    whole = av.VideoFrame(grid.width, grid.height, first.format.name)
    whole.colorspace, whole.color_range = first.colorspace, first.color_range
    whole.color_primaries, whole.color_trc = first.color_primaries, first.color_trc
    for number, item in enumerate(grid.tiles):
        row, column = divmod(number, grid.columns)
        for target, source in zip(planes(whole), planes(tiles[item]), strict=True):
            y, x = row * source.shape[0], column * source.shape[1]
            part = target[y : y + source.shape[0], x : x + source.shape[1]]
            part[...] = source[: part.shape[0], : part.shape[1]]
    result = upright(whole, grid.orientation)
    result.colorspace, result.color_range = first.colorspace, first.color_range
    result.color_primaries, result.color_trc = first.color_primaries, first.color_trc
    return result
