"""Directions from scored codes, in two ways.

InterFaceGAN (Shen et al. 2020, arXiv:2005.09635) tells the codes with the highest and the lowest scores apart by a
hyperplane; its normal is the direction. That is made for scores of the generator's own images. A regression of the
codes on all labels at once is made for labels of photographs, whose codes an encoder found: it asks how the codes
change with a label while the others are held. A hyperplane there would look at whatever the encoder betrays the label
by, also where the generator does not listen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sg3cli.errors import ModelError, UsageError
from sg3cli.files import write_arrays
from sg3cli.latents.projection import condition
from sg3cli.metrics.linear_models import missing, separating_plane
from sg3cli.training.config import TrainDirectionsConfig

FEWEST = 10  # scored codes at each end below which no hyperplane is worth its name
TRAINED = 0.7  # share of the extreme codes that the hyperplane is fitted to; the others judge it


@dataclass
class Fitted:
    """A direction and how good it is. `normal` [w_dim] has length 1; strength 1 adds `length` times it."""

    name: str
    normal: np.ndarray
    length: float
    unit: str
    per_score: float | None = None  # length of the change that goes with a score of 1, where that is known
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def vector(self) -> np.ndarray:
        """[1, w_dim] float32: what strength 1 adds to every code."""
        return (self.length * self.normal)[None].astype(np.float32)


def choose_method(wanted: str, own_images: bool = True) -> str:
    """`auto`: the regression for photographs, for the model's own images an SVM where scikit-learn is installed.

    Raises ModelError when the SVM is demanded and is not here.
    """
    if wanted == "auto" and not own_images:
        return "regression"
    reason = missing()
    if wanted == "svm" and reason is not None:
        raise ModelError(f"--method svm cannot be used: {reason}", "or take --method logistic")
    return ("svm" if reason is None else "logistic") if wanted == "auto" else wanted


def fit_directions(
    names: Sequence[str],
    codes: np.ndarray,
    scores: np.ndarray,
    config: TrainDirectionsConfig,
    groups: Sequence[str] | None = None,
) -> dict[str, Fitted]:
    """codes [N, w_dim], scores [N, K] of `names` -> a direction for each; see `fit_direction`.

    `groups [N]` say where each row comes from (the data set it was taken from, say). A direction then tells rows of one
    group apart, never one group from another: both ends have as many rows of each, and a regression asks within them.
    """
    if config.method != "regression":
        return {n: fit_direction(n, codes, column, config, groups) for n, column in zip(names, scores.T, strict=True)}
    whole = np.isfinite(scores).all(axis=1)
    codes, scores = codes[whole].astype(np.float64), scores[whole].astype(np.float64)
    groups = None if groups is None else np.asarray(groups)[whole].tolist()
    ends = {name: balanced_ends(name, each, config.share, groups) for name, each in zip(names, scores.T, strict=True)}
    rng = np.random.default_rng(config.seed)
    train, test = _cut(rng.permutation(len(scores)))
    inner_codes, inner_scores = (_within(values, groups) for values in (codes, scores))
    columns = regress(inner_codes[train], inner_scores[train])
    found = {}
    for name, column, column_scores in zip(names, columns, scores.T, strict=True):
        size = float(np.linalg.norm(column))
        if not np.isfinite(size) or size == 0:
            raise UsageError(f"no direction of {name} was found", "are the labels those of these pictures?")
        at = codes @ (column / size)
        low, high = ends[name]
        scored = np.intersect1d(np.concatenate(ends[name]), test)
        middle = (at[np.intersect1d(low, train)].mean() + at[np.intersect1d(high, train)].mean()) / 2
        truth = np.isin(scored, high)
        report = {
            "n": len(scores), "at_each_end": len(low), "method": "regression",
            "accuracy": _accuracy(at[scored] - middle, truth), "auc": auc(at[scored], truth),
        }  # fmt: skip
        found[name] = Fitted(name, column / size, size * column_scores.std(), "", size, report)
    return found


def regress(codes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Least squares w = M a + constant: [K, w_dim], what a score of 1 adds to a code when the other scores are held."""
    spread = scores.std(0)
    spread[spread == 0] = 1
    a = (scores - scores.mean(0)) / spread
    gram = a.T @ a / len(a) + 1e-3 * np.eye(a.shape[1])  # attributes that say the same share what they explain
    return np.asarray(np.linalg.solve(gram, a.T @ (codes - codes.mean(0)) / len(a)) / spread[:, None])


def fit_direction(
    name: str,
    codes: np.ndarray,
    scores: np.ndarray,
    config: TrainDirectionsConfig,
    groups: Sequence[str] | None = None,
) -> Fitted:
    """codes [N, w_dim], scores [N] (nan: unknown) -> the direction along which the score rises.

    Raises UsageError when the scores are too few or all the same.
    """
    known = np.isfinite(scores)
    codes, scores = codes[known].astype(np.float64), scores[known].astype(np.float64)
    ends = balanced_ends(name, scores, config.share, None if groups is None else np.asarray(groups)[known].tolist())
    rng = np.random.default_rng(config.seed)
    train, test = (np.concatenate(part) for part in zip(*(_cut(rng.permutation(end)) for end in ends), strict=True))
    middle = (scores[ends[0]].mean() + scores[ends[1]].mean()) / 2
    labels = scores > middle
    centre, spread = codes.mean(0), codes.std(0).mean() or 1.0
    inputs = (codes - centre) / spread  # one scale for all axes: the normal stays that of W
    fit = {"svm": separating_plane, "logistic": _logistic}[config.method]
    normal, bias = fit(inputs[train], labels[train])
    size = float(np.linalg.norm(normal))
    if not np.isfinite(size) or size == 0:
        raise UsageError(f"no direction of {name} was found", "are the labels those of these pictures?")
    at = (inputs @ normal + bias) / size
    rest = np.setdiff1d(np.arange(len(scores)), np.concatenate(ends))
    report = {
        "n": len(scores), "at_each_end": len(ends[0]), "method": config.method,
        "accuracy": _accuracy(at[test], labels[test]), "accuracy_train": _accuracy(at[train], labels[train]),
        "accuracy_rest": _accuracy(at[rest], labels[rest]) if len(rest) else None,
        "auc": auc(at[test], labels[test]),
    }  # fmt: skip
    normal = normal / size
    return Fitted(name, normal, float((codes @ normal).std()), "", None, report)


def set_unit(direction: Fitted, codes: np.ndarray, scores: np.ndarray, amount: float | None) -> None:
    """Scale strength 1 to `amount` of the attribute (None: one standard deviation) as far as the labels tell.

    Where the fit has not said what goes with a score of 1, the score is regressed on the place along the direction, and
    the deviation is that of the codes. Raises UsageError when the score does not rise along the direction.
    """
    known = np.isfinite(scores)
    along = codes[known].astype(np.float64) @ direction.normal
    known_scores = scores[known].astype(np.float64)
    slope = float(np.cov(along, known_scores)[0, 1] / max(along.var(ddof=1), 1e-30))
    deviation = float(along.std())
    if direction.per_score is not None:
        direction.length = direction.per_score * (known_scores.std() if amount is None else amount)
        direction.unit = f"{'one standard deviation' if amount is None else format(amount, 'g')} of {direction.name}"
    elif amount is not None:
        if slope <= 0:
            raise UsageError(f"{direction.name} does not rise along its direction", "leave its --unit out")
        direction.length, direction.unit = amount / slope, f"{amount:g} of {direction.name} by its labels"
    else:
        direction.length, direction.unit = deviation, "one standard deviation of the codes along it"
    direction.report["correlation"] = float(np.corrcoef(along, known_scores)[0, 1])
    direction.report["deviations"] = direction.length / max(deviation, 1e-30)


def calibrate(
    direction: Fitted, respond: Callable[[np.ndarray], float], deviation: float, amount: float | None
) -> None:
    """Scale strength 1 to `amount` of the score, or to its standard deviation, by what the images really do.

    `respond(vector [1, w_dim])` is the mean change of the score when the vector is added to codes. A response is not
    quite linear, so it is asked twice; the length stays within ten times of what the codes suggest. Raises UsageError
    when the score does not rise.
    """
    aim, start = amount or deviation, direction.length
    for _ in range(2):
        change = respond(direction.vector)
        if not change > 0:
            raise UsageError(
                f"{direction.name} does not rise along its direction", "more --samples or another --method"
            )
        direction.length = float(np.clip(direction.length * aim / change, start / 10, start * 10))
    said = format(amount, "g") if amount else "one standard deviation"
    direction.unit = f"{said} of {direction.name}, as measured"
    direction.report["deviations"] *= direction.length / start
    direction.report["response"] = respond(direction.vector)


def apart_from(direction: Fitted, others: Mapping[str, np.ndarray]) -> Fitted:
    """The direction without what it shares with `others` (each [rows, w_dim]): conditional manipulation."""
    if not others:
        return direction
    normal = condition(direction.normal[None], list(others.values()))[0].astype(np.float64)
    kept = float(normal @ direction.normal) / float(np.linalg.norm(normal))
    report = direction.report | {"given": sorted(others), "cosine_before": kept}
    return replace(direction, normal=normal / np.linalg.norm(normal), report=report)


def cosines(directions: Sequence[Fitted]) -> dict[str, dict[str, float]]:
    """How alike every two directions are: {name: {other name: cosine}}."""
    return {
        a.name: {b.name: round(float(a.normal @ b.normal), 4) for b in directions if b.name != a.name}
        for a in directions
    }


def leaks_by_labels(direction: Fitted, codes: np.ndarray, scores: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Change of every attribute by strength 1, in its standard deviations, as far as the labels tell.

    Each score is regressed on the codes (ridge); what the pictures really do, only a classifier can say.
    """
    found = {}
    for name, column in zip(names, scores.T, strict=True):
        known = np.isfinite(column)
        x, y = codes[known].astype(np.float64), column[known].astype(np.float64)
        x, y = x - x.mean(0), (y - y.mean()) / max(float(y.std()), 1e-12)
        gram = x.T @ x / len(x)
        slope = np.linalg.solve(gram + 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y / len(x))
        found[name] = round(float(direction.length * (direction.normal @ slope)), 4)
    return found


def save_direction(folder: Path, direction: Fitted, generator: str, facts: Mapping[str, Any]) -> Path:
    """Write NAME.safetensors in the format of `directions.load`."""
    path = folder / f"{direction.name}.safetensors"
    meta = {
        "schema": 1, "name": direction.name, "generator": generator, "space": "w", "unit": direction.unit,
        "norm": direction.length, **facts, **direction.report,
    }  # fmt: skip
    write_arrays(path, {"direction": direction.vector}, meta)
    return path


def auc(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Share of the pairs of one positive and one negative that `scores` puts in order; None without such pairs."""
    from scipy.stats import rankdata

    positive = int(labels.sum())
    negative = len(labels) - positive
    if not positive or not negative:
        return None
    ranks = rankdata(scores)[labels].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * negative))


def balanced_ends(
    name: str, scores: np.ndarray, share: float, groups: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the lowest and of the highest scores, of each group as many at both ends; see `_ends`.

    Raises `UsageError` when no group has both.
    """
    if groups is None:
        return _ends(name, scores, share)
    lows, highs, labels = [], [], np.asarray(groups)
    for group in np.unique(labels):
        rows = np.flatnonzero(labels == group)
        order = rows[np.argsort(scores[rows], kind="stable")]
        count = min(max(round(share * len(rows)), 1), len(rows) // 2)
        low, high = order[:count], order[len(order) - count :]
        apart = int(np.count_nonzero(scores[low] < scores[high][::-1]))
        lows.append(low[:apart])
        highs.append(high[len(high) - apart :])
    found = np.concatenate(lows), np.concatenate(highs)
    if len(found[0]) < FEWEST // 2:
        what = f"{name} differs within no group of --balance" if not len(found[0]) else f"{name} has {len(found[0])}"
        hint = "label pictures of each group in which it differs, or take a larger --share"
        raise UsageError(what if not len(found[0]) else f"{what} rows at each end when groups are balanced", hint)
    return found


def _within(values: np.ndarray, groups: Sequence[str] | None) -> np.ndarray:
    """`values [N, K]` with each group's mean moved to the mean of all."""
    if groups is None:
        return values
    labels, result = np.asarray(groups), values.copy()
    for group in np.unique(labels):
        result[labels == group] += values.mean(0) - values[labels == group].mean(0)
    return result


def _ends(name: str, scores: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the lowest and of the highest scores, `share` of all at each end but `FEWEST` at least.

    Of an attribute that is there or not, an end may reach into the other's score; it keeps to its own side.
    """
    if len(scores) < 2 * FEWEST:
        raise UsageError(f"{name} has {len(scores)} labels", f"a direction needs {2 * FEWEST}, better thousands")
    order = np.argsort(scores, kind="stable")
    count = min(max(round(share * len(scores)), FEWEST), len(scores) // 2)
    low, high = order[:count], order[-count:]
    shared = scores[low].max()
    if shared == scores[high].min():
        below, above = low[scores[low] < shared], high[scores[high] > shared]
        if not len(below) and not len(above):
            raise UsageError(f"{name} has one value only, {shared:g}", "label pictures in which it differs")
        low, high = below if len(below) else low, above if len(above) else high
    if min(len(low), len(high)) < FEWEST // 2:
        few = min(len(low), len(high))
        raise UsageError(f"{name} has {few} labels that differ from the others", "label more pictures of that kind")
    return low, high


def _cut(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """70 % to fit, the others to judge; one at least on each side."""
    count = min(max(round(TRAINED * len(rows)), 1), len(rows) - 1)
    return rows[:count], rows[count:]


def _accuracy(at: np.ndarray, labels: np.ndarray) -> float:
    return float(((at > 0) == labels).mean())


def _logistic(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Logistic regression with a quadratic penalty, to its minimum."""
    inputs, signs = torch.from_numpy(x), torch.from_numpy(np.where(labels, 1.0, -1.0))
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-7)

    def closure() -> torch.Tensor:
        solver.zero_grad()
        margins = signs * (inputs @ weights[:-1] + weights[-1])
        loss = torch.nn.functional.softplus(-margins).sum() + weights[:-1].square().sum() / 2
        loss.backward()
        return loss

    solver.step(closure)
    found = weights.detach().numpy()
    return found[:-1], float(found[-1])
