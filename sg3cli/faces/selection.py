"""Whose face: what the user writes after `--face`, and the people it means.

largest | left | right | all      N            a number of `sg3 faces`
x,y   x,y@2.5s                    a point in pixels, or in shares of the frame (0..1)
x0,y0,x1,y1   x0,y0,x1,y1@2.5s    a box
portrait.png                      an image of the person
0+1                               several, each written as above
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sg3cli.errors import InputError, UsageError
from sg3cli.faces.appearance import SAME
from sg3cli.faces.clustering import Person, Sightings
from sg3cli.time_ranges import seconds_of
from sg3cli.video.image_sequence import SUFFIXES

BRIEF = 0.1  # a face seen in less than this share of the frames of the most frequent one is no candidate
WORDS = ("largest", "left", "right", "all")
HINT = "--face largest|left|right|all|N|X,Y[@TIME]|X0,Y0,X1,Y1[@TIME]|PICTURE, several joined by +"
NOBODY = ("no face was found in the clip", "give a clip in which a face is seen from the front")
AWAY = 1.0  # face sizes that a point may lie beside the face it means


@dataclass(frozen=True)
class FaceCandidates:
    """The people of a clip, and what choosing among them needs."""

    people: Sequence[Person]
    seen: Sightings
    times: np.ndarray  # [T] seconds
    size: tuple[int, int]  # height, width of the frames
    same: float = SAME

    def centres(self, person: Person) -> np.ndarray:
        """`[k, 2]` middle of the face in each of its frames, in pixels."""
        boxes = self.seen.boxes[person.rows]
        return (boxes[:, :2] + boxes[:, 2:]) / 2

    def span(self, person: Person) -> tuple[float, float]:
        """First and last time, in seconds."""
        frames = self.seen.frames[person.rows]
        return float(self.times[frames[0]]), float(self.times[frames[-1]])

    def describe(self) -> str:
        """`0 (at 120,90 from 0.00 s to 4.00 s), 1 (...)`: what an error names."""
        words = []
        for person in self.people[:6]:
            x, y = np.median(self.centres(person), axis=0)
            words.append(
                f"{person.number} (at {x:.0f},{y:.0f}, {self.span(person)[0]:.2f} s to {self.span(person)[1]:.2f} s)"
            )
        more = len(self.people) - len(words)
        return ", ".join(words) + (f" and {more} more" if more > 0 else "")


def split_choice(text: str) -> list[str]:
    """The parts of a choice; a file whose name has a `+` stays whole."""
    if Path(text).is_file():
        return [text]
    return [part.strip() for part in text.split("+")]


def is_image_file(part: str) -> bool:
    """Whether a part of a choice names an image."""
    return Path(part).suffix.lower() in SUFFIXES


def check_choice(text: str) -> None:
    """Raise `UsageError` for what no clip could make sense of."""
    for part in split_choice(text):
        if not (part in WORDS or _is_number(part) or is_image_file(part) or _place(part) is not None):
            raise UsageError(f"no face choice is called '{part}'", HINT)
        if is_image_file(part) and not Path(part).is_file():
            raise UsageError(f"there is no picture {part}", "check the path; `sg3 faces INPUT` shows numbers instead")


def choose(candidates: FaceCandidates, text: str, named: dict[str, np.ndarray] | None = None) -> list[Person]:
    """The people that `text` means, in order of their numbers; `named` holds the appearance of each image named.

    Raises InputError when there is no such person (naming those who are there), UsageError for what is no choice.
    """
    check_choice(text)
    if not candidates.people:
        raise InputError(*NOBODY)
    chosen: dict[int, Person] = {}
    for part in split_choice(text):
        for person in _meant(candidates, part, named or {}):
            chosen[person.number] = person
    return [person for _, person in sorted(chosen.items())]


def _meant(candidates: FaceCandidates, part: str, named: dict[str, np.ndarray]) -> list[Person]:
    if part == "all":
        return _long_seen(candidates)
    if part in WORDS:
        return [_by_word(candidates, part)]
    if _is_number(part):
        if int(part) >= len(candidates.people):
            what = f"face {int(part)} was asked for, the clip shows {len(candidates.people)}: {candidates.describe()}"
            raise InputError(what, "faces are counted from 0; `sg3 faces INPUT` shows them")
        return [candidates.people[int(part)]]
    if is_image_file(part):
        return [_by_appearance(candidates, part, named[part])]
    return [_by_place(candidates, part)]


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit()


def _long_seen(candidates: FaceCandidates) -> list[Person]:
    most = max(len(person.rows) for person in candidates.people)
    return [person for person in candidates.people if len(person.rows) >= BRIEF * most]


def _by_word(candidates: FaceCandidates, word: str) -> Person:
    """ "largest" weighs area by how long the face is seen; "left" and "right" go by its mean position."""
    likely = _long_seen(candidates)
    if word == "largest":
        boxes = [candidates.seen.boxes[person.rows].astype(np.float64) for person in likely]
        return likely[int(np.argmax([(box[:, 2:] - box[:, :2]).prod(axis=1).sum() for box in boxes]))]
    middle = [candidates.centres(person)[:, 0].mean() for person in likely]
    return likely[int(np.argmin(middle) if word == "left" else np.argmax(middle))]


def _by_appearance(candidates: FaceCandidates, name: str, appearance: np.ndarray) -> Person:
    away = np.array([np.linalg.norm(person.appearance - appearance) for person in candidates.people])
    away = np.where(np.isfinite(away), away, np.inf)
    best = int(np.argmin(away))
    if away[best] < candidates.same:
        return candidates.people[best]
    distances = ", ".join(f"{p.number}: {d:.2f}" for p, d in zip(candidates.people[:6], away, strict=False))
    what = f"nobody in the clip looks like {name} (distances {distances}; {candidates.same:.2f} is the limit)"
    raise InputError(what, "choose by number: `sg3 faces INPUT` shows who is there")


# ---- places


def _place(part: str) -> tuple[np.ndarray, float | None] | None:
    """The numbers `[2]` or `[4]` of a point or box and its time; None when it is neither."""
    where, at, when = part.partition("@")
    time = seconds_of(when) if at else None
    try:
        numbers = np.array([float(number) for number in where.split(",")])
    except ValueError:
        return None
    if (at and time is None) or not np.isfinite(numbers).all():
        return None
    if len(numbers) not in (2, 4) or (len(numbers) == 4 and (numbers[2:] <= numbers[:2]).any()):
        return None
    return numbers, time


def _by_place(candidates: FaceCandidates, part: str) -> Person:
    place = _place(part)
    assert place is not None  # checked before
    numbers, time = place
    if (numbers >= 0).all() and (numbers <= 1).all():
        numbers = numbers * np.resize(candidates.size[::-1], len(numbers))
    frame = None if time is None else int(np.argmin(np.abs(candidates.times - time)))
    people = [p for p in candidates.people if frame is None or frame in candidates.seen.frames[p.rows]]
    if not people:
        raise InputError(
            f"no face is seen at {time:g} s; the clip shows {candidates.describe()}", "choose another time"
        )
    scores = [_fit(candidates, person, numbers, frame) for person in people]
    if max(scores) <= 0:
        what = f"no face is at {part}; the clip shows {candidates.describe()}"
        raise InputError(what, "give a point on the face, in pixels or in shares of the frame")
    return people[int(np.argmax(scores))]


def _fit(candidates: FaceCandidates, person: Person, place: np.ndarray, frame: int | None) -> float:
    """How well a person lies at a point or in a box, over its frames or in one: 0 is not at all."""
    boxes = candidates.seen.boxes[person.rows]
    if frame is not None:
        boxes = boxes[candidates.seen.frames[person.rows] == frame]
    if len(place) == 4:
        common = np.minimum(boxes[:, 2:], place[2:]) - np.maximum(boxes[:, :2], place[:2])
        shared = common.clip(min=0).prod(axis=1)
        union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + np.prod(place[2:] - place[:2]) - shared
        return float((shared / union).sum())
    size = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    beside = np.linalg.norm(np.maximum(0, np.maximum(boxes[:, :2] - place, place - boxes[:, 2:])), axis=1) / size
    centred = np.linalg.norm((boxes[:, :2] + boxes[:, 2:]) / 2 - place, axis=1) / size
    return float(np.where(beside < AWAY, 1 / (1 + beside * 4 + centred), 0).sum())
