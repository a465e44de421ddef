"""Options that commands share. The stages' flags are made from their configs: defaults stand in one place."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from sg3cli.cli import settings
from sg3cli.cli.settings import CHOICES, CONFIGS, Values
from sg3cli.console import Console

HELP: dict[tuple[str, str], str] = {
    ("input", "rate"): "Frames a second of pictures (a folder, a pattern, a still). [default: 25]",
    ("align", "landmarks"): "Landmark model.",
    ("align", "face"): (
        "Whose face: largest, left, right, all, a number of `sg3 faces`, a point X,Y or a box X0,Y0,X1,Y1 (pixels, or "
        "shares of the frame; @2.5s for a time), or a picture of the person; several joined by +."
    ),
    ("align", "rule"): "Size of the face square: by eyes and mouth, or by the eyes alone.",
    ("align", "crop"): "How the window follows the face.",
    ("align", "smooth_centre"): "Smoothing of the square's centre, in seconds.",
    ("align", "smooth_axes"): "Smoothing of its angle and size, in seconds.",
    ("align", "window"): "Smoothing of the `hybrid` window, in seconds.",
    ("align", "max_gap"): "Longest stretch without a face that is bridged, in seconds.",
    ("align", "on_no_face"): "Frames without the face: passed through, the face held where it was, or an error.",
    ("align", "embedder"): "ONNX face recognition network (112x112) that tells people apart, instead of their looks.",
    ("invert", "model"): "Model: a name of `sg3 models list` or a bundle folder.",
    ("invert", "steps"): "Refinement steps of the inversion.",
    ("invert", "batch"): "Frames per inversion batch.",
    ("finetune", "steps"): "Most tuning steps.",
    ("finetune", "lr"): "Learning rate of the tuning.",
    ("finetune", "batch"): "Frames per tuning step.",
    ("finetune", "l2"): "Weight of the pixel loss.",
    ("finetune", "perceptual"): "Weight of the perceptual loss.",
    ("finetune", "loss"): "Perceptual loss.",
    ("finetune", "patience"): "Stop after so many steps without improvement.",
    ("finetune", "save_every"): "Steps between checkpoints.",
    ("finetune", "seed"): "Seed of the order in which frames are seen.",
    ("render", "view"): "What the output shows.",
    ("render", "labels"): "Write into the compare view which side is which, and the edits at that time.",
    ("render", "stitch"): "The bare square, a paste with a soft mask, or a generator tuned to meet the frame there.",
    ("render", "smooth"): "Smoothing of the codes over time: paper, none or gauss:SECONDS.",
    ("render", "feather"): "Width of the mask's soft edge, as a share of the face square.",
    ("render", "detail"): "Share of the source's fine detail that is kept where the edit leaves the shape.",
    ("render", "protect"): "What of the face the source keeps: hair before it, and what stands before it.",
    ("render", "mask"): "Your own mask, of the source's size: a video, a picture or a folder; white may change.",
    ("render", "mask_mode"): "Whether your mask limits the face's mask or takes its place.",
    ("render", "match"): "Share of the mean colour difference at the seam that is taken out of the face.",
    ("render", "blend"): "Mix by opacity alone, or let the colour around the mask flow into the face.",
    ("render", "expand"): "More field of view, in shares of the face square: left=0.15,top=0.1.",
    ("render", "stitch_steps"): "Most tuning steps of `--stitch tune`.",
    ("render", "stitch_threshold"): "Squared error of the seam at which `--stitch tune` stops.",
    ("render", "precision"): "Arithmetic of the convolutions; bf16 is faster where the processor has it.",
    ("render", "range"): "Edit only this part, e.g. 0:10-0:20 or 10s..; the rest passes through.",
    ("render", "batch"): "Frames per rendering batch.",
    ("encode", "codec"): "Video encoder.",
    ("encode", "crf"): "Quality of the encoder; lower is better and larger.",
    ("encode", "preset"): "Speed of the encoder.",
    ("encode", "pix_fmt"): "Pixel format; by default the source's where the encoder can, 8 bits as yuv420p.",
    ("encode", "lossless"): "Encode without loss.",
    ("encode", "segment"): "Seconds of film that a killed render keeps; 0 writes the film in one piece.",
    ("encode", "format"): "Container, if the output's suffix does not say it.",
}
_NAMES = [f.name for config in CONFIGS.values() for f in fields(config)]
SHARED_NAMES = {name for name in _NAMES if _NAMES.count(name) > 1}  # `steps`, `batch`: need their stage's name


@dataclass
class Session:
    """What every command is given: where to speak, and the flags that were set."""

    console: Console
    flags: Values = field(default_factory=dict)
    own: tuple[str, ...] = ()
    project: Path | None = None
    pull: bool = False
    device: str = "auto"
    debug: bool = False


def flag_names(stage: str, name: str, own: bool) -> list[str]:
    """`--smooth-centre`; a name that several stages have is prefixed, and short as well where it is the own stage."""
    dashed = name.replace("_", "-")
    if name not in SHARED_NAMES:
        return [f"--{dashed}"]
    return [f"--{stage}-{dashed}", *([f"--{dashed}"] if own else [])]


def command(
    app: typer.Typer, own: tuple[str, ...] = (), before: tuple[str, ...] = (), show: tuple[str, ...] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose first parameter is a `Session`.

    It gets the flags of its `own` stages and of those `before` it, which may run on the way (these are accepted but
    not listed in its help, nor are own ones that `show` leaves out), and the options that all commands have.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        stage_flags = {}
        taken = {parameter.name for parameter in parameters}  # a command's own option goes before a stage's
        for stage in (*own, *before):
            for item in fields(CONFIGS[stage]):
                if stage in before and item.name in taken:
                    continue
                hidden = stage in before or (show is not None and item.name not in show)
                stage_flags[f"{stage}__{item.name}"] = _stage_option(stage, item.name, stage in own, hidden)
        shared = _shared_options(bool(own or before))

        @functools.wraps(function)
        def run(**values: Any) -> None:
            flags: Values = {}
            for name in stage_flags:
                stage, _, key = name.partition("__")
                if (value := values.pop(name)) is not None:
                    origin = flag_names(stage, key, stage in own)[-1]
                    flags.setdefault(stage, {})[key] = settings.check(stage, key, value, origin)
            common = {name: values.pop(name) for name in shared}
            function(_session(flags, own, common), **values)

        everything = {**stage_flags, **shared}
        extra = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            for name, (annotation, default) in everything.items()
        ]
        given = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        run.__signature__ = inspect.Signature([*given, *extra])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*given, *extra]}
        app.command(function.__name__.rstrip("_").replace("_", "-"))(run)
        return function

    return register


def _session(flags: Values, own: tuple[str, ...], common: dict[str, Any]) -> Session:
    console = Console(quiet=common["quiet"], as_json=common["as_json"])
    project, pull, device = common.get("project_option"), common.get("pull", False), common.get("device", "auto")
    return Session(console, flags, own, project, pull, device, debug=common["debug"] or debugging([]))


def _stage_option(stage: str, name: str, own: bool, hidden: bool) -> tuple[Any, Any]:
    """(annotation, default) of one field; None means that the flag was not given."""
    kind = settings.field_type(stage, name)
    default = getattr(CONFIGS[stage](), name)
    choices = CHOICES.get((stage, name))
    option = typer.Option(
        *flag_names(stage, name, own),
        help=f"{HELP[stage, name]}" + (f" [default: {default}]" if default is not None else ""),
        metavar="|".join(choices) if choices else None,
        show_default=False,
        hidden=hidden,
    )
    return Annotated[kind | None, option], None


def _shared_options(stage_command: bool) -> dict[str, tuple[Any, Any]]:
    """Options of every command; those that run stages can also choose a project, a device and to pull models."""
    flag = functools.partial(typer.Option, show_default=False)
    options: dict[str, tuple[Any, Any]] = {}
    if stage_command:
        project = flag("--project", metavar="PATH", help="The project's folder, if not STEM.sg3 in this one.")
        device = typer.Option("--device", metavar="auto|cpu|cuda", envvar="SG3_DEVICE", help="Where to compute.")
        pull = flag("--pull", envvar="SG3_PULL", help="Download models that are missing.")
        options["project_option"] = (Annotated[Path | None, project], None)
        options["device"] = (Annotated[str, device], "auto")
        options["pull"] = (Annotated[bool, pull], False)
    options["as_json"] = (Annotated[bool, flag("--json", help="Print one JSON object on stdout.")], False)
    options["quiet"] = (Annotated[bool, flag("--quiet", "-q", help="Say nothing but errors.")], False)
    options["debug"] = (Annotated[bool, flag("--debug", help="Show the traceback of an error.")], False)
    return options


def debugging(argv: list[str]) -> bool:
    """Whether tracebacks are wanted (asked of the raw arguments, because parsing them may be what failed)."""
    return "--debug" in argv or os.environ.get("SG3_DEBUG", "") not in ("", "0")
