"""From decoded images to RGB and back, keeping what was stored wherever nothing was changed.

A frame carries, beside its RGB image, the image as it was decoded (`Stored`). Where an edit left the RGB values
alone, the writer takes the stored values instead of converting back: bit depth, chroma and transparency survive there,
and what was not touched is not even rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from sg3cli.errors import InputError
from sg3cli.video.chroma_siting import CENTER, is_subsampled, shifted
from sg3cli.video.color import FULL, KR_KB, RGB, RGB_FORMATS, SMPTE170M, UNHANDLED, UNSPECIFIED, ColorTags, resolve
from sg3cli.video.color_profile import ColorProfile
from sg3cli.video.info import VideoInfo, has_alpha, orientation_of, tags_of
from sg3cli.video.tone_mapping import to_sdr

# swscale's default chroma upsampling and rounding are off by up to 3 levels, this is exact to rounding.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
SWS_MATRIX = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}  # H.273 matrix -> swscale's name for it
GREY = 6  # levels by which R, G and B differ where chroma is off neutral by one
BLOCK, MARGIN = 32, 8  # pixels, of the part of an image that is converted

Orientation = tuple[bool, bool, bool]


@dataclass(frozen=True)
class Stored:
    """An image as it was decoded, upright, and the RGB `[H, W, 3]` uint8 that was made of it."""

    image: Any
    rgb: np.ndarray
    colors: ColorTags  # resolved: how the two belong together


class ToRgb:
    """Decoded image -> upright RGB, by the stream's colour tags. One swscale context per pass."""

    def __init__(self, info: VideoInfo) -> None:
        self._reformatter = VideoReformatter()
        self._orientation, self._rotation = info.orientation, info.rotation
        self._size, self._tags, self._path = stored_size(info), info.color, info.path
        self.scaled = 0  # images of another size than the stream's first
        self.recolored = 0  # images with other colour tags than it

    def __call__(self, image: Any, profile: ColorProfile | None = None) -> tuple[np.ndarray, Stored | None]:
        """RGB `[H, W, 3]` uint8, and the image to keep; None when it was scaled, tone-mapped or had a `profile`."""
        orientation = self._orientation
        if image.rotation % 360 != self._rotation:  # among images in files of their own
            orientation = orientation_of(image)
        size = self._size[::-1] if orientation[0] != self._orientation[0] else self._size
        fits = (image.width, image.height) == size
        self.scaled += not fits
        tags = self._tags_of(image)
        colors = resolve(tags, *self._size, image.format.name)
        matrix = None if colors.matrix == RGB else SWS_MATRIX[colors.matrix]
        values = self._reformatter.reformat(
            image,
            *size,
            format="rgb48le" if tags.hdr else "rgb24",
            src_colorspace=matrix,
            src_color_range=colors.range,
            dst_color_range=FULL,
            interpolation=EXACT,
            threads=1,
        ).to_ndarray()
        rgb = np.ascontiguousarray(turned(to_sdr(values, colors) if tags.hdr else values, orientation))
        if profile is not None:
            return profile.to_srgb(rgb), None
        keeps = fits and not tags.hdr
        return rgb, Stored(upright(image, orientation), rgb, colors) if keeps else None

    def _tags_of(self, image: Any) -> ColorTags:
        """The image's own tags, those of the stream's first image where it has none."""
        own = tags_of(image)
        filled = ColorTags(
            self._tags.matrix if own.matrix == UNSPECIFIED else own.matrix,
            self._tags.primaries if own.primaries == UNSPECIFIED else own.primaries,
            self._tags.transfer if own.transfer == UNSPECIFIED else own.transfer,
            own.range or self._tags.range,
        )
        if filled != self._tags:
            self.recolored += 1
            refuse_matrix(filled, image.format.name, self._path)
        return filled


def refuse_matrix(tags: ColorTags, pix_fmt: str, path: Path) -> None:
    """Raise `InputError` for colours that are stored in a way that is not converted."""
    if tags.matrix in UNHANDLED and not pix_fmt.startswith((*RGB_FORMATS, "gray", "ya")):
        raise InputError(
            f"{path} stores its colours as {UNHANDLED[tags.matrix]}, which is not read",
            "convert it to BT.709 first, for example with the zscale filter of ffmpeg",
        )


def stored_size(info: VideoInfo) -> tuple[int, int]:
    """(width, height) of the images in the file, before they are turned upright."""
    return (info.height, info.width) if info.orientation[0] else (info.width, info.height)


def stored_colors(info: VideoInfo) -> ColorTags:
    """The source's colour tags without gaps."""
    return resolve(info.color, *stored_size(info), info.pix_fmt)


# ---- planes ----------------------------------------------------------------------------------------------------------


def turned(array: np.ndarray, orientation: Orientation) -> np.ndarray:
    """`[H, W, ...]` turned upright; a view."""
    transpose, mirror_columns, mirror_rows = orientation
    array = array.swapaxes(0, 1) if transpose else array
    return array[:: -1 if mirror_rows else 1, :: -1 if mirror_columns else 1]


def upright(image: Any, orientation: Orientation) -> Any:
    """The image turned, plane by plane. Formats whose planes cannot be turned become 4:4:4 of the same depth."""
    if orientation == (False, False, False):
        return image
    shape = image.format
    even = shape.chroma_width(64) == shape.chroma_height(64)
    if not (is_planar(shape) and even):
        image = image.reformat(format=full_chroma(shape), interpolation=EXACT, threads=1)
    width, height = (image.height, image.width) if orientation[0] else (image.width, image.height)
    result = av.VideoFrame(width, height, image.format.name)
    for source, target in zip(planes(image), planes(result), strict=True):
        target[...] = turned(source, orientation)
    return result


def is_planar(shape: Any) -> bool:
    """One plane per component, whole bytes: planes that arrays can be made of."""
    return not shape.has_palette and not shape.is_bit_stream and len({c.plane for c in shape.components}) == len(
        shape.components
    )  # fmt: skip


def full_chroma(shape: Any) -> str:
    """The planar format without chroma subsampling of the same depth, kind and transparency."""
    bits = max(component.bits for component in shape.components)
    depth = "" if bits <= 8 else f"{min(b for b in (10, 12, 16) if b >= bits)}le"
    alpha = "a" if has_alpha(shape) else ""
    return f"gbr{alpha}p{depth}" if shape.is_rgb or shape.has_palette else f"yuv{alpha}444p{depth}"


def planes(image: Any) -> list[np.ndarray]:
    """The planes of a planar image as arrays `[h, w]` (views; uint8 or uint16)."""
    views = []
    for index, plane in enumerate(image.planes):
        component = next(c for c in image.format.components if c.plane == index)
        dtype = np.dtype("u1") if component.bits <= 8 else np.dtype(">u2" if image.format.is_big_endian else "<u2")
        rows = np.frombuffer(plane, dtype).reshape(plane.height, plane.line_size // dtype.itemsize)
        views.append(rows[:, : plane.width])
    return views


# ---- what is written -------------------------------------------------------------------------------------------------


class FromRgb:
    """RGB -> images for an encoder in `pix_fmt`, with colours as `tags` say (resolved), sampled at `chroma`."""

    def __init__(self, pix_fmt: str, tags: ColorTags, chroma: str = CENTER) -> None:
        self._pix_fmt, self._tags, self._chroma = pix_fmt, tags, chroma
        self._shape = av.VideoFormat(pix_fmt)
        self._converter, self._recoder = VideoReformatter(), VideoReformatter()

    def __call__(self, rgb: np.ndarray, stored: Stored | None) -> Any:
        """The image of `rgb [H, W, 3]`: converted where it differs from `stored`, elsewhere as it was stored."""
        if stored is None or stored.rgb.shape != rgb.shape:
            return self._converted(rgb)
        kept = self._recoded(stored)
        if rgb is stored.rgb:
            return kept
        differs = rgb != stored.rgb
        touched = differs[..., 0] | differs[..., 1] | differs[..., 2]
        if not touched.any():
            return kept
        if not is_planar(self._shape):
            return self._converted(rgb)
        box = surrounding(touched)
        overlay(kept, self._converted(rgb[box]), touched[box], box)
        return kept

    def _converted(self, rgb: np.ndarray) -> Any:
        image = self._plain(rgb)
        if self._chroma == CENTER or not (is_subsampled(self._shape) and is_planar(self._shape)):
            return image
        beside = self._plain(shifted(rgb, self._chroma))  # swscale samples between pixels
        for target, source in list(zip(planes(image), planes(beside), strict=True))[1:3]:
            target[...] = source
        return image

    def _plain(self, rgb: np.ndarray) -> Any:
        image = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        return self._reformat(self._converter, image, RGB, FULL)

    def _recoded(self, stored: Stored) -> Any:
        """A copy of the stored image in our format, the same bytes if that is its own."""
        image, colors = stored.image, stored.colors
        same = image.format.name.replace("yuvj", "yuv") == self._pix_fmt.replace("yuvj", "yuv")
        if same and (colors.matrix, colors.range) == (self._tags.matrix, self._tags.range) and is_planar(self._shape):
            copy = av.VideoFrame(image.width, image.height, self._pix_fmt)
            for source, target in zip(planes(image), planes(copy), strict=True):
                target[...] = source
            return copy
        return self._reformat(self._recoder, image, colors.matrix, colors.range)

    def _reformat(self, reformatter: VideoReformatter, image: Any, matrix: int, color_range: int) -> Any:
        return reformatter.reformat(
            image,
            format=self._pix_fmt,
            src_colorspace=SWS_MATRIX.get(matrix),
            src_color_range=color_range,
            dst_colorspace=SWS_MATRIX.get(self._tags.matrix),
            dst_color_range=self._tags.range,
            interpolation=EXACT,
            threads=1,
        )


def as_grey_as_its_source(rgb: np.ndarray, stored: Stored | None) -> np.ndarray:
    """An edited image `[H, W, 3]`, without colours where the image that it was made of has none."""
    if stored is None or rgb is stored.rgb or not is_grey(stored.rgb):
        return rgb
    return greyed(rgb, stored.colors)


def is_grey(rgb: np.ndarray) -> bool:
    """Whether no pixel of `[H, W, 3]` has a colour, but for what rounding and coding make of grey."""
    return all(int(np.ptp(part.astype(np.int16), axis=-1).max()) <= GREY for part in (rgb[::16, ::16], rgb))


def greyed(rgb: np.ndarray, colors: ColorTags) -> np.ndarray:
    """`[H, W, 3]` with its brightness alone, as the source's matrix weighs it."""
    kr, kb = KR_KB.get(colors.matrix, KR_KB[SMPTE170M])
    light = rgb @ np.array([kr, 1 - kr - kb, kb], np.float32)
    coloured = np.ptp(rgb.astype(np.int16), axis=-1) > 0
    return np.where(coloured[..., None], np.rint(light)[..., None].astype(np.uint8), rgb)


def surrounding(touched: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns around what is set in `touched [H, W]`, on whole blocks, with room for chroma's filters."""
    bounds = []
    for axis, size in enumerate(touched.shape):
        found = np.flatnonzero(touched.any(axis=1 - axis))
        low, high = int(found[0]) - MARGIN, int(found[-1]) + 1 + MARGIN
        bounds.append(slice(max(0, low // BLOCK * BLOCK), min(size, -(-high // BLOCK) * BLOCK)))
    return bounds[0], bounds[1]


def overlay(below: Any, above: Any, touched: np.ndarray, box: tuple[slice, slice]) -> None:
    """Write the values of `above`, an image of the `box` of `below`, where `touched`; transparency stays.

    Both are of one planar format; the box begins on a multiple of `BLOCK`.
    """
    alphas = [component.plane for component in below.format.components if component.is_alpha]
    for index, (plane, source) in enumerate(zip(planes(below), planes(above), strict=True)):
        if index not in alphas:
            steps = [-(-size // part) for size, part in zip((below.height, below.width), plane.shape, strict=True)]
            starts = [side.start // step for side, step in zip(box, steps, strict=True)]
            rows, columns = (slice(start, start + size) for start, size in zip(starts, source.shape, strict=True))
            np.copyto(plane[rows, columns], source, where=_coarse(touched, source.shape))


def _coarse(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask for a plane of fewer pixels: set where any pixel under it is."""
    for axis in (0, 1):
        step = -(-mask.shape[axis] // shape[axis])
        if step > 1:
            starts = np.arange(0, mask.shape[axis], step)
            mask = np.logical_or.reduceat(mask, starts, axis=axis)
    return mask


# ---- interlaced images ---------------------------------------------------------------------------------------------


def deinterlaced(stream_images: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """(pts, image) with each interlaced image made whole, one for one (bwdif in its `send_frame` mode)."""
    graph: Any = None
    stamps: list[int] = []
    for stamp, image in stream_images:
        shape = (image.width, image.height, image.format.name)
        if graph is None or graph[0] != shape:
            yield from _drained(graph, stamps)
            graph = (shape, _bwdif(image))
        # The filter counts in half units and invents pts for its last image: the order tells which is which.
        stamps.append(stamp)
        graph[1].push(image)
        yield from _available(graph, stamps)
    yield from _drained(graph, stamps)


FIELDED = {
    "mpeg2video",
    "h264",
    "hevc",
    "vc1",
    "mpeg4",
    "dvvideo",
    "prores",
    "dnxhd",
    "mjpeg",
    "ffv1",
    "rawvideo",
    "v210",
}


def may_be_interlaced(info: VideoInfo) -> bool:
    """Whether some images may be, though the first one is not; the filter lets those through that are not."""
    return info.interlaced or (info.codec in FIELDED and _is_filtered_as(info.pix_fmt))


@cache
def _is_filtered_as(pix_fmt: str) -> bool:
    """Whether the filter takes images of this format and gives them back in it."""
    image = av.VideoFrame(64, 64, pix_fmt)
    try:
        graph = _bwdif(image)
        for pts in (0, 1):
            image.pts = pts
            graph.push(image)
        return str(graph.pull().format.name) == pix_fmt
    except (av.FFmpegError, ValueError):
        return False


def _bwdif(image: Any) -> Any:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=image.width, height=image.height, format=image.format.name, time_base=image.time_base or 1
    )
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def _available(graph: Any, stamps: list[int]) -> Iterator[tuple[int, Any]]:
    while True:
        try:
            image = graph[1].pull()
        except (av.BlockingIOError, av.EOFError):
            return
        if stamps:
            yield stamps.pop(0), image


def _drained(graph: Any, stamps: list[int]) -> Iterator[tuple[int, Any]]:
    if graph is not None:
        graph[1].push(None)
        yield from _available(graph, stamps)
        stamps.clear()
