"""The settings: one typed table from which the command line, `sg3.toml`, `SG3_*` and the Python API come.

A field's type says what it takes (`Literal`: a choice), its `Option` what it means, its unit and its range. Times are
in seconds, never in frames, so that a setting means the same at 12.5 and at 60 frames a second.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from sg3cli.errors import UsageError
from sg3cli.time_ranges import parse_ranges, parse_rate

SIDES = ("left", "right", "top", "bottom")
FACE_PARTS = ("brows", "eyes", "nose", "mouth")
WIDEST = 1.0  # share of the face square by which a side may be expanded
PRECISIONS = ("fp32", "bf16")
SWITCHES = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
KINDS = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}


# ---- what a text may say -------------------------------------------------------------------------------------------


def parse_sides(text: str | None) -> tuple[float, float, float, float]:
    """`left=0.15,top=0.1` as shares (left, right, top, bottom); raises `UsageError` that says what is wrong."""
    hint = "for example left=0.15,top=0.1"
    shares = dict.fromkeys(SIDES, 0.0)
    for part in (text or "").split(",") if text else ():
        name, _, number = part.strip().partition("=")
        if name not in shares:
            raise UsageError(f"'{name}' is no side; sides are {', '.join(SIDES)}", hint)
        try:
            share = float(number)
        except ValueError:
            raise UsageError(f"{name} is '{number}', it must be a number", hint) from None
        if not 0 <= share <= WIDEST:
            raise UsageError(f"{name} is {number}, it must be from 0 to {WIDEST:g} of the face square", hint)
        shares[name] = share
    return shares["left"], shares["right"], shares["top"], shares["bottom"]


def smoothing_sigma(text: str) -> float:
    """Seconds of `gauss:SECONDS`, 0 for `paper` and `none`; raises `UsageError` for anything else."""
    if text in ("none", "paper"):
        return 0.0
    kind, _, value = text.partition(":")
    try:
        sigma = float(value) if kind == "gauss" else -1.0
    except ValueError:
        sigma = -1.0
    if not 0 < sigma < math.inf:
        raise UsageError(f"unknown smoothing {text!r}", "choose paper, none or gauss:SECONDS, for example gauss:0.1")
    return sigma


def parse_parts(text: str) -> frozenset[str] | None:
    """The parts of the face that are named, None for `auto`; raises `UsageError` for anything else."""
    if text == "auto":
        return None
    named = frozenset(part.strip() for part in text.split(",")) - {"none"}
    if unknown := sorted(named - set(FACE_PARTS)):
        hint = f"choose auto, none or {', '.join(FACE_PARTS)}"
        raise UsageError(f"unknown part of the face: {', '.join(unknown)!r}", hint)
    return named


def parse_track(text: str) -> int | None:
    """A track's number, None for `all`; raises `UsageError` for anything else."""
    if text == "all":
        return None
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"unknown track {text!r}", "say all, or a number counted from 0")
    return int(text)


# ---- the table -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """What a setting means: `unit` of a number, and its range (`above < value <= most`, never below zero).

    `parse` raises `UsageError` for a text that does not mean anything.
    """

    help: str
    unit: str = ""
    above: float = -math.inf
    most: float = math.inf
    parse: Callable[[str], Any] | None = None


@dataclass(frozen=True)
class Setting:
    """One field of a stage's settings, as its annotation says it."""

    name: str
    kind: type  # bool, str, int or float; that of the elements where None is allowed, too
    choices: tuple[str, ...]
    default: Any
    option: Option

    def check(self, value: Any, origin: str) -> Any:
        """The value in the setting's type; raises `UsageError` that names where it came from."""
        try:
            if self.kind is bool:
                value = SWITCHES[str(value).lower()]
            value = int(str(value)) if self.kind is int and isinstance(value, float) else self.kind(value)
        except (TypeError, ValueError, KeyError):
            raise UsageError(f"{origin} is {value!r}", f"it must be {KINDS[self.kind]}") from None
        if self.choices and value not in self.choices:
            raise UsageError(f"{origin} is {value!r}", f"choose one of: {', '.join(self.choices)}")
        if self.kind in (int, float):
            self._check_range(value, origin)
        if self.option.parse is not None:
            try:
                self.option.parse(value)
            except UsageError as error:
                if origin.startswith("-"):  # a flag's text is quoted; of a file or a variable the name is needed
                    raise
                raise UsageError(f"{origin}: {error}", error.hint) from None
        return value

    def _check_range(self, value: float, origin: str) -> None:
        if not math.isfinite(value) or value < 0:
            raise UsageError(f"{origin} is {value}", "it must be a number, zero or more")
        if value <= self.option.above:
            raise UsageError(f"{origin} is {value}", "it must be more than zero")
        if value > self.option.most:
            raise UsageError(f"{origin} is {value}", f"it is a share: 0 to {self.option.most:g}")


class StageSettings:
    """Base of the stages' settings: whatever made them, their values are checked."""

    def __post_init__(self) -> None:
        stage: Any = type(self)
        for name, setting in table(stage).items():
            if (value := getattr(self, name)) is not None:
                setting.check(value, name)


@functools.cache
def table(stage: Any) -> Mapping[str, Setting]:
    """The settings of a stage's dataclass by name, in their order."""
    hints = get_type_hints(stage, include_extras=True)
    return {item.name: _setting(item.name, hints[item.name], item.default) for item in fields(stage)}


def _setting(name: str, hint: Any, default: Any) -> Setting:
    inner, option = get_args(hint)
    choices = get_args(inner) if get_origin(inner) is Literal else ()
    kind = str if choices else next(kind for kind in (bool, str, int, float) if inner in (kind, kind | None))
    return Setting(name, kind, choices, default, option)


@dataclass(frozen=True)
class InputConfig(StageSettings):
    """How the source is read."""

    # frames a second of images, which have no times; None: as the project has it, else 25
    rate: Annotated[
        str | None,
        Option(
            "Frames a second of pictures (a folder, a pattern, a still). [default: 25]",
            unit="frames a second",
            parse=parse_rate,
        ),
    ] = None
    # of several video streams, counted from 0; None: as the project has it, else the one that players show
    video_track: Annotated[
        int | None, Option("Which video of the file, counted from 0. [default: the one that players show]")
    ] = None


@dataclass(frozen=True)
class AlignConfig(StageSettings):
    """Where the face is, and the square it is seen through (`spec`: FFHQ alignment)."""

    landmarks: Annotated[Literal["mesh", "fan"], Option("Landmark model.")] = "mesh"
    # largest | left | right | all | N | x,y[@time] | x0,y0,x1,y1[@time] | image; joined by +
    face: Annotated[
        str,
        Option(
            "Whose face: largest, left, right, all, a number of `sg3 faces`, a point X,Y or a box X0,Y0,X1,Y1 (pixels, "
            "or shares of the frame; @2.5s for a time), or a picture of the person; several joined by +."
        ),
    ] = "largest"
    # ffhq: max(eyes, mouth) | eyes: the reference video code's rule
    rule: Annotated[
        Literal["ffhq", "eyes"], Option("Size of the face square: by eyes and mouth, or by the eyes alone.")
    ] = "ffhq"
    # fixed | smooth | hybrid: how the window follows the face
    crop: Annotated[Literal["fixed", "smooth", "hybrid"], Option("How the window follows the face.")] = "hybrid"
    # Gaussian sigma of the quad's centre
    smooth_centre: Annotated[float, Option("Smoothing of the square's centre, in seconds.", unit="seconds")] = 0.04
    # Gaussian sigma of its angle and size
    smooth_axes: Annotated[float, Option("Smoothing of its angle and size, in seconds.", unit="seconds")] = 0.12
    # Gaussian sigma of the `hybrid` window
    window: Annotated[float, Option("Smoothing of the `hybrid` window, in seconds.", unit="seconds")] = 0.5
    # longest stretch without a face that is interpolated
    max_gap: Annotated[float, Option("Longest stretch without a face that is bridged, in seconds.", unit="seconds")] = (
        0.5
    )
    # pass | hold | fail: what becomes of frames without the face
    on_no_face: Annotated[
        Literal["pass", "hold", "fail"],
        Option("Frames without the face: passed through, the face held where it was, or an error."),
    ] = "pass"
    # ONNX face recognition network that tells people apart; None: what they look like
    embedder: Annotated[
        str | None,
        Option("ONNX face recognition network (112x112) that tells people apart, instead of their appearance."),
    ] = None


@dataclass(frozen=True)
class InvertConfig(StageSettings):
    """ReStyle inversion of the aligned crops."""

    # a name of `sg3 models list` or a folder
    model: Annotated[str, Option("Model: a name of `sg3 models list` or a bundle folder.")] = "people-128"
    # ReStyle passes; None: as many as this model's encoder needs
    steps: Annotated[
        int | None,
        Option("Refinement steps of the inversion. [default: what the model names, people-128: 2; else 3]", above=0),
    ] = None
    # near | average: what the last step of a frame starts from
    start: Annotated[
        Literal["near", "average"],
        Option("Begin at the code of a near frame that looks alike (faster), or each frame at the average face."),
    ] = "near"
    batch: Annotated[int, Option("Frames per inversion batch.", above=0)] = 8
    # all codes of a person by the same correction, so that nothing flickers
    likeness: Annotated[
        int, Option("Steps that bring a person's codes closer to the footage, all frames alike; 0: none.")
    ] = 30
    refine: Annotated[int, Option("Steps of optimisation that bring each code closer to the frame; 0: none.")] = 0
    # what the steps move: all codes alike, each code, each style, or where the face lies
    refine_space: Annotated[
        Literal["w", "w+", "s", "pose"],
        Option("What --refine moves: one code, the code of each layer, the styles, or the pose alone."),
    ] = "w+"


@dataclass(frozen=True)
class FinetuneConfig(StageSettings):
    """Pivotal tuning of the generator on the clip."""

    # where the curve of an edit's error over time bends (`examples/speed.md`); one frame a step gets there soonest
    steps: Annotated[int, Option("Most tuning steps.")] = 50
    # 3e-4 for generators of 1024 px
    lr: Annotated[float, Option("Learning rate of the tuning.", above=0)] = 6e-3
    batch: Annotated[int, Option("Frames per tuning step.", above=0)] = 1
    l2: Annotated[float, Option("Weight of the pixel loss.")] = 1.0
    perceptual: Annotated[float, Option("Weight of the perceptual loss.")] = 1.0
    loss: Annotated[Literal["auto", "lpips", "lite0", "structural"], Option("Perceptual loss.")] = "auto"
    # 0: not asked for, and more than twice as fast a step
    keep: Annotated[float, Option("Weight of keeping what the model's directions do.")] = 1.0
    # plateau stop: steps without improvement of the smoothed loss
    patience: Annotated[int, Option("Stop after so many steps without improvement.", above=0)] = 100
    save_every: Annotated[int, Option("Steps between checkpoints.", above=0)] = 25
    seed: Annotated[int, Option("Seed of the order in which frames are seen.")] = 0


@dataclass(frozen=True)
class RenderConfig(StageSettings):
    """From codes to the output video."""

    view: Annotated[Literal["frame", "face", "compare"], Option("What the output shows.")] = "frame"
    # on | off: what stands over the two sides of `compare`
    labels: Annotated[
        Literal["on", "off"], Option("Write into the compare view which side is which, and the edits at that time.")
    ] = "on"
    stitch: Annotated[
        Literal["none", "paste", "tune"],
        Option("The bare square, a paste with a soft mask, or a generator tuned to meet the frame there."),
    ] = "paste"
    # paper | none | gauss:SECONDS
    smooth: Annotated[
        str, Option("Smoothing of the codes over time: paper, none or gauss:SECONDS.", parse=smoothing_sigma)
    ] = "paper"
    # width of the mask's soft edge, as a share of the crop
    feather: Annotated[
        float, Option("Width of the mask's soft edge, as a share of the face square.", unit="shares of the crop")
    ] = 0.08
    # share of the source's fine detail that is put back where the edit keeps the shape
    detail: Annotated[
        float, Option("Share of the source's fine detail that is kept where the edit leaves the shape.", most=1)
    ] = 1.0
    # auto | learned | motion | paste | draw: how the edit goes over to the source
    transfer: Annotated[
        Literal["auto", "learned", "motion", "paste", "draw"],
        Option(
            "How the edit goes over to the source: by the model's transfer network, by motion and light, as a "
            "difference that is added, or not at all (the drawn face); auto: the first that the model has for it."
        ),
    ] = "auto"
    # auto | keep | free: the hue of skin
    hue: Annotated[
        Literal["auto", "keep", "free"],
        Option(
            "The hue of skin: as the source has it (keep), as the edited face is drawn (free), or kept from the edits "
            "that have nothing to do with it (auto)."
        ),
    ] = "auto"
    # auto | limit | free: the depth of shadows
    shade: Annotated[
        Literal["auto", "limit", "free"],
        Option(
            "How much darker or lighter an area of the face may become: within the face's own contrast (limit), as the "
            "edited face is drawn (free), or limited for edits of that kind (auto)."
        ),
    ] = "auto"
    # auto | none | eyes,nose,...: parts of the face that stay the source's
    keep_parts: Annotated[
        str,
        Option(
            "Parts of the face that stay as they are in the source: brows, eyes, nose, mouth, several with commas; "
            "none; or those that an edit is not about (auto).",
            parse=parse_parts,
        ),
    ] = "auto"
    # factor of what an edit of age does to skin's own structure
    skin: Annotated[
        float,
        Option("How far an edit of age brings out or smooths the skin's own lines and pores; 0: not at all.", most=3),
    ] = 1.0
    # all | hair | occlusion | none: what of the face the source keeps
    protect: Annotated[
        Literal["all", "hair", "occlusion", "none"],
        Option("What of the face the source keeps: hair before it, and what stands before it."),
    ] = "all"
    # the user's mask: video, image or folder of images; white may change
    mask: Annotated[
        str | None, Option("Your own mask, of the source's size: a video, a picture or a folder; white may change.")
    ] = None
    # multiply | replace: with the face's mask, or in its place
    mask_mode: Annotated[
        Literal["multiply", "replace"], Option("Whether your mask limits the face's mask or takes its place.")
    ] = "multiply"
    # share of the mean colour difference at the seam that is taken out
    match: Annotated[
        float, Option("Share of the mean colour difference at the seam that is taken out of the face.", most=1)
    ] = 0.0
    blend: Annotated[
        Literal["alpha", "gradient"],
        Option("Mix by opacity alone, or let the colour around the mask flow into the face."),
    ] = "alpha"
    # left=0.15,top=0.1: more field of view, in shares of the face square
    expand: Annotated[
        str | None, Option("More field of view, in shares of the face square: left=0.15,top=0.1.", parse=parse_sides)
    ] = None
    # most steps of `tune`
    stitch_steps: Annotated[int, Option("Most tuning steps of `--stitch tune`.")] = 100
    # squared error of the seam at which `tune` stops
    stitch_threshold: Annotated[float, Option("Squared error of the seam at which `--stitch tune` stops.")] = 0.002
    # fp32 | bf16: half the time on a CPU with AVX-512-BF16, errors of about a level
    precision: Annotated[
        Literal["fp32", "bf16"], Option("Arithmetic of the convolutions; bf16 is faster where the processor has it.")
    ] = "fp32"
    # what is edited: 0:10-0:20, 10s..20s, several with commas; None: everything
    range: Annotated[
        str | None, Option("Edit only this part, e.g. 0:10-0:20 or 10s..; the rest passes through.", parse=parse_ranges)
    ] = None
    # on a CPU more frames at once gain nothing and hold hundreds of megabytes; a GPU wants 8
    batch: Annotated[int, Option("Frames per rendering batch; a GPU draws them at once.", above=0)] = 2


@dataclass(frozen=True)
class EncodeConfig(StageSettings):
    """How the output video is written."""

    codec: Annotated[str, Option("Video encoder.")] = "libx264"
    crf: Annotated[float, Option("Quality of the encoder; lower is better and larger.")] = 14.0  # 16 costs grain
    preset: Annotated[str, Option("Speed of the encoder.")] = "medium"
    # None: as the source where the codec can; 8 bits as yuv420p
    pix_fmt: Annotated[
        str | None, Option("Pixel format; by default the source's where the encoder can, 8 bits as yuv420p.")
    ] = None
    lossless: Annotated[bool, Option("Encode without loss.")] = False
    # seconds of video that are kept when a render is killed; 0: the video is one chunk
    segment: Annotated[
        float, Option("Seconds of video that a killed render keeps; 0 writes the video in one piece.", unit="seconds")
    ] = 10.0
    # copy | aac | flac | none: what becomes of the source's sound
    audio: Annotated[
        Literal["copy", "aac", "flac", "none"],
        Option("The source's sound: copied packet by packet, encoded anew as aac or flac, or left out."),
    ] = "copy"
    # all | N, counted from 0
    audio_track: Annotated[
        str, Option("Which sound track is kept: all, or a number counted from 0.", parse=parse_track)
    ] = "all"
    # container; None: by the output's suffix, Matroska for `-`
    format: Annotated[str | None, Option("Container, if the output's suffix does not say it.")] = None


@dataclass(frozen=True)
class CredentialsConfig(StageSettings):
    """Who signs the output (C2PA). No part of any content key: who signs changes no frame."""

    # off | self | a PEM file; None: nothing is signed
    sign: Annotated[
        str | None,
        Option(
            "Sign the output's credentials (C2PA) with this certificate, CERT.pem; self: with one made on the spot "
            "that nobody trusts; off: do not. [default: off]"
        ),
    ] = None
    sign_key: Annotated[str | None, Option("The certificate's private key, KEY.pem. [default: that in CERT.pem]")] = (
        None
    )


@dataclass(frozen=True)
class Settings:
    """The settings of all stages. `Settings().having(render={"crop": "fixed"})` changes some of them."""

    input: InputConfig = field(default_factory=InputConfig)
    align: AlignConfig = field(default_factory=AlignConfig)
    invert: InvertConfig = field(default_factory=InvertConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)
    credentials: CredentialsConfig = field(default_factory=CredentialsConfig)

    def having(self, **stages: Mapping[str, Any]) -> Settings:
        """A copy with some values changed, stage by stage; raises `UsageError` for a value that cannot be."""
        return replace(self, **{name: replace(getattr(self, name), **dict(values)) for name, values in stages.items()})


CONFIGS: Mapping[str, type] = {
    item.name: hint
    for item, hint in zip(
        fields(Settings),
        (InputConfig, AlignConfig, InvertConfig, FinetuneConfig, RenderConfig, EncodeConfig, CredentialsConfig),
        strict=True,
    )
}

PRESETS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "draft": {"finetune": {"steps": 0}},  # the untuned generator: seconds instead of minutes, less alike
    "quality": {"finetune": {"steps": 1000, "patience": 300}},
}
