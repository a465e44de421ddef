"""Edits as data, and codes -> edited codes. An edit is a direction and a strength that may change over time.

A direction is a name, a file, or one channel of StyleSpace, `L5:133`, whose strength counts standard deviations. What
it does to codes is its `Move`, which `pipeline.load_edits` reads; from then on `edit.apply(codes, times)` is all that
rendering, previews, sweeps and measures know of an edit, whatever its kind.

Strengths are written as

    2                      the same everywhere
    0s:0,1s:2,2.5s:0:ease  keyframes TIME:STRENGTH[:EASE]; held before the first and after the last
    1@0s..2s, 1@0:00-0:02  active on an interval, with short ramps inside it; either end may be left out

A target, `age=70`, is a value that an attribute shall have: a number, keyframes TIME:VALUE, or a number on an interval;
its strength is the share of the way there.

EASE says how the value arrives at its keyframe: `linear` (default), `ease` (smooth start and stop) or `hold` (it jumps
there). Times are `1.5s`, `1.5`, `300ms` or `2m`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np

from sg3cli.errors import UsageError
from sg3cli.latents.codes import Codes
from sg3cli.latents.moves import AimedMove, Move
from sg3cli.time_ranges import parse_interval, seconds_of

RAMP = 0.2  # seconds over which an interval's strength rises and falls
EASES = ("linear", "ease", "hold")
SPACES = ("w", "s")
CHANNEL = re.compile(r"(?:L(\d{1,3})|input):(\d{1,5})")
TARGET_SYNTAX = "a target is a value (age=70), keyframes (age=0s:30,2s:70) or a value on an interval (age=70@0s..2s)"
SYNTAX = "a strength is a number (2), keyframes (0s:0,1s:2,2.5s:0:ease) or an interval (1@0s..2s)"


@dataclass(frozen=True)
class Keyframe:
    """`strength` is reached at `time` seconds, by way of `ease` from the keyframe before."""

    time: float
    strength: float
    ease: str = "linear"


@dataclass(frozen=True)
class Edit:
    """One direction, its strength over time (at least one keyframe) and the layers of W+ it moves (None: 1 to last).

    `space` is where it is applied (None: that of the direction); `text` is the strength as the user wrote it;
    `preserve` names directions that are projected out of this one; `face` is the number of the only face that is edited
    (None: all that were chosen). Layer 0 feeds the Fourier input and would move the whole image; layer j + 1 of W+
    feeds the network's layer Lj. Once the direction has been read, `move` is what strength 1 does, `keeps`
    what it leaves alone (`weights.kept`) and `skin` what it does to the skin's own structure; they are no part of the
    data. With a `target`, values over time, `direction` is an attribute of the model's flow, and strengths are shares
    of the way.
    """

    direction: str
    keyframes: tuple[Keyframe, ...]
    layers: tuple[int, ...] | None = None
    space: str | None = None
    text: str = ""
    preserve: tuple[str, ...] = ()
    face: int | None = None
    target: tuple[Keyframe, ...] | None = None
    move: Move | None = field(default=None, compare=False, repr=False)
    keeps: frozenset[str] = field(default=frozenset(), compare=False, repr=False)
    skin: float = field(default=0.0, compare=False, repr=False)

    def apply(self, codes: Codes, times: np.ndarray) -> Codes:
        """`codes` of n frames at `times [n]` seconds, edited; frames of strength 0 come back bit by bit."""
        if self.move is None:
            raise ValueError(f"the direction of {self.title} has not been read")
        strengths = self.strength_at(times).astype(np.float32)
        moved = np.flatnonzero(strengths)
        if len(moved) == 0:
            return codes
        move = self.move
        if self.target is not None:
            move = cast(AimedMove, move).towards(_values(self.target, times[moved]))
        if len(moved) == len(codes):
            return move(codes, strengths)
        return _put(codes, moved, move(codes[moved], strengths[moved]))

    @property
    def names(self) -> tuple[str, ...]:
        """The directions that it needs, of the model or in files: its own, and those it preserves."""
        return (self.direction, *self.preserve) if self.channel is None and self.target is None else self.preserve

    @property
    def channel(self) -> tuple[int, int] | None:
        """(layer of W+, channel in it) of an edit of one style, `L5:133` or `input:2`; None for directions."""
        match = CHANNEL.fullmatch(self.direction)
        return None if match is None else (0 if match[1] is None else int(match[1]) + 1, int(match[2]))

    @property
    def is_zero(self) -> bool:
        """Whether the edit changes nothing at any time."""
        return all(key.strength == 0.0 for key in self.keyframes)

    def strength_at(self, times: np.ndarray) -> np.ndarray:
        """Strength at each of `times` `[T]` seconds -> `[T]` float64."""
        return _values(self.keyframes, times)

    def rows(self, num_ws: int) -> np.ndarray:
        """The layers `[n]` that are moved; raises `UsageError` for one that a generator of `num_ws` does not have."""
        layers = np.arange(1, num_ws) if self.layers is None else np.array(self.layers)
        if layers.size and layers[-1] >= num_ws:
            what = f"layer {layers[-1]} of {self.direction} is beyond the generator's 0-{num_ws - 1}"
            raise UsageError(what, "choose --layers within that range")
        return layers

    def with_names(self, names: Mapping[str, str]) -> Edit:
        """The same edit with its directions called as `names` says."""
        own = names.get(self.direction, self.direction)  # a channel has no other name
        return replace(self, direction=own, preserve=tuple(names[n] for n in self.preserve))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the manifest and the provenance record."""
        keys = _plain(self.keyframes)
        layers = None if self.layers is None else list(self.layers)
        fields = {"direction": self.direction, "strength": self.text, "keyframes": keys}
        more: dict[str, Any] = {} if self.face is None else {"face": self.face}
        more |= {} if self.target is None else {"target": _plain(self.target)}
        return {**fields, "layers": layers, "space": self.space, "preserve": list(self.preserve), **more}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Edit:
        keys = _keyframes(fields["keyframes"])
        layers = None if fields["layers"] is None else tuple(int(n) for n in fields["layers"])
        preserve = tuple(str(name) for name in fields.get("preserve", ()))
        direction, text = (str(fields[name]) for name in ("direction", "strength"))
        space = None if fields.get("space") is None else str(fields["space"])
        face = None if fields.get("face") is None else int(fields["face"])
        target = None if fields.get("target") is None else _keyframes(fields["target"])
        return cls(direction, keys, layers, space, text, preserve, face, target)

    def describe(self) -> str:
        """The whole edit in words: `1:age = 2 on layers 1-6, preserving glasses`."""
        layers = "" if self.layers is None else f" on layers {layers_text(self.layers)}"
        kept = f", preserving {', '.join(self.preserve)}" if self.preserve else ""
        where = "" if self.space is None else f" in {self.space.upper()}"
        return f"{self.title} {'=' if self.target is None else 'to'} {self.text}{where}{layers}{kept}"

    @property
    def title(self) -> str:
        """`age`, or `1:age` for face 1 alone."""
        return self.direction if self.face is None else f"{self.face}:{self.direction}"


def layers_text(layers: Sequence[int]) -> str:
    """`1-6,8` of (1, 2, 3, 4, 5, 6, 8)."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _values(keyframes: Sequence[Keyframe], times: np.ndarray) -> np.ndarray:
    """The value of keyframes at each of `times [T]` seconds -> `[T]` float64."""
    times = np.asarray(times, dtype=np.float64)
    out = np.full(times.shape, keyframes[0].strength)
    for before, after in pairwise(keyframes):
        inside = (times >= before.time) & (times < after.time)
        u = (times[inside] - before.time) / max(after.time - before.time, 1e-12)
        out[inside] = before.strength + (after.strength - before.strength) * _eased(u, after.ease)
    out[times >= keyframes[-1].time] = keyframes[-1].strength
    return out


def _plain(keyframes: Sequence[Keyframe]) -> list[list[Any]]:
    """Keyframes as plain data."""
    return [[key.time, key.strength, key.ease] for key in keyframes]


def _keyframes(plain: Sequence[Sequence[Any]]) -> tuple[Keyframe, ...]:
    return tuple(Keyframe(float(t), float(s), str(e)) for t, s, e in plain)


def _eased(u: np.ndarray, ease: str) -> np.ndarray:
    """Share of the way done at share `u` of the time."""
    if ease == "hold":
        return np.zeros_like(u)
    return u * u * (3.0 - 2.0 * u) if ease == "ease" else u


# ---- reading what the user wrote -----------------------------------------------------------------------------------


def parse_channel(text: str, layers: str | None = None) -> Edit:
    """`L5:133=+3`: one channel of StyleSpace, in standard deviations -> Edit. Raises `UsageError`."""
    edit = parse_edit(text, layers)
    if edit.channel is None:
        hint = "a channel is LAYER:NUMBER=STRENGTH, as L5:133=+3"
        raise UsageError(f"{edit.direction!r} is no channel of StyleSpace", hint)
    return edit


def parse_edit(text: str, layers: str | None = None, space: str | None = None) -> Edit:
    """`age=2`, `smile=1@0s..2s`, `mine.npy=0s:0,1s:2`, for face 1 alone `1:age=2` -> Edit. Raises `UsageError`."""
    direction, equals, strength = (part.strip() for part in text.rpartition("="))
    whose = re.fullmatch(r"(\d{1,4}):(.+)", direction)
    face = int(whose[1]) if whose else None
    direction = whose[2] if whose else direction
    if not equals or not direction or not strength:
        raise UsageError(f"an edit is DIRECTION=STRENGTH or FACE:DIRECTION=STRENGTH, not {text!r}", SYNTAX)
    try:
        return make_edit(direction, strength, layers, space, face=face)
    except UsageError as error:
        raise error if direction in str(error) else UsageError(f"{text}: {error}", error.hint) from None


def parse_target(text: str) -> Edit:
    """`age=70`, `glasses=1@0s..2s`, `age=0s:30,2s:70`, for face 1 alone `1:age=70` -> Edit. Raises `UsageError`."""
    try:
        edit = parse_edit(text)
    except UsageError as error:
        raise UsageError(str(error), TARGET_SYNTAX if error.hint == SYNTAX else error.hint) from None
    if edit.channel is not None:
        raise UsageError(f"{edit.direction} is a channel, which has no value to reach", TARGET_SYNTAX)
    if "@" not in edit.text:
        return replace(edit, target=edit.keyframes, keyframes=(Keyframe(0.0, 1.0),))
    value, _, interval = edit.text.partition("@")
    target = (Keyframe(0.0, _number(value, edit.text)),)
    return replace(edit, target=target, keyframes=_interval(1.0, interval, edit.text))


def make_edit(
    direction: str,
    strength: str,
    layers: str | None = None,
    space: str | None = None,
    preserve: Sequence[str] = (),
    face: int | None = None,
) -> Edit:
    """An edit from its parts as written. Raises `UsageError` that names the wrong part."""
    if space is not None and space not in SPACES:
        raise UsageError(f"unknown space {space!r}", f"known spaces: {', '.join(SPACES)}")
    chosen = None if layers is None else parse_layers(layers)
    edit = Edit(direction, parse_strength(strength), chosen, space, strength.strip(), tuple(preserve), face)
    if edit.channel is not None and (space == "w" or preserve):
        hint = "leave out --space and --preserve, or learn a direction (sg3 directions learn)"
        raise UsageError(f"{direction} is one channel of S, which W cannot move alone", hint)
    if edit.channel is not None and chosen is not None and edit.channel[0] not in chosen:
        hint = f"leave --layers out, or name {edit.channel[0]} too"
        raise UsageError(f"{direction} is layer {edit.channel[0]}, not one of {layers}", hint)
    return edit


def parse_strength(text: str) -> tuple[Keyframe, ...]:
    """Keyframes of a strength as written, in order of time. Raises `UsageError`."""
    text = text.strip()
    if "@" in text:
        number, _, interval = text.partition("@")
        return _interval(_number(number, text), interval, text)
    if ":" in text:
        keys = tuple(_keyframe(part, text) for part in text.split(","))
        if any(b.time <= a.time for a, b in pairwise(keys)):
            raise UsageError(f"the keyframe times of {text!r} do not increase", SYNTAX)
        return keys
    return (Keyframe(0.0, _number(text, text)),)


def parse_layers(text: str) -> tuple[int, ...]:
    """`1-15`, `3`, `1-4,8` -> layer numbers in order. Raises `UsageError`."""
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,3})(?:-(\d{1,3}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise UsageError(f"cannot read the layers {text!r}", "layers are numbers and ranges: 1-15 or 1-4,8")
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))


def _interval(strength: float, interval: str, text: str) -> tuple[Keyframe, ...]:
    """Zero outside the interval, ramps inside it; an end that is open or at the clip's start has none."""
    start, end = parse_interval(interval, text)
    ramp = min(RAMP, (end - start) / 2)
    keys = [Keyframe(0.0, strength)]
    if start > 0.0:
        keys = [Keyframe(start, 0.0), Keyframe(start + ramp, strength, "ease")]
    if math.isfinite(end):
        hold = [Keyframe(end - ramp, strength)] if end - ramp > keys[-1].time else []
        keys += [*hold, Keyframe(end, 0.0, "ease")]
    return tuple(keys)


def _keyframe(part: str, text: str) -> Keyframe:
    fields = [field.strip() for field in part.split(":")]
    if len(fields) not in (2, 3) or (fields[2:] and fields[2] not in EASES):
        raise UsageError(f"cannot read the keyframe {part!r} of {text!r}", f"{SYNTAX}; eases: {', '.join(EASES)}")
    return Keyframe(_seconds(fields[0], text), _number(fields[1], text), *fields[2:])


def _number(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        raise UsageError(f"{part.strip()!r} in {text!r} is not a number", SYNTAX) from None
    if not math.isfinite(value):
        raise UsageError(f"the strength {text!r} is not a finite number", SYNTAX)
    return value


def parse_time(text: str) -> float:
    """Seconds of a time as written (`1.5s`, `1.5`, `300ms`, `2m`). Raises `UsageError`."""
    return _seconds(text, text)


def _seconds(part: str, text: str) -> float:
    seconds = None if "h" in part else seconds_of(part)  # no strength is given by the hour
    if seconds is None:
        raise UsageError(f"{part.strip()!r} in {text!r} is not a time", "times are 1.5s, 300ms or 2m, from the start")
    return seconds


# ---- lists of edits, and codes -------------------------------------------------------------------------------------


def parse_edits(texts: Sequence[str]) -> list[Edit]:
    """Edits as `parse_edit` reads them, a later one in the place of an earlier one of its direction and face."""
    edits: list[Edit] = []
    for text in texts:
        edits = set_edit(edits, parse_edit(text))
    return edits


def set_edit(edits: Sequence[Edit], edit: Edit) -> list[Edit]:
    """The list with `edit` in the place of an earlier one of its direction and face; strength 0 removes it."""
    known = [(other.direction, other.face) for other in edits]
    name = (edit.direction, edit.face)
    if edit.is_zero:
        return [other for other, its in zip(edits, known, strict=True) if its != name]
    if name in known:
        return [edit if its == name else other for other, its in zip(edits, known, strict=True)]
    return [*edits, edit]


def with_edits(known: Sequence[Edit], asked: Sequence[Edit]) -> list[Edit]:
    """The edits `known` and each one asked for in the place of the earlier one of its direction and face."""
    result = list(known)
    for edit in asked:
        result = set_edit(result, edit)
    return result


def edits_of(edits: Sequence[Edit], face: int) -> list[Edit]:
    """Those of the edits that change the face of this number."""
    return [edit for edit in edits if edit.face in (None, face)]


def apply_edits(codes: Codes, times: np.ndarray, edits: Sequence[Edit]) -> Codes:
    """`codes` of n frames at `times [n]` seconds with all edits (InterFaceGAN, eq. 3, per frame)."""
    for edit in edits:
        codes = edit.apply(codes, times)
    return codes


def _put(codes: Codes, rows: np.ndarray, moved: Codes) -> Codes:
    """`codes` with `moved` in the place of some rows; a part that only those have is 0 elsewhere."""
    ws = codes.ws.copy()
    ws[rows] = moved.ws
    shift = codes.shift
    if moved.shift is not None:
        shift = np.zeros((len(codes), moved.shift.shape[1]), np.float32) if shift is None else shift.copy()
        shift[rows] = moved.shift
    return replace(codes, ws=ws, shift=shift)
