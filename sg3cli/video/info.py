"""What a media file holds, as plain data."""

from __future__ import annotations

import ctypes
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.video.chroma_siting import CENTER, location_of
from sg3cli.video.color import ColorTags
from sg3cli.video.presentation import projection_of, stereo_of


@dataclass(frozen=True)
class AudioInfo:
    """A sound track; `index` is its stream number in the file."""

    index: int
    codec: str
    rate: int
    channels: int
    language: str
    packets: int = 0
    goes_back: float = 0.0  # seconds by which its times go back while the video's go on


@dataclass(frozen=True)
class SubtitleInfo:
    """A subtitle track."""

    index: int
    codec: str
    language: str
    packets: int = 0


@dataclass(frozen=True)
class Timeline:
    """Identity of every frame: `pts [T]` ascending and `durations [T]`, int64, in units of the video's time base.

    `seekable`: the timestamps are those of the packets, so that a seek can be checked against them; otherwise a frame
    is known by its place in the decoder's order, from the file's beginning. `dropped` counts frames that no decoder
    shows (a recording that was joined late has some before its first key frame). The video's time base is that of the
    stream divided by `scale`. `breaks` are the numbers of the packets with which the file's times start again.
    """

    pts: np.ndarray
    durations: np.ndarray
    seekable: bool = True
    dropped: int = 0
    scale: int = 1
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Shift:
    """From its packet number `first` on, a stream's times are `seconds` later than they say (the last one counts)."""

    stream: int
    first: int
    seconds: Fraction


@dataclass(frozen=True)
class VideoInfo:
    """Facts about a video. Sizes are upright (after rotation), `duration` is seconds from first frame to last's end."""

    path: Path
    format: str
    codec: str
    pix_fmt: str
    bit_depth: int
    width: int
    height: int
    time_base: Fraction
    average_rate: Fraction
    start_pts: int
    duration: float
    frames: int
    variable_rate: bool
    rotation: int  # degrees counter-clockwise that make the stored image upright
    orientation: tuple[bool, bool, bool]  # what that is on an array: transpose, then mirror columns, then mirror rows
    color: ColorTags  # as tagged; `color.resolve` fills the gaps
    sample_aspect_ratio: Fraction
    interlaced: bool
    stream: int
    alpha: bool = False  # some of it is transparent
    chroma: str = CENTER  # where colour samples lie: left, topleft, center
    stereo: str = ""  # how two eyes' images are arranged, see `presentation`; empty: there is but one
    projection: str = ""  # of a spherical image; empty: it is flat
    audio: tuple[AudioInfo, ...] = ()
    subtitles: tuple[SubtitleInfo, ...] = ()
    others: tuple[str, ...] = ()  # streams that are neither: "data bin_data", "attachment ttf", "cover mjpeg"
    metadata: dict[str, str] = field(default_factory=dict)
    shifts: tuple[Shift, ...] = ()  # where the file's times start again
    lead: Fraction = Fraction(0)  # seconds by which an output's times are to be earlier
    patient: bool = False  # all of the file has to be looked at to know its streams: one begins late
    notes: tuple[str, ...] = ()  # sentences about what is read otherwise than the file says

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; fractions as text `num/den`."""
        plain = asdict(self)
        plain |= {"path": str(self.path), "color": self.color.to_dict()}
        plain["shifts"] = [{**asdict(shift), "seconds": str(shift.seconds)} for shift in self.shifts]
        for name in ("time_base", "average_rate", "sample_aspect_ratio", "lead"):
            plain[name] = f"{plain[name].numerator}/{plain[name].denominator}"
        return plain


def describe_image(first: Any) -> dict[str, Any]:
    """Those fields of `VideoInfo` that a decoded image tells."""
    orientation = orientation_of(first)
    width, height = (first.height, first.width) if orientation[0] else (first.width, first.height)
    return {
        "pix_fmt": first.format.name,
        "bit_depth": max((component.bits for component in first.format.components), default=8),
        "width": width,
        "height": height,
        "rotation": int(first.rotation) % 360,
        "orientation": orientation,
        "color": tags_of(first),
        "interlaced": bool(first.interlaced_frame),
        "alpha": _is_transparent(first),
        "chroma": location_of(first),
        "stereo": stereo_of(side_data(first)),
        "projection": projection_of(side_data(first)),
    }


def tags_of(image: Any) -> ColorTags:
    """The colour tags of a decoded image."""
    return ColorTags(int(image.colorspace), int(image.color_primaries), int(image.color_trc), int(image.color_range))


def side_data(frame: Any) -> Any:
    """The side data of a frame, in spite of two faults of PyAV 18.

    It gives up all of it for a kind that it does not know (a photograph's Exif), so unknown kinds get a name here. And
    what has metadata of its own, as colour profiles have, is freed twice, which kills the process: that one frame of a
    clip is kept instead.
    """
    from av.sidedata.sidedata import Type

    def unknown(cls: Any, value: int) -> Any:
        member = object.__new__(cls)
        member._name_, member._value_ = f"UNKNOWN_{value}", value
        return member

    if "_missing_" not in vars(Type):
        Type._missing_ = classmethod(unknown)  # type: ignore[assignment]
    found = frame.side_data
    if any(entry.type.name == "ICC_PROFILE" for entry in found):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(found))  # never let go, at the end of the process neither
    return found


def orientation_of(frame: Any) -> tuple[bool, bool, bool]:
    """The display matrix as (transpose, mirror columns, mirror rows): all that multiples of 90 degrees need."""
    data = side_data(frame).get("DISPLAYMATRIX")
    if data is None:
        return (False, False, False)
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()  # x' = a x + c y, y' = b x + d y
    if abs(b) + abs(c) > abs(a) + abs(d):
        return (True, c < 0, b < 0)
    return (False, a < 0, d < 0)


def has_alpha(shape: Any) -> bool:
    """Whether a pixel format (PyAV's `VideoFormat`) holds transparency."""
    return shape.has_palette or any(component.is_alpha for component in shape.components)


def _is_transparent(frame: Any) -> bool:
    """Y'CbCr has an alpha plane on purpose; of RGB formats only those are meant whose image uses it."""
    if not has_alpha(frame.format):
        return False
    if not (frame.format.is_rgb or frame.format.has_palette):
        return True
    return bool(frame.to_ndarray(format="rgba")[..., 3].min() < 255)
