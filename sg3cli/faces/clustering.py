"""Who is who in a clip: sightings of faces become stretches, and stretches become people.

A stretch is one track within one shot. Stretches are joined by what the face looks like (`appearance`) and, within a
shot, by where it was; two that are seen in the same frame are never one person. People are numbered from 0 by their
first appearance; those seen only for an instant come last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from sg3cli.faces.appearance import SAME, unit

INSTANT = 0.15  # seconds: who is seen for less is numbered last
GAP = 0.5  # seconds: a track that is lost for longer may have come back as somebody else
STRANGER = 1.6  # times the distance of `same`: what so unlike faces do within one track is a swap
NEIGHBOURS = 3  # appearances on each side of a suspected swap
KNOWN = 1.4  # times the distance of `same` that a face is allowed which went on where it was
REACH = 1.0  # face sizes within which a face that was lost for at most `GAP` goes on


@dataclass(frozen=True)
class Sightings:
    """All faces of a clip in order of frames: one row per face in a frame."""

    frames: np.ndarray  # [n] int64
    tracks: np.ndarray  # [n] int64, numbers of the detector
    boxes: np.ndarray  # [n, 4] float32
    landmarks: np.ndarray  # [n, 68, 2] float32
    scores: np.ndarray  # [n] float32
    yaws: np.ndarray  # [n] float32, degrees
    appearances: np.ndarray  # [n, K] float32, nan where they were not taken

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: np.ndarray) -> Sightings:
        """The rows `rows`."""
        return Sightings(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


@dataclass(frozen=True)
class Person:
    """Somebody in the clip: the rows of the sightings that show them, in order of frames."""

    number: int
    rows: np.ndarray  # [k] int64
    appearance: np.ndarray  # [K] unit vector, nan when it was never taken


@dataclass
class _Group:
    """Rows that are taken for one person so far."""

    rows: np.ndarray  # sorted
    frames: np.ndarray
    appearance: np.ndarray
    weight: int  # appearances that `appearance` rests on


def find_people(seen: Sightings, shots: np.ndarray, times: np.ndarray, same: float = SAME) -> list[Person]:
    """The people of a clip; `shots [T]` and `times [T]` of its frames, `same` the distance of one person's own."""
    groups: list[_Group] = []
    stretches = _stretches(seen, shots, times, same)
    for shot in sorted({int(shots[s.frames[0]]) for s in stretches}):
        here = [s for s in stretches if shots[s.frames[0]] == shot]
        here = _merged(here, lambda a, b: _distance_within(a, b, seen, times, same))
        groups = _matched(groups, here, seen, same)
    groups = _merged(groups, lambda a, b: _distance(a, b) / same)
    frame = np.median(np.diff(times)) if len(times) > 1 else 0.0
    longest = max((len(g.rows) for g in groups), default=0)

    def order(group: _Group) -> tuple[bool, int, int]:
        brief = len(group.rows) * frame < INSTANT and len(group.rows) < longest
        return brief, int(group.frames[0]), int(group.rows[0])

    return [Person(k, g.rows, g.appearance) for k, g in enumerate(sorted(groups, key=order))]


def median_appearance(appearances: np.ndarray) -> np.ndarray:
    """The usual appearance `[K]` of one face from `appearances [n, K]`, nan when none was taken."""
    taken = appearances[np.isfinite(appearances).all(axis=1)]
    return unit(np.median(taken, axis=0)) if len(taken) else np.full(appearances.shape[1], np.nan, np.float32)


# ---- stretches


def _stretches(seen: Sightings, shots: np.ndarray, times: np.ndarray, same: float) -> list[_Group]:
    """Tracks cut at shots, at long absences and where the face turns into another one."""
    found = []
    for track in np.unique(seen.tracks):
        rows = np.flatnonzero(seen.tracks == track)
        frames = seen.frames[rows]
        parted = (np.diff(times[frames]) > GAP + 1e-6) | (np.diff(shots[frames]) > 0)
        for part in np.split(rows, np.flatnonzero(parted) + 1):
            found += _without_swaps(part, seen, same)
    return [_group(rows, seen) for rows in found]


def _without_swaps(rows: np.ndarray, seen: Sightings, same: float) -> list[np.ndarray]:
    """The stretch, cut where the appearances before and after are those of two strangers."""
    taken = np.flatnonzero(np.isfinite(seen.appearances[rows]).all(axis=1))
    appearances = seen.appearances[rows[taken]]
    if len(taken) < 2 * NEIGHBOURS:
        return [rows]
    places = range(NEIGHBOURS, len(taken) - NEIGHBOURS + 1)
    pairs = [
        (unit(appearances[k - NEIGHBOURS : k].mean(0)), unit(appearances[k : k + NEIGHBOURS].mean(0))) for k in places
    ]
    apart = np.array([np.linalg.norm(before - after) for before, after in pairs])
    k = int(np.argmax(apart))
    if apart[k] < STRANGER * same:
        return [rows]
    cut = int(taken[places[k]])
    return [*_without_swaps(rows[:cut], seen, same), *_without_swaps(rows[cut:], seen, same)]


def _group(rows: np.ndarray, seen: Sightings) -> _Group:
    appearances = seen.appearances[rows]
    weight = int(np.isfinite(appearances).all(axis=1).sum())
    return _Group(rows, seen.frames[rows], median_appearance(appearances), weight)


# ---- joining


def _distance(a: _Group, b: _Group) -> float:
    """Distance of appearances; infinite for two seen together or when one appearance is unknown."""
    if not (a.weight and b.weight) or np.intersect1d(a.frames, b.frames).size:
        return np.inf
    return float(np.linalg.norm(a.appearance - b.appearance))


def _distance_within(a: _Group, b: _Group, seen: Sightings, times: np.ndarray, same: float) -> float:
    """Distance of two stretches of one shot as a share of what is allowed."""
    first, then = (a, b) if a.frames[0] <= b.frames[0] else (b, a)
    if np.intersect1d(a.frames, b.frames).size:
        return np.inf
    apart = _distance(a, b)
    if times[then.frames[0]] - times[first.frames[-1]] > GAP or then.frames[0] < first.frames[-1]:
        return apart / same
    before, after = seen.boxes[first.rows[-1]], seen.boxes[then.rows[0]]
    size = max(_size(before), _size(after))
    near = np.linalg.norm((before[:2] + before[2:] - after[:2] - after[2:]) / 2) < REACH * size
    if not near or not 0.5 < _size(before) / _size(after) < 2:
        return apart / same
    return 0.9 if not np.isfinite(apart) else apart / (KNOWN * same)


def _size(box: np.ndarray) -> float:
    return float(max((box[2:] - box[:2]).max(), 1e-6))


def _merged(groups: Sequence[_Group], distance: Callable[[_Group, _Group], float]) -> list[_Group]:
    """Groups joined, the most alike first, until none are closer than 1."""
    groups = list(groups)
    gaps = np.array([[distance(a, b) if i < j else np.inf for j, b in enumerate(groups)] for i, a in enumerate(groups)])
    while len(groups) > 1 and gaps.min() < 1:
        i, j = divmod(int(gaps.argmin()), len(groups))
        joined = _joined(groups[i], groups[j])
        groups[i] = joined
        del groups[j]
        gaps = np.delete(np.delete(gaps, j, 0), j, 1)
        for k, other in enumerate(groups):
            if k != i:
                gaps[min(i, k), max(i, k)] = distance(joined, other)
    return groups


def _joined(a: _Group, b: _Group) -> _Group:
    rows = np.sort(np.concatenate([a.rows, b.rows]))
    known = [g for g in (a, b) if g.weight]
    appearance = unit(np.sum([g.weight * g.appearance for g in known], axis=0)) if known else a.appearance
    return _Group(rows, np.sort(np.concatenate([a.frames, b.frames])), appearance, a.weight + b.weight)


def _matched(known: list[_Group], here: list[_Group], seen: Sightings, same: float) -> list[_Group]:
    """`known` people with those of the next shot: the assignment that is best over all, within `same`."""
    if not known or not here:
        return [*known, *here]
    from scipy.optimize import linear_sum_assignment

    gaps = np.array([[_distance(a, b) for b in here] for a in known])
    cost = np.where(gaps < same, gaps, 2 * same)
    pairs = [(i, j) for i, j in zip(*linear_sum_assignment(cost), strict=True) if gaps[i, j] < same]
    joined = {i: _joined(known[i], here[j]) for i, j in pairs}
    matched = {j for _, j in pairs}
    return [*(joined.get(i, g) for i, g in enumerate(known)), *(g for j, g in enumerate(here) if j not in matched)]
