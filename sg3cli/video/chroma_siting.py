"""Where the colour samples of an image lie, when there are fewer of them than of brightness.

H.264, HEVC and MPEG-2 usually have them at the left of two pixels, JPEG and what says nothing between them. An image
written with the one and shown as the other has its colours half a pixel beside its edges.
"""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

LEFT, TOP_LEFT, CENTER = "left", "topleft", "center"
SAMPLE = 512  # pixels in each direction that are looked at


def is_subsampled(shape: Any) -> bool:
    """Whether a pixel format (PyAV's `VideoFormat`) has fewer colour samples than pixels in a row."""
    return not shape.is_rgb and not shape.has_palette and shape.chroma_width(64) < 64


def location_of(image: Any) -> str:
    """Where the samples of a decoded image are. PyAV does not tell; which conversion gives the same RGB does."""
    if not is_subsampled(image.format):
        return LEFT
    try:
        seen = _rgb(image, "")
        for place in (LEFT, TOP_LEFT, CENTER):
            if np.array_equal(_rgb(image, f"setparams=chroma_location={place}"), seen):
                return place
    except (av.FFmpegError, ValueError):  # a format that filters do not take
        return LEFT
    return LEFT


def _rgb(image: Any, change: str) -> np.ndarray:
    """The middle of the image as RGB, after a filter."""
    width, height = min(image.width, SAMPLE), min(image.height, SAMPLE)
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=image.width, height=image.height, format=image.format.name, time_base=image.time_base or 1
    )
    filters = [graph.add("crop", f"{width}:{height}")]
    filters += [graph.add(*change.split("=", 1))] if change else []
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    graph.push(image)
    graph.push(None)
    shown = VideoReformatter().reformat(
        graph.pull(), format="rgb24", interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND, threads=1
    )
    return np.asarray(shown.to_ndarray())


def shifted(rgb: np.ndarray, location: str) -> np.ndarray:
    """`[H, W, 3]` uint8 moved so that samples between pixels become samples at `location`: half a pixel each way."""
    if location == CENTER:
        return rgb
    moved = rgb.copy()
    moved[:, 1:] = _mean(rgb[:, :-1], rgb[:, 1:])
    if location == TOP_LEFT:
        moved[1:] = _mean(moved[:-1], moved[1:])
    return moved


def _mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of two uint8 arrays, rounded up, without leaving 8 bits."""
    return (a | b) - ((a ^ b) >> 1)
