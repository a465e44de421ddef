"""What an edit costs in W, W+ and S: at equal change of the attribute, how much else changes, and who is still there.

Two families of directions, in each of the three spaces:

* hyperplane, as InterFaceGAN: the normal of the plane between the codes of the attribute's two ends, fitted to samples
  of the space; in S, whose styles have different sizes, to samples in deviations.
* relevance, as StyleCLIP's global directions, with the network that reads attributes in the place of CLIP: each
  coordinate is moved by how well what it does agrees with the attribute alone, and not at all below `BETA`. What a
  coordinate does is the gradient of what is read, in deviations, the mean over a few faces.

The layer that places the image is left alone. Strengths are found by the secant rule until the attribute has changed
by what was asked, on faces that no direction was fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sg3cli.errors import UsageError
from sg3cli.evaluation.face_reading import FaceReading, Readings
from sg3cli.evaluation.report_run import Figures, Row
from sg3cli.evaluation.space_samples import Samples, images_of
from sg3cli.latents.codes import Codes
from sg3cli.latents.moves import Move, ShiftS, ShiftW
from sg3cli.latents.spaces import Statistics
from sg3cli.latents.text_directions import style_direction
from sg3cli.nets.generator import Generator
from sg3cli.training.config import TrainDirectionsConfig
from sg3cli.training.directions.fit import choose_method, fit_direction

EDITED = ("w", "w+", "s")
FAMILIES = ("hyperplane", "relevance")
BETA = 0.6  # least agreement of a coordinate: what it does to other attributes is at most 4/3 of what it does to this
NEAR = 0.1  # of the change that was asked: near enough
TRIES = 6
STRETCH = 3.0  # a strength is at most so many times the one before
END = 0.1  # share of the samples at each end of a hyperplane, at least `FEWEST_AT_END`
FEWEST_AT_END = 30


@dataclass(frozen=True)
class Direction:
    """What strength 1 adds, and the strength at which to begin."""

    move: Move
    start: float


# ---- what each coordinate does -------------------------------------------------------------------------------------


def answers(G: Generator, reading: FaceReading, ws: np.ndarray, first: int) -> Iterator[Row]:
    """For each face from number `first` of ws [n,num_ws,w_dim] on: gradients of what is read, in its deviations.

    `w+` [K,num_ws,w_dim] and `s` [K,channels].
    """
    spread = torch.from_numpy(reading.spread).float()
    device = G.mapping.w_avg.device
    for code in ws[first:]:
        w = torch.from_numpy(code[None].copy()).to(device).requires_grad_(True)
        shift = torch.zeros(1, sum(G.config.style_sizes.values()), device=device, requires_grad=True)
        labels = reading.network(G.synthesis(w, shift=shift).cpu())[0][0] / spread
        rows = [torch.autograd.grad(label, [w, shift], retain_graph=True) for label in labels]
        yield {
            "w+": torch.stack([by_code[0] for by_code, _ in rows]).cpu().numpy(),
            "s": torch.stack([by_style[0] for _, by_style in rows]).cpu().numpy(),
        }


def in_space(space: str, found: dict[str, np.ndarray], G: Generator) -> np.ndarray:
    """The mean answer [K,d] of each coordinate of a space to a step of 1, 0 for what places the image.

    A step in W is one in all layers but the first.
    """
    if space == "s":
        mean = found["s"].mean(axis=0).astype(np.float64)
        mean[:, : G.config.style_sizes["input"]] = 0
        return mean
    mean = found["w+"].mean(axis=0).astype(np.float64)
    mean[:, 0] = 0
    return np.asarray(mean.sum(axis=1) if space == "w" else mean.reshape(len(mean), -1))


# ---- directions ----------------------------------------------------------------------------------------------------


def make_direction(
    family: str, space: str, column: int, samples: Samples, answer: np.ndarray, known: Statistics, G: Generator,
    change: float,
) -> Direction:  # fmt: skip
    """A direction of the attribute number `column`. Raises `UsageError` with the reason where there is none.

    `answer [K,d]`: see `in_space`; `known`: mean and deviation of the space's coordinates; `change` in deviations.
    """
    if family == "hyperplane":
        vector = hyperplane(space, samples, column, known)
    else:
        effects = (answer * known.std).T
        sizes = np.linalg.norm(effects, axis=1, keepdims=True)
        rows = np.divide(effects, sizes, out=np.zeros_like(effects), where=sizes > 1e-12)
        most = float(np.abs(rows[:, column]).max())
        if most < BETA:
            raise UsageError(f"no coordinate agrees with the attribute by {BETA:g}, the best by {most:.2f}", "")
        vector = style_direction(rows, np.eye(len(answer))[column], known.std, BETA)
    slope = float(vector.reshape(-1) @ answer[column])
    if slope <= 0:
        raise UsageError("the attribute does not rise along it", "")
    return Direction(as_move(space, vector, G), change / slope)


def hyperplane(space: str, samples: Samples, column: int, known: Statistics) -> np.ndarray:
    """The normal [d] between the attribute's ends."""
    codes, labels = samples.codes[space], samples.labels[space][:, column]
    share = min(max(END, FEWEST_AT_END / len(codes)), 0.5)
    config = TrainDirectionsConfig(choose_method("auto"), share)
    if space != "s":
        return fit_direction(str(column), codes, labels, config).normal
    scale = np.where(known.std > 1e-9, known.std, np.inf)
    return fit_direction(str(column), (codes - known.mean) / scale, labels, config).normal * known.std


def as_move(space: str, vector: np.ndarray, G: Generator) -> Move:
    """What an edit along a vector [d] of a space does to codes."""
    layers = np.arange(1, G.num_ws)
    if space == "w":
        return ShiftW(vector[None], layers)
    if space == "w+":
        return ShiftW(vector.reshape(G.num_ws, -1), layers)
    kept = vector.copy()
    kept[: G.config.style_sizes["input"]] = 0
    return ShiftS(kept)


# ---- at equal change -----------------------------------------------------------------------------------------------


def at_equal_change(
    G: Generator, judge: FaceReading, ws: np.ndarray, before: Readings, direction: Direction, column: int, change: float
) -> dict[str, np.ndarray]:
    """Edit the faces ws [n,num_ws,w_dim] until the judge's attribute number `column` has changed by `change`.

    `strength`, `changes` [K] (means over the faces, in deviations over people), `identity` (mean cosine), and `reached`
    (whether it came within `NEAR`).
    """
    strength, tried = direction.start, []
    for _ in range(TRIES):
        codes = direction.move(Codes(ws), np.full(len(ws), strength, np.float32))
        after = judge.read(list(images_of(G, codes)))
        changes = ((after.labels - before.labels) / judge.spread).mean(axis=0)
        cosine = float((after.embedding * before.embedding).sum(axis=1).mean())
        tried.append((abs(changes[column] - change), strength, changes, cosine))
        if tried[-1][0] <= NEAR * abs(change):
            break
        strength = next_strength([(s, c[column]) for _, s, c, _ in tried], change)
    off, strength, changes, cosine = min(tried, key=lambda row: row[0])
    return {
        "strength": np.array(strength), "changes": changes, "identity": np.array(cosine),
        "reached": np.array(off <= NEAR * abs(change)),
    }  # fmt: skip


def next_strength(tried: Sequence[tuple[float, float]], change: float) -> float:
    """By the secant through the last two of (strength, change), the first of which is (0, 0)."""
    (s0, c0), (s1, c1) = ((0.0, 0.0), *tried)[-2:]
    slope = (c1 - c0) / (s1 - s0) if s1 != s0 else 0.0
    wanted = s1 + (change - c1) / slope if slope * s1 * change > 0 else STRETCH * s1
    least, most = sorted((s1 / STRETCH, s1 * STRETCH))
    return min(max(wanted, least), most)


def leak(changes: np.ndarray, column: int) -> float:
    """Root mean square of what all other attributes have changed by."""
    return float(np.sqrt(np.square(np.delete(changes, column)).mean()))


def averages(rows: Sequence[Figures]) -> dict[tuple[str, str], dict[str, float | None]]:
    """Mean identity and leak of each (family, space) over the attributes that every space reached, and how many."""
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for family in FAMILIES:
        mine = [row for row in rows if row["family"] == family]
        reached = [{row["attribute"] for row in mine if row["space"] == s and row["leak"] is not None} for s in EDITED]
        common = set.intersection(*reached) if mine else set()
        for space in EDITED:
            kept = [row for row in mine if row["space"] == space and row["attribute"] in common]
            mean = {key: float(np.mean([row[key] for row in kept])) if kept else None for key in ("identity", "leak")}
            found[family, space] = mean | {"attributes": float(len(kept))}
    return found
