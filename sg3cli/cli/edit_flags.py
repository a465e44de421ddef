"""How an edit is said: `--edit age=2`, or `--direction age --strength 2`; both forms, as often as is liked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from sg3cli.errors import UsageError
from sg3cli.latents.edits import Edit, make_edit, parse_channel, parse_edit, parse_target

Edits = Annotated[
    list[str] | None,
    typer.Option(
        "--edit",
        metavar="[FACE:]DIRECTION=STRENGTH",
        help="An edit: age=2, smile=1@0s..2s, 1:age=2 for face 1; repeatable.",
    ),
]
Directions = Annotated[
    list[str] | None,
    typer.Option("--direction", metavar="NAME|FILE", help="What to change, each with a --strength of its own."),
]
Strengths = Annotated[
    list[str] | None,
    typer.Option(
        "--strength",
        metavar="S",
        help="How much: 2, keyframes 0s:0,1s:2,3s:0:ease, or 1@0s..2s; 0 removes the edit.",
    ),
]

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="[FACE:]ATTRIBUTE=VALUE",
        help="Bring an attribute to a value: age=70, glasses=1@0s..2s, age=0s:30,2s:70; repeatable.",
    ),
]
Channels = Annotated[
    list[str] | None,
    typer.Option(
        "--channel",
        metavar="LAYER:N=S",
        help="Move one channel of StyleSpace by S standard deviations, e.g. L5:133=+3; repeatable.",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers", metavar="L", help="Codes to move, e.g. 1-15 or 1-4,8; 0 feeds the input, 1 the layer L0, and so on."
    ),
]


def asked_edits(
    edits: Sequence[str] | None,
    directions: Sequence[str] | None,
    strengths: Sequence[str] | None,
    channels: Sequence[str] | None = None,
    layers: str | None = None,
    space: str | None = None,
    preserve: Sequence[str] = (),
    face: int | None = None,
    targets: Sequence[str] | None = None,
) -> list[Edit] | None:
    """The edits of a command line, of all forms; None when there is none. Zero strengths are in it.

    Directions and strengths are paired in their order. `layers`, `space`, `preserve` and `face` hold for all of them.
    """
    names, values = list(directions or ()), list(strengths or ())
    if len(names) != len(values):
        if not names or not values:
            raise UsageError(f"{'--strength' if names else '--direction'} is missing", "an edit needs both")
        what = f"{len(names)} times --direction ({', '.join(names)}) and {len(values)} times --strength"
        raise UsageError(
            what, "give each direction its own: --direction age --strength 2 --direction smile --strength 1"
        )
    if edits is None and not names and not channels and not targets:
        return None
    written = [with_preserved(parse_edit(text, layers, space), preserve) for text in edits or ()]
    written += [with_preserved(parse_channel(text, layers), preserve) for text in channels or ()]
    if targets and (layers is not None or space is not None or preserve):
        raise UsageError("--target takes no --layers, --space or --preserve", "give those edits a command of their own")
    written += [parse_target(text) for text in targets or ()]
    if face is not None:
        written = [edit if edit.face is not None else replace(edit, face=face) for edit in written]
    paired = zip(names, values, strict=True)
    return [*written, *(make_edit(name, value, layers, space, preserve, face) for name, value in paired)]


def with_preserved(edit: Edit, preserve: Sequence[str]) -> Edit:
    """The edit with `preserve` projected out. Raises `UsageError` for a channel, which has no other direction in it."""
    if edit.channel is not None and preserve:
        raise UsageError(f"--preserve {preserve[0]} means nothing for {edit.direction}", "leave it out")
    return replace(edit, preserve=tuple(preserve))
