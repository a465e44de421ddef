"""How far the coordinates of a latent space and the attributes of its images belong to each other one by one.

DCI (Eastwood & Williams 2018): attributes are predicted from codes by linear models with a penalty; the absolute
weights of standardised values are how important each coordinate is for each attribute. Disentanglement says whether a
coordinate serves one attribute, completeness whether an attribute is served by one coordinate, informativeness how
much of the attributes is predicted at all. MIG (Chen et al. 2018) asks the same of mutual information. Separability
(Karras et al. 2019) is the exponential of what is left unknown of all attributes when a hyperplane has guessed them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg3cli.metrics.linear_models import separating_plane, sparse_weights

TRAINED = 0.7  # share of the codes that models are fitted to; the others judge them
MOST_BINS, IN_A_BIN = 20, 25  # of MIG: bins at most, and codes that each has at least
LEAST_GAIN = 0.05  # share of an attribute's variance below which its weights say nothing


@dataclass(frozen=True)
class Dci:
    """Scores from 0 to 1. `explained` [K]: share of the variance of each attribute on codes that were held out.

    `disentanglement` and `completeness` are of the attributes that are `predicted` [K], nan when none is.
    """

    disentanglement: float
    completeness: float
    informativeness: float
    explained: np.ndarray
    predicted: np.ndarray


def dci(codes: np.ndarray, factors: np.ndarray, seed: int = 0) -> Dci:
    """Of codes [N,d] and attributes [N,K] that vary; needs scikit-learn."""
    train, test = halves(len(codes), seed)
    x, y = (_standardised(values, train) for values in (codes, factors))
    weights = np.stack([sparse_weights(x[train], column) for column in y[train].T], axis=1)
    left = np.square(y[test] - x[test] @ weights).mean(axis=0)
    explained = np.clip(1 - left / np.square(y[test]).mean(axis=0).clip(min=1e-12), 0, 1)
    predicted = explained >= LEAST_GAIN
    scores = entropy_scores(np.abs(weights[:, predicted])) if predicted.any() else (float("nan"), float("nan"))
    return Dci(*scores, float(explained.mean()), explained, predicted)


def entropy_scores(importance: np.ndarray) -> tuple[float, float]:
    """(disentanglement, completeness) of importances [d,K] >= 0, each attribute with one above 0.

    Coordinates count by their share of all importance, attributes count alike.
    """
    rows, columns = importance.sum(axis=1), importance.sum(axis=0)
    used = rows > 0
    of_one = 1 - _entropy(importance[used] / rows[used, None], axis=1) / np.log(max(importance.shape[1], 2))
    by_one = 1 - _entropy(importance / columns, axis=0) / np.log(max(len(importance), 2))
    return float((of_one * rows[used]).sum() / rows.sum()), float(by_one.mean())


def _entropy(shares: np.ndarray, axis: int) -> np.ndarray:
    """In nats, of shares that sum to 1 along the axis."""
    logs = np.log(shares, out=np.zeros_like(shares, dtype=np.float64), where=shares > 0)
    return np.asarray(-(shares * logs).sum(axis=axis))


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to fit and rows to judge by, at random."""
    order = np.random.default_rng(seed).permutation(count)
    first = round(TRAINED * count)
    return order[:first], order[first:]


def _standardised(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """[N,d] in deviations from the mean, both of `rows`; a column that does not vary becomes 0."""
    values = values.astype(np.float64)
    apart = values - values[rows].mean(axis=0)
    spread = values[rows].std(axis=0)
    varies = spread > 1e-9 * np.abs(values[rows]).max(axis=0).clip(min=1e-12)
    standard: np.ndarray = np.divide(apart, spread, out=np.zeros_like(apart), where=varies)
    return standard


# ---- mutual information --------------------------------------------------------------------------------------------


def bins_for(count: int) -> int:
    """Into how many bins of equal counts `count` values are sorted."""
    return int(np.clip(np.sqrt(count / IN_A_BIN) * 2, 2, MOST_BINS))


def mutual_information_gap(codes: np.ndarray, factors: np.ndarray, bins: int) -> float:
    """MIG: the mean over attributes [N,K] of the gap between the two coordinates of codes [N,d] that say most of it.

    Values are sorted into `bins` of equal counts; information counts as a share of the attribute's entropy.
    """
    information, entropies = mutual_information(codes, factors, bins)
    if len(information) < 2:
        information = np.concatenate([information, np.zeros_like(information)])
    best = np.sort(information, axis=0)[-2:]
    return float(((best[1] - best[0]) / entropies.clip(min=1e-12)).mean())


def mutual_information(codes: np.ndarray, factors: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """(information [d,K], entropy [K]) in nats, of values sorted into bins of equal counts."""
    known = [_one_hot(column, bins) for column in factors.T]
    entropies = np.array([_entropy(table.mean(axis=0), axis=0) for table in known])
    information = np.empty((codes.shape[1], len(known)))
    for i, column in enumerate(codes.T):
        here = _one_hot(column, bins)
        for j, table in enumerate(known):
            joint = here.T @ table / len(codes)
            apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
            ratio = np.divide(joint, apart, out=np.ones_like(joint), where=joint > 0)
            information[i, j] = (joint * np.log(ratio)).sum()
    return information, entropies


def _one_hot(values: np.ndarray, bins: int) -> np.ndarray:
    """[N] -> [N,bins]: which bin of equal counts a value is in; equal values share one."""
    edges = np.quantile(values, np.arange(1, bins) / bins)
    return np.eye(bins)[np.searchsorted(edges, values, side="left")]


# ---- hyperplanes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Separability:
    """`score`: exp of the summed conditional entropies, 1 when every attribute is guessed. `accuracy` [K]."""

    score: float
    accuracy: np.ndarray


def separability(codes: np.ndarray, factors: np.ndarray, seed: int = 0) -> Separability:
    """Of codes [N,d] and attributes [N,K]: whether each is high or low, guessed by a hyperplane on held-out codes.

    As published, only the clearer half of the codes is asked of each attribute: its lowest and its highest quarter.
    Needs scikit-learn.
    """
    entropies, accuracies = [], []
    for column in factors.T:
        order = np.argsort(column, kind="stable")
        quarter = max(len(order) // 4, 2)
        chosen = np.concatenate([order[:quarter], order[-quarter:]])
        labels = np.repeat([False, True], quarter)
        train, test = halves(len(chosen), seed)
        x = _standardised(codes[chosen], train)
        if len(np.unique(labels[train])) < 2:
            raise ValueError(f"{len(codes)} codes are too few for hyperplanes")
        weights, bias = separating_plane(x[train], labels[train])
        guessed = x[test] @ weights + bias > 0
        entropies.append(conditional_entropy(guessed, labels[test]))
        accuracies.append(float((guessed == labels[test]).mean()))
    return Separability(float(np.exp(np.sum(entropies))), np.array(accuracies))


def conditional_entropy(guessed: np.ndarray, labels: np.ndarray) -> float:
    """H(labels | guessed) in nats of two columns [N] of booleans."""
    total = 0.0
    for side in (False, True):
        inside = labels[guessed == side]
        if len(inside):
            share = float(inside.mean())
            total += len(inside) / len(labels) * float(_entropy(np.array([share, 1 - share]), axis=0))
    return total
