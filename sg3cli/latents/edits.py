"""Edits as data, and codes -> edited codes. An edit is a direction and a strength that may change over time.

Strengths are written as

    2                      the same everywhere
    0s:0,1s:2,2.5s:0:ease  keyframes TIME:STRENGTH[:EASE]; held before the first and after the last
    1@0s..2s, 1@0:00-0:02  active on an interval, with short ramps inside it; either end may be left out

EASE says how the value arrives at its keyframe: `linear` (default), `ease` (smooth start and stop) or `hold` (it jumps
there). Times are `1.5s`, `1.5`, `300ms` or `2m`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from sg3cli.errors import UsageError
from sg3cli.time_ranges import parse_interval, seconds_of

RAMP = 0.2  # seconds over which an interval's strength rises and falls
EASES = ("linear", "ease", "hold")
SPACES = ("w",)
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

    `text` is the strength as the user wrote it; `preserve` names directions that are projected out of this one; `face`
    is the number of the only face that is edited (None: all that were chosen).
    Layer 0 feeds the Fourier input and would move the whole image.
    """

    direction: str
    keyframes: tuple[Keyframe, ...]
    layers: tuple[int, ...] | None = None
    space: str = "w"
    text: str = ""
    preserve: tuple[str, ...] = ()
    face: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The directions that it needs: its own, and those it preserves."""
        return (self.direction, *self.preserve)

    @property
    def is_zero(self) -> bool:
        """Whether the edit changes nothing at any time."""
        return all(key.strength == 0.0 for key in self.keyframes)

    def strength_at(self, times: np.ndarray) -> np.ndarray:
        """Strength at each of `times` `[T]` seconds -> `[T]` float64."""
        times = np.asarray(times, dtype=np.float64)
        out = np.full(times.shape, self.keyframes[0].strength)
        for before, after in pairwise(self.keyframes):
            inside = (times >= before.time) & (times < after.time)
            u = (times[inside] - before.time) / max(after.time - before.time, 1e-12)
            out[inside] = before.strength + (after.strength - before.strength) * _eased(u, after.ease)
        out[times >= self.keyframes[-1].time] = self.keyframes[-1].strength
        return out

    def rows(self, num_ws: int) -> np.ndarray:
        """The layers `[n]` that are moved; raises `UsageError` for one that a generator of `num_ws` does not have."""
        layers = np.arange(1, num_ws) if self.layers is None else np.array(self.layers)
        if layers.size and layers[-1] >= num_ws:
            what = f"layer {layers[-1]} of {self.direction} is beyond the generator's 0-{num_ws - 1}"
            raise UsageError(what, "choose --layers within that range")
        return layers

    def with_names(self, names: Mapping[str, str]) -> Edit:
        """The same edit with its directions called as `names` says."""
        return replace(self, direction=names[self.direction], preserve=tuple(names[n] for n in self.preserve))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the manifest and the provenance record."""
        keys = [[key.time, key.strength, key.ease] for key in self.keyframes]
        layers = None if self.layers is None else list(self.layers)
        fields = {"direction": self.direction, "strength": self.text, "keyframes": keys}
        whose = {} if self.face is None else {"face": self.face}
        return {**fields, "layers": layers, "space": self.space, "preserve": list(self.preserve), **whose}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Edit:
        keys = tuple(Keyframe(float(t), float(s), str(e)) for t, s, e in fields["keyframes"])
        layers = None if fields["layers"] is None else tuple(int(n) for n in fields["layers"])
        preserve = tuple(str(name) for name in fields.get("preserve", ()))
        direction, space, text = (str(fields[name]) for name in ("direction", "space", "strength"))
        face = None if fields.get("face") is None else int(fields["face"])
        return cls(direction, keys, layers, space, text, preserve, face)

    def describe(self) -> str:
        """The whole edit in words: `1:age = 2 on layers 1-6, preserving glasses`."""
        layers = "" if self.layers is None else f" on layers {layers_text(self.layers)}"
        kept = f", preserving {', '.join(self.preserve)}" if self.preserve else ""
        return f"{self.title} = {self.text}{layers}{kept}"

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


def _eased(u: np.ndarray, ease: str) -> np.ndarray:
    """Share of the way done at share `u` of the time."""
    if ease == "hold":
        return np.zeros_like(u)
    return u * u * (3.0 - 2.0 * u) if ease == "ease" else u


# ---- reading what the user wrote -----------------------------------------------------------------------------------


def parse_edit(text: str, layers: str | None = None, space: str = "w") -> Edit:
    """`age=2`, `smile=1@0s..2s`, `mine.npy=0s:0,1s:2`, for face 1 alone `1:age=2` -> Edit. Raises `UsageError`."""
    direction, equals, strength = (part.strip() for part in text.rpartition("="))
    whose = re.fullmatch(r"(\d{1,4}):(.+)", direction)
    face = int(whose[1]) if whose else None
    direction = whose[2] if whose else direction
    if not equals or not direction or not strength:
        raise UsageError(f"an edit is DIRECTION=STRENGTH or FACE:DIRECTION=STRENGTH, not {text!r}", SYNTAX)
    return make_edit(direction, strength, layers, space, face=face)


def make_edit(
    direction: str,
    strength: str,
    layers: str | None = None,
    space: str = "w",
    preserve: Sequence[str] = (),
    face: int | None = None,
) -> Edit:
    """An edit from its parts as written. Raises `UsageError` that names the wrong part."""
    if space not in SPACES:
        raise UsageError(f"unknown space {space!r}", f"known spaces: {', '.join(SPACES)}")
    chosen = None if layers is None else parse_layers(layers)
    return Edit(direction, parse_strength(strength), chosen, space, strength.strip(), tuple(preserve), face)


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


def apply_edits(
    ws: np.ndarray, times: np.ndarray, edits: Sequence[Edit], directions: Mapping[str, np.ndarray]
) -> np.ndarray:
    """`w[t, j] + sum_e strength_e(t) * n_e[j]` on each edit's layers j (InterFaceGAN, eq. 3, per frame).

    ws `[T, num_ws, w_dim]`, times `[T]` seconds, directions: title of an edit -> `[num_ws, w_dim]` or `[1, w_dim]`.
    Returns a new float32 array; frames whose strengths are all zero come back bit by bit. Raises `UsageError` for
    layers beyond the generator's.
    """
    out = np.array(ws, dtype=np.float32)
    for edit in edits:
        layers = edit.rows(out.shape[1])
        direction = np.broadcast_to(directions[edit.title].astype(np.float32), out.shape[1:])
        strength = edit.strength_at(times).astype(np.float32)
        moved = np.flatnonzero(strength)
        out[np.ix_(moved, layers)] += strength[moved, None, None] * direction[None, layers]
    return out
