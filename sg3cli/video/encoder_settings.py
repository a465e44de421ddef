"""Which encoder writes the video, in which pixel format, with which options and colour tags."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import cv2
from av.codec.codec import UnknownCodecError, find_best_pix_fmt_of_list
from av.codec.context import OptionType

from sg3cli.errors import UsageError
from sg3cli.settings import EncodeConfig
from sg3cli.video.chroma_siting import CENTER, is_subsampled
from sg3cli.video.color import (
    BT709_LIMITED,
    FULL,
    KNOWN_MATRICES,
    KNOWN_PRIMARIES,
    KNOWN_TRANSFERS,
    RGB,
    RGB_FULL,
    UNSPECIFIED,
    ColorTags,
)
from sg3cli.video.info import VideoInfo, has_alpha
from sg3cli.video.pixel_conversion import stored_colors

ALIASES = {
    "h264": "libx264",
    "h265": "libx265",
    "hevc": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}
# Encoders that need a device: listed whether it is there or not, so they are tried before they are chosen.
HARDWARE = ("nvenc", "vaapi", "qsv", "videotoolbox", "amf", "mf", "v4l2m2m", "vulkan", "d3d12va")
ANY_SIZE = {"ffv1", "libvpx-vp9"}  # encoders that take odd sizes with subsampled chroma
LOSSLESS = {
    "libx264": {"qp": "0"},
    "libx264rgb": {"qp": "0"},
    "libx265": {"x265-params": "lossless=1:log-level=error"},
    "libvpx-vp9": {"lossless": "1"},
    "h264_nvenc": {"tune": "lossless"},
    "hevc_nvenc": {"tune": "lossless"},
    **{name: {} for name in ("ffv1", "png", "tiff", "apng", "huffyuv", "ffvhuff", "utvideo", "qtrle", "rawvideo")},
}
MOST_CRF = {"libx264": 51, "libx264rgb": 51, "libx265": 51}  # others: 63
AVX_512F = 13  # OpenCV's number for it, which its Python package has no name for
# x264's code for it weighs frames differently from run to run on a busy machine: of 119 encodings of the same frames
# there were 32 kinds, and one kind with what comes before it, as fast.
WITHOUT_AVX512 = {"x264-params": "asm=avx2"}
IMAGE_CODECS = {".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg", ".tif": "tiff", ".tiff": "tiff"}
KEEPS_ALPHA = "--codec libvpx-vp9 (.webm), prores_ks (.mov) and ffv1 (.mkv) keep it"


@dataclass(frozen=True)
class Encoder:
    """An encoder that exists and its settings. `tags` are written to the file, `colors` are what pixels become."""

    name: str
    pix_fmt: str
    options: dict[str, str]
    tags: ColorTags
    colors: ColorTags
    chroma: str  # where the colour samples lie (see `chroma`)
    notices: tuple[str, ...]


def choose(encode: EncodeConfig, source: VideoInfo, size: tuple[int, int], image: str | None = None) -> Encoder:
    """The encoder for frames of `size` (width, height); raises `UsageError` for settings that cannot be.

    `image` is the suffix (`.png`) where each frame becomes a file; it decides instead of `encode.codec`.
    """
    notices: list[str] = []
    if image is not None:
        if encode.codec != EncodeConfig.codec:
            notices.append(f"{image} files decide how pictures are encoded; --codec {encode.codec} is not used")
        encode = replace(encode, codec=IMAGE_CODECS[image])
    name = _usable(ALIASES.get(encode.codec, encode.codec), encode, size, notices)
    if encode.lossless and name == "libx264" and encode.pix_fmt is None and _is_rgb(source):
        name = "libx264rgb"
    pix_fmt = _pix_fmt(name, encode, source, size, notices)
    tags, colors = color_tags(source, size, pix_fmt)
    options = _options(name, encode, notices)
    where = CENTER
    if is_subsampled(av.VideoFormat(pix_fmt)):
        kept = size == (source.width, source.height) and not any(source.orientation) and not source.color.hdr
        where = source.chroma if kept and not _is_rgb(source) and name != "mjpeg" else CENTER  # as JPEG has them
        options["chroma_sample_location"] = where
    return Encoder(name, pix_fmt, options, tags, colors, where, tuple(notices))


# ---- the encoder -----------------------------------------------------------------------------------------------------


def _usable(name: str, encode: EncodeConfig, size: tuple[int, int], notices: list[str]) -> str:
    """`name`, or the software encoder of the same codec where the device of a hardware encoder is not there."""
    codec, _, kind = name.rpartition("_")
    if kind not in HARDWARE or _works(name, encode, size):
        return name
    instead = ALIASES.get(codec)
    if instead is None:
        raise UsageError(f"{name} does not work on this machine", "use libx264, libx265 or libvpx-vp9")
    notices.append(f"{name} does not work on this machine; {instead} is used")
    return instead


def _works(name: str, encode: EncodeConfig, size: tuple[int, int]) -> bool:
    """Whether the encoder makes a packet of a black image of this size."""
    try:
        context = av.CodecContext.create(name, "w")
        context.width, context.height = size
        context.pix_fmt = encode.pix_fmt or "yuv420p"
        context.time_base = Fraction(1, 25)
        image = av.VideoFrame(*size, context.pix_fmt)
        image.pts = 0
        return bool([*context.encode(image), *context.encode(None)])
    except (av.FFmpegError, ValueError, RuntimeError):
        return False


def _options(name: str, encode: EncodeConfig, notices: list[str]) -> dict[str, str]:
    """crf and preset under the names and in the form that this encoder knows, or what makes it lossless."""
    known = {option.name: option for option in av.CodecContext.create(name, "w").supported_options.private}
    options: dict[str, str] = {}
    crf = next((key for key in ("crf", "cq") if key in known), None)
    if encode.lossless:
        if name not in LOSSLESS:
            raise UsageError(f"{name} cannot encode without loss", "use libx264, libx265, libvpx-vp9 or ffv1")
        options |= LOSSLESS[name]
    elif crf is not None:
        if encode.crf > MOST_CRF.get(name, 63):
            raise UsageError(
                f"--crf is {encode.crf:g}", f"for {name} it is 0 to {MOST_CRF.get(name, 63)}; lower is better"
            )
        options[crf] = f"{encode.crf:g}" if known[crf].type == OptionType.FLOAT else f"{encode.crf:.0f}"
    elif encode.crf != EncodeConfig.crf:
        notices.append(f"{name} has no quality by crf; its default is used")
    words = "preset" in known and known["preset"].type == OptionType.STRING
    choices = [choice.name for choice in known["preset"].choices] if "preset" in known else []
    if words or encode.preset in choices or ("preset" in known and encode.preset.isdigit()):
        options["preset"] = encode.preset
    elif encode.preset != EncodeConfig.preset:
        notices.append(f"{name} has no preset {encode.preset!r}; its default is used")
    if name == "mjpeg":  # its scale is another: 2 is best
        options |= {"qmin": "2", "qmax": "2"}
    if name.startswith("libx264") and cv2.checkHardwareSupport(AVX_512F):
        options |= WITHOUT_AVX512
    if name == "libx265" and not encode.lossless:
        options["x265-params"] = "log-level=error"  # it talks past FFmpeg's log
    if name == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # so does this one
    if name.startswith("libvpx"):
        options |= {"b": "0", "row-mt": "1"}  # constant quality, as --crf means elsewhere
    return options


# ---- the pixel format ------------------------------------------------------------------------------------------------


def _pix_fmt(codec: str, encode: EncodeConfig, source: VideoInfo, size: tuple[int, int], notices: list[str]) -> str:
    """The wanted pixel format, or its 4:4:4 relative where a size that is not even could not be kept."""
    try:
        formats = [f.name for f in av.codec.Codec(codec, "w").video_formats or ()]
        wanted = encode.pix_fmt or _default_pix_fmt(codec, formats, source, encode.lossless)
        shape = av.VideoFormat(wanted)
    except UnknownCodecError as error:
        raise UsageError(f"there is no encoder {codec!r}", "try libx264, libx265 or libvpx-vp9") from error
    except ValueError as error:
        raise UsageError(f"there is no pixel format {encode.pix_fmt!r}", "yuv420p plays everywhere") from error
    if formats and wanted not in formats:
        raise UsageError(f"{codec} cannot write {wanted}", f"it writes {', '.join(formats[:8])}")
    width, height = size
    fits = shape.chroma_width(width) * 2 != width + 1 and shape.chroma_height(height) * 2 != height + 1
    if not fits and codec not in ANY_SIZE:
        full = wanted.replace("420", "444").replace("422", "444")
        if full == wanted or full not in formats:
            raise UsageError(f"{codec} cannot write the odd size {width}x{height}", "use libx264 or ffv1")
        notices.append(f"the size {width}x{height} is odd: written as {full} instead of {wanted}, to keep it")
        wanted = full
    notices += _losses(codec, wanted, source)
    return wanted


def _default_pix_fmt(codec: str, formats: Sequence[str], source: VideoInfo, lossless: bool) -> str:
    """As the source where the encoder can; 8-bit colours as 4:2:0, which plays everywhere, unless without loss."""
    if codec == "mjpeg":  # in limited range it is no JPEG
        return "yuvj444p" if "444" in source.pix_fmt or _is_rgb(source) else "yuvj420p"
    if not formats or not source.pix_fmt:
        return "yuv420p" if not formats or "yuv420p" in formats else formats[0]
    if codec == "libx265":  # its alpha is a second layer that hardly any player knows
        formats = [name for name in formats if not name.startswith("yuva")]
    deep = source.bit_depth > 8 and not source.color.hdr
    if source.alpha and _is_rgb(source) and "yuva420p" in formats and not lossless and not deep:
        return "yuva420p" if codec != "ffv1" else "bgra"
    if not (deep or source.alpha or lossless) and "yuv420p" in formats:
        return "yuv420p"
    like = source.pix_fmt.replace("yuvj", "yuv")
    best, _ = find_best_pix_fmt_of_list(formats, like, source.alpha)
    return like if like in formats or best is None else str(best.name)


def _losses(codec: str, pix_fmt: str, source: VideoInfo) -> list[str]:
    """What the pixel format cannot hold of the source, in sentences."""
    if not source.pix_fmt:
        return []
    ours, theirs = av.VideoFormat(pix_fmt), av.VideoFormat(source.pix_fmt)
    bits, notices = max(component.bits for component in ours.components), []
    if source.alpha and not has_alpha(ours):
        notices.append(f"the source's transparency is dropped; {KEEPS_ALPHA}")
    if bits < source.bit_depth and not source.color.hdr:
        notices.append(f"{source.bit_depth} bits a channel are written as {bits}, because {codec} writes {pix_fmt}")
    coarser = ours.chroma_width(64) < theirs.chroma_width(64) or ours.chroma_height(64) < theirs.chroma_height(64)
    if coarser and not _is_rgb(source):
        notices.append(f"the source's chroma ({source.pix_fmt}) is written as {pix_fmt}; --pix-fmt chooses another")
    return notices


def _is_rgb(source: VideoInfo) -> bool:
    return bool(source.pix_fmt) and stored_colors(source).matrix == RGB


# ---- colours ---------------------------------------------------------------------------------------------------------


def color_tags(source: VideoInfo, size: tuple[int, int], pix_fmt: str) -> tuple[ColorTags, ColorTags]:
    """(tags to write, what they mean). The source's own as far as that can be, so that nothing is converted.

    HDR and RGB become BT.709 limited. Tags that the source does not have are left out, unless the size or the
    orientation differ, by which players guess.
    """
    if av.VideoFormat(pix_fmt).is_rgb:
        return RGB_FULL, RGB_FULL
    own = stored_colors(source)
    if source.color.hdr or own.matrix == RGB:
        own = tagged = BT709_LIMITED
    else:
        same = size == (source.width, source.height) and not source.orientation[0]
        tagged = _sane(source.color if same else own)
        if own.range == FULL:  # the names of yuvj formats say it, ours do not
            tagged = replace(tagged, range=FULL)
    if pix_fmt.startswith("yuvj"):
        own, tagged = replace(own, range=FULL), replace(tagged, range=FULL)
    return tagged, own


def _sane(tags: ColorTags) -> ColorTags:
    """Values that H.273 does not define, or not for Y'CbCr, become unspecified."""
    return ColorTags(
        tags.matrix if tags.matrix in KNOWN_MATRICES else UNSPECIFIED,
        tags.primaries if tags.primaries in KNOWN_PRIMARIES else UNSPECIFIED,
        tags.transfer if tags.transfer in KNOWN_TRANSFERS else UNSPECIFIED,
        tags.range if tags.range in (0, 1, 2) else 0,
    )


def color_notices(source: VideoInfo, colors: ColorTags) -> list[str]:
    """Says so when pixels are converted."""
    if not source.pix_fmt or source.color.hdr:  # drawn, or already said by the reader
        return []
    own = stored_colors(source)
    if (own.matrix, own.range) == (colors.matrix, colors.range):
        return []
    old, new = own.to_dict(), colors.to_dict()
    return [
        f"colours are converted from {old['matrix_name']} {old['range_name']} "
        f"to {new['matrix_name']} {new['range_name']}"
    ]
