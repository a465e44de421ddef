"""Directions written, combined, made orthogonal, exported: what `sg3 directions` does with files of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.errors import UsageError
from sg3cli.files import atomic_path, write_arrays
from sg3cli.weights.direction_file import Direction
from sg3cli.weights.kept import said

SCHEMA = 1


def write_direction(path: Path, direction: Direction) -> None:
    """Our own format: the vector, and as one JSON entry all that is known of it."""
    meta = {**direction.meta, "schema": SCHEMA, "name": direction.name, "space": direction.space}
    write_arrays(path, {"direction": direction.vector}, {**meta, "generator": direction.generator})


def export_direction(path: Path, direction: Direction) -> None:
    """As `.safetensors`, or as `.npy`: `[1, w_dim]` of unit length where all layers agree (an InterFaceGAN boundary),
    else `[1, num_ws, w_dim]` as it is. Raises `UsageError` for another suffix, or a direction of S as `.npy`.
    """
    if path.suffix == ".safetensors":
        return write_direction(path, direction)
    if path.suffix != ".npy":
        raise UsageError(f"{path}: nothing is written with the suffix {path.suffix or '(none)'!r}", "use .npy")
    if direction.space == "s":
        raise UsageError(f"{direction.name} is a direction of S, which an .npy cannot say", "use .safetensors")
    rows = direction.vector
    alike = bool((rows == rows[:1]).all())
    array = rows[:1] / np.linalg.norm(rows[0]) if alike else rows[None]
    with atomic_path(path) as temp, open(temp, "wb") as file:
        np.save(file, array.astype(np.float32), allow_pickle=False)


def combined(name: str, parts: Sequence[tuple[Direction, float]]) -> Direction:
    """The weighted sum of directions of one space. Raises `UsageError` for two spaces or two generators."""
    first = parts[0][0]
    for direction, _ in parts[1:]:
        if direction.space != first.space:
            raise UsageError(f"{first.name} is of {first.space.upper()}, {direction.name} of {direction.space.upper()}",
                             "combine directions of one space")  # fmt: skip
    generators = {direction.generator for direction, _ in parts if direction.generator}
    if len(generators) > 1:
        raise UsageError("the directions belong to two generators", "combine directions of one model")
    vector = sum_of([(direction.vector, weight) for direction, weight in parts])
    made = " + ".join(f"{weight:g} {direction.name}" for direction, weight in parts)
    leaks = [(direction.meta.get("leak"), weight) for direction, weight in parts]
    meta: dict[str, Any] = {
        "space": first.space,
        "made": f"combined: {made}",
        "unit": made,
        "leak": summed_leaks(leaks),
    }
    if skin := sum(weight * direction.skin for direction, weight in parts):
        meta["skin"] = round(skin, 4)
    meta |= said(frozenset.intersection(*(direction.keeps for direction, _ in parts)))
    return Direction(name, vector, next(iter(generators), None), meta)


def sum_of(parts: Sequence[tuple[np.ndarray, float]]) -> np.ndarray:
    """Weighted sum of vectors of which some have one row for all layers."""
    rows = max(len(vector) for vector, _ in parts)
    total = np.zeros((rows, parts[0][0].shape[1]))
    for vector, weight in parts:
        total += weight * vector.astype(np.float64)
    return total.astype(np.float32)


def summed_leaks(parts: Sequence[tuple[Any, float]]) -> dict[str, float] | None:
    """What the sum does to every attribute, if that is known of all parts."""
    if not all(isinstance(leak, Mapping) for leak, _ in parts):
        return None
    names = set.intersection(*(set(leak) for leak, _ in parts))
    return {name: round(sum(weight * float(leak[name]) for leak, weight in parts), 4) for name in sorted(names)}
