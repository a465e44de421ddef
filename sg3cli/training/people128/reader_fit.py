"""Fits a face reader in closed form: `python -m sg3cli.training.people128.reader_fit --help`.

Ridge regression of every label on the standardised features of photographs and renders, each picture also mirrored and
softened, because what is read later may be a drawing that is softer than a photograph. People are told apart in the
principal directions of the features, whitened by how pictures of one person differ (linear discriminant analysis,
Fisher 1936, with the covariance within as the measure).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.linalg import eigh
from torch import Tensor

from sg3cli.nets.efficientnet_lite import LITE0, LITE1, EfficientNetLite
from sg3cli.nets.face_reader import SIZE, FaceReader, describe, save_face_reader
from sg3cli.training.people128.pair_data import PictureSet, first_held_out_person, split_groups
from sg3cli.training.people128.reader_labels import reader_labels
from sg3cli.weights.efficientnet import load_efficientnet_lite

VIEWS: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("plain", lambda x: x),
    ("mirrored", lambda x: x.flip(3)),
    ("soft", lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=False)),
)
MIRRORED_LABELS = ("yaw",)
COMPONENTS = 1500  # principal directions in which the heads are fitted
PHOTO_WEIGHT = 3.0  # of a photograph over a render
RIDGE = 0.3
IDENTITY_DIRECTIONS = 300
EMBEDDING = 64


@dataclass(frozen=True)
class Seen:
    """Pictures of one kind after `describe`. features [N,D] float32; labels [N,K], NaN where unknown; identity [N]."""

    features: np.ndarray
    labels: np.ndarray
    identity: np.ndarray
    view: np.ndarray  # [N] number in `VIEWS`
    row: np.ndarray  # [N] in the set


@torch.no_grad()
def look(net: EfficientNetLite, pictures: PictureSet, rows: np.ndarray, at_once: int = 32) -> Seen:
    """Describe `rows` in all views."""
    table = np.stack(list(reader_labels(pictures).values()), 1)
    names = list(reader_labels(pictures))
    features, labels, views, order = [], [], [], []
    for part in np.array_split(rows, max(1, len(rows) // at_once)):
        x = pictures.tensor(part, SIZE)
        for k, (name, view) in enumerate(VIEWS):
            features.append(describe(net, view(x).contiguous(memory_format=torch.channels_last)).numpy())
            sign = np.array([-1 if name == "mirrored" and n in MIRRORED_LABELS else 1 for n in names])
            labels.append(table[part] * sign)
            views.append(np.full(len(part), k))
            order.append(part)
    rows = np.concatenate(order)
    return Seen(np.concatenate(features), np.concatenate(labels), pictures.identity[rows], np.concatenate(views), rows)


def fit(reader: FaceReader, photos: Seen, renders: Seen, ridge: float = RIDGE) -> None:
    """Fill the buffers of `reader` from what was seen."""
    features = np.concatenate([photos.features, renders.features])
    labels = np.concatenate([photos.labels, renders.labels])
    weight = np.concatenate([np.full(len(photos.labels), PHOTO_WEIGHT), np.ones(len(renders.labels))])
    mean = features.mean(0)
    scale = 1 / (features.std(0) + 1e-3)
    z = torch.from_numpy((features - mean) * scale)
    basis = torch.svd_lowrank(z, q=min(COMPONENTS, *z.shape), niter=2)[2]  # [D,Q]
    heads, bias = ridge_heads((z @ basis).double().numpy(), labels, weight, ridge)
    reader.mean.copy_(torch.from_numpy(mean))
    reader.scale.copy_(torch.from_numpy(scale))
    reader.weight.copy_(basis @ torch.from_numpy(heads).float())
    reader.bias.copy_(torch.from_numpy(bias))
    reader.spread.copy_(torch.from_numpy(_spread(labels)))
    reader.projection.copy_(people_apart(z, np.concatenate([photos.identity, renders.identity])))


def _spread(labels: np.ndarray) -> np.ndarray:
    """[K] standard deviation of labels [N,K]; 1 where it is not known or none."""
    known = np.where((~np.isnan(labels)).any(0), labels, 0)
    deviation = np.nanstd(known, 0)
    return np.where(deviation > 0, deviation, 1.0)


def ridge_heads(x: np.ndarray, labels: np.ndarray, weight: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """x [N,Q], labels [N,K] with NaN -> ([Q,K], [K]); the shrinkage is a share of the features' mean square."""
    heads, bias = [], []
    for y in labels.T:
        known = ~np.isnan(y)
        if not known.any():
            heads.append(np.zeros(x.shape[1]))
            bias.append(0.0)
            continue
        w = weight[known] / weight[known].sum()
        a, b = x[known] - w @ x[known], y[known] - w @ y[known]
        gram = a.T @ (w[:, None] * a)
        shrink = ridge * np.trace(gram) / len(gram)
        solved = np.linalg.solve(gram + shrink * np.eye(len(gram)), a.T @ (w * b))
        heads.append(solved)
        bias.append(w @ y[known] - (w @ x[known]) @ solved)
    return np.stack(heads, 1), np.array(bias)


def people_apart(z: Tensor, identity: np.ndarray) -> Tensor:
    """[D,E]: where pictures of one person lie together. z [N,D] standardised features."""
    q = min(IDENTITY_DIRECTIONS, *z.shape)
    basis = torch.svd_lowrank(z, q=q, niter=2)[2]
    x = (z @ basis).double().numpy()
    _, person = np.unique(identity, return_inverse=True)
    counts = np.bincount(person)
    means = np.stack([np.bincount(person, column) for column in x.T], 1) / counts[:, None]
    within = x - means[person]
    inside = within.T @ within / len(x)
    inside += 0.05 * np.trace(inside) / q * np.eye(q)
    among = np.cov(means.T, aweights=np.sqrt(counts))
    vectors = eigh(among, inside)[1][:, ::-1][:, :EMBEDDING]
    return basis @ torch.from_numpy(vectors.copy()).float()


# ---- how well it reads ---------------------------------------------------------------------------------------------


def accuracy(reader: FaceReader, seen: Seen) -> dict[str, dict[str, float]]:
    """Of pictures not fitted on, per label that is known of 20 or more: mean absolute error, correlation, count."""
    plain = seen.view == 0
    read = _read(reader, seen.features[plain])
    table = {}
    for name, y, p in zip(reader.names, seen.labels[plain].T, read.T, strict=True):
        known = ~np.isnan(y)
        if known.sum() >= 20 and np.ptp(y[known]) > 0:
            error, r = float(np.abs(p - y)[known].mean()), float(np.corrcoef(p[known], y[known])[0, 1])
            table[name] = {"error": error, "r": r, "spread": float(y[known].std()), "count": int(known.sum())}
    return table


def _read(reader: FaceReader, features: np.ndarray) -> np.ndarray:
    return reader.read((torch.from_numpy(features) - reader.mean) * reader.scale).numpy()


def smile_auc(reader: FaceReader, seen: Seen, pictures: PictureSet) -> float:
    """How often the smiling one of two London pictures is read as smiling more."""
    plain = seen.view == 0
    smiling = pictures.column("is_smiling")[seen.row[plain]]
    return auc(_read(reader, seen.features[plain])[:, reader.column("smile")], smiling == 1, smiling == 0)


def auc(values: np.ndarray, yes: np.ndarray, no: np.ndarray) -> float:
    """Area under the curve: the share of (yes, no) in which yes is larger; NaN when there are none."""
    if not yes.any() or not no.any():
        return float("nan")
    return float((values[yes][:, None] > values[no][None]).mean())


def verification_auc(embedded: np.ndarray, identity: np.ndarray) -> tuple[float, int]:
    """(AUC of the scalar product over all two pictures of one person against two people, pictures of one person)."""
    i, j = np.triu_indices(len(embedded), 1)
    alike = (embedded @ embedded.T)[i, j]
    same = identity[i] == identity[j]
    order = np.argsort(np.argsort(alike))
    n, m = int(same.sum()), int((~same).sum())
    if not n or not m:
        return float("nan"), n
    return float((order[same].sum() - n * (n - 1) / 2) / (n * m)), n


def held_out(photos: Sequence[PictureSet], edits: PictureSet) -> tuple[list[np.ndarray], np.ndarray]:
    """(rows of each set of photographs, rows of the renders) that are kept for judging, as the trainer keeps them."""
    first = first_held_out_person(photos[0].identity)
    groups = split_groups(edits)[1]
    return [np.flatnonzero(p.identity >= first) for p in photos], np.flatnonzero(
        np.isin(np.asarray(edits.group), groups)
    )


def joined(parts: Iterable[Seen]) -> Seen:
    """Several as one."""
    return Seen(*(np.concatenate(column) for column in zip(*((vars(p).values()) for p in parts), strict=True)))


def fit_reader(
    backbone: Path, photos: Sequence[PictureSet], edits: PictureSet, renders: int, seed: int, lite1: bool = False
) -> tuple[FaceReader, dict[str, object]]:
    """A reader and its score on what it was not fitted on. renders: how many of `edits` to fit on."""
    net = load_efficientnet_lite(backbone, LITE1 if lite1 else LITE0)
    kept, kept_renders = held_out(photos, edits)
    train = [np.setdiff1d(np.arange(len(p)), rows) for p, rows in zip(photos, kept, strict=True)]
    some = np.setdiff1d(np.arange(len(edits)), kept_renders)
    some = np.random.default_rng(seed).permutation(some)[:renders]
    reader = FaceReader(net, tuple(reader_labels(edits)), EMBEDDING)
    seen = [look(net, p, rows) for p, rows in zip(photos, train, strict=True)]
    fit(reader, joined(seen), look(net, edits, some))
    tests = [look(net, p, rows) for p, rows in zip(photos, kept, strict=True)]
    photo_test, render_test = joined(tests), look(net, edits, kept_renders)
    plain = photo_test.view == 0
    z = (torch.from_numpy(photo_test.features[plain]) - reader.mean) * reader.scale
    score, count = verification_auc(reader.embed(z).numpy(), photo_test.identity[plain])
    return reader, {
        "photographs": accuracy(reader, photo_test),
        "renders": accuracy(reader, render_test),
        "smile_auc": smile_auc(reader, tests[0], photos[0]),
        "verification_auc": score,
        "pictures_of_one_person": count,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="Fit a face reader.")
    parser.add_argument("--photos", type=Path, action="append", required=True, help="repeatable")
    parser.add_argument("--edits", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--lite1", action="store_true", help="the backbone is that of lite1")
    parser.add_argument("--renders", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    photos, edits = [PictureSet(p) for p in given.photos], PictureSet(given.edits)
    reader, score = fit_reader(given.backbone, photos, edits, given.renders, given.seed, given.lite1)
    save_face_reader(given.out, reader, {"score": score})
    sys.stdout.write(json.dumps(score, indent=1) + "\n")


if __name__ == "__main__":
    main()
