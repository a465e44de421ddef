"""Scores of a generator with its encoder and directions, on photographs and pairs that are held out.

Photographs: PSNR and Lite0 distance inside of the face, after three ReStyle steps. Pairs: the change that an edit makes
to the drawing against the change of the truth,

    |mask ((y_edited - y) - (B - A))|^2 / |mask (B - A)|^2        0: perfect, 1: as good as no edit, above: worse

as a ratio of sums over the held-out pairs in which only this attribute changes.

`python -m sg3cli.training.people128.pair_scores --help` prints a table of several models.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from sg3cli.files import write_json
from sg3cli.nets.efficientnet_lite import PerceptualDistance
from sg3cli.nets.restyle import average_image, restyle_codes
from sg3cli.training.people128.label_directions import SPECS
from sg3cli.training.people128.pair_data import (
    ATTRIBUTES,
    Pairs,
    PictureSet,
    attribute_index,
    first_held_out_person,
    make_pairs,
    photo_rows,
    split_groups,
)
from sg3cli.training.people128.pair_net import PairNet, load_start
from sg3cli.training.people128.pair_trainer import change_mask
from sg3cli.weights.bundle import load_model
from sg3cli.weights.efficientnet import load_efficientnet_lite

DIFFERS = 0.15  # of the change mask, as in training
FOREHEAD = 0.55  # the face ends this far above the brows, in shares of the height from chin to brows
V1_DIRECTIONS = {
    "age": "age",
    "smile": "smile",
    "mouth_open": "mouth-open",
    "eyes_closed": "eyes-closed",
    "yaw": "yaw",
    "pitch": "pitch",
    "glasses": "glasses",
    "beard": "beard",
    "makeup": "makeup",
}


def face_mask(landmarks: Tensor, size: int) -> Tensor:
    """landmarks [N,68,2] in pixels -> [N,1,R,R], 1 inside of jaw, brows and forehead."""
    import cv2

    masks = np.zeros((len(landmarks), 1, size, size), np.float32)
    for mask, points in zip(masks, landmarks.numpy(), strict=True):
        brows, chin = points[17:27], points[8]
        forehead = brows + FOREHEAD * (brows.mean(0) - chin)
        hull = cv2.convexHull(np.concatenate([points[:27], forehead]).round().astype(np.int32))
        cv2.fillConvexPoly(mask[0], hull, 1.0)
    return torch.from_numpy(masks)


def psnr(y: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """[N] dB of pictures [N,3,R,R] in [-1,1], inside of mask [N,1,R,R]."""
    squared = (y.clamp(-1, 1) - x).square().mean(1, keepdim=True)
    weight = torch.ones_like(squared) if mask is None else mask
    return 10 * torch.log10(4 * weight.sum((1, 2, 3)) / (squared * weight).sum((1, 2, 3)))


@torch.no_grad()
def photo_scores(
    net: PairNet, perceptual: PerceptualDistance, photos: PictureSet, rows: np.ndarray, size: int = 128
) -> dict[str, float]:
    """Means over photographs of the inversion after three steps: `face_psnr`, `psnr`, `face_lite0`."""
    start = average_image(net.G, net.encoder.config.input_size)
    totals: dict[str, float] = {}
    for part in _parts(rows):
        x = photos.tensor(part, size)
        y = net.G.synthesis(restyle_codes(net.encoder, net.G, x, 3, start)).clamp(-1, 1)
        mask = face_mask(torch.from_numpy(photos.landmarks[part]) * size, size)
        values = {"face_psnr": psnr(y, x, mask), "psnr": psnr(y, x), "face_lite0": perceptual(y, x, mask)}
        for name, value in values.items():
            totals[name] = totals.get(name, 0.0) + float(value.sum())
    return {name: total / len(rows) for name, total in totals.items()}


@torch.no_grad()
def pair_scores(net: PairNet, pictures: PictureSet, pairs: Pairs, size: int = 128) -> dict[str, float]:
    """{attribute: squared error of the drawn change over the squared true change}, `pairs`: the mean of all."""
    start, pairs = average_image(net.G, net.encoder.config.input_size), pairs.alone()
    error, truth = np.zeros(len(pairs)), np.zeros(len(pairs))
    for part in _parts(np.arange(len(pairs))):
        a, b = (pictures.tensor(pairs.rows[part, side], size) for side in (0, 1))
        ws = restyle_codes(net.encoder, net.G, a, 3, start)
        edited = net.edited(ws, torch.from_numpy(pairs.delta[part]))
        drawn, true = net.G.synthesis(edited) - net.G.synthesis(ws), b - a
        mask = change_mask(a, b, DIFFERS)
        error[part] = (mask * (drawn - true).square()).sum((1, 2, 3)).numpy()
        truth[part] = (mask * true.square()).sum((1, 2, 3)).numpy()
    table = {}
    for k, name in enumerate(ATTRIBUTES):
        rows = pairs.delta[:, k] != 0
        if rows.any():
            table[name] = float(error[rows].sum() / truth[rows].sum())
    return table | {"pairs": float(np.mean(list(table.values())))}


def bundle_net(name: str | Path) -> PairNet:
    """A bundle's networks with its named directions in the units of `ATTRIBUTES`; zeros where it has none."""
    bundle = load_model(name)
    G, encoder = bundle.generator(), bundle.encoder()
    directions = torch.zeros(len(ATTRIBUTES), G.num_ws, G.w_dim)
    for k, (attribute, entry) in enumerate(ATTRIBUTES.items()):
        file = V1_DIRECTIONS.get(attribute)
        if file is not None and file in bundle.direction_names():
            with safe_open(str(bundle.direction_path(file)), framework="pt") as stored:
                directions[k] = stored.get_tensor("direction").float() * (entry.unit / SPECS[file].unit)
    return PairNet(G, encoder, directions)


@torch.no_grad()
def fit_scales(net: PairNet, pictures: PictureSet, pairs: Pairs, each: int = 12, size: int = 128) -> dict[str, float]:
    """Scale every direction to its best in least squares on pairs in which only it changes; the factors.

    For directions that were not learned on pairs: their own strength 1 may be another amount.
    """
    factors, pairs = {}, pairs.alone()
    for name, k in attribute_index().items():
        own = np.flatnonzero(pairs.delta[:, k])
        chosen = own[:: max(1, len(own) // each)][:each]
        dot = square = 0.0
        for part in _parts(chosen):
            a, b = (pictures.tensor(pairs.rows[part, side], size) for side in (0, 1))
            ws = restyle_codes(net.encoder, net.G, a, 3)
            edited = net.edited(ws, torch.from_numpy(pairs.delta[part]))
            drawn, mask = net.G.synthesis(edited) - net.G.synthesis(ws), change_mask(a, b, DIFFERS)
            dot += float((mask * drawn * (b - a)).sum())
            square += float((mask * drawn.square()).sum())
        factors[name] = dot / square if square else 0.0
        net.directions[k] *= factors[name]
    return factors


def _parts(rows: np.ndarray, size: int = 24) -> Iterator[np.ndarray]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def scores(
    net: PairNet, perceptual: PerceptualDistance, photos: tuple[PictureSet, np.ndarray], pairs: tuple[PictureSet, Pairs]
) -> dict[str, float]:
    """All of one model's numbers."""
    net.eval()
    return photo_scores(net, perceptual, *photos) | pair_scores(net, *pairs)


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Models side by side, a line for each number."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [" ".join([f"{'':<14}", *(f"{model[:14]:>14}" for model in rows)])]
    for name in names:
        cells = [f"{row[name]:>14.3f}" if name in row else f"{'-':>14}" for row in rows.values()]
        lines.append(" ".join([f"{name:<14}", *cells]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="Scores of models on held-out photographs and pairs, side by side.")
    parser.add_argument("models", nargs="+", help="folders of a run's averaged networks, or names of bundles")
    parser.add_argument("--edits", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON with all numbers")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    edits, photos = PictureSet(given.edits), PictureSet(given.photos)
    train, held = split_groups(edits)
    rows = photo_rows(photos, first_held_out_person(photos.identity))[1]
    perceptual, results = PerceptualDistance(load_efficientnet_lite(given.backbone)), {}
    for model in given.models:
        if (Path(model) / "directions.safetensors").is_file():
            net = load_start(Path(model), 0).eval()
            net.free.fill_(1)
        else:
            net = bundle_net(model).eval()
            factors = fit_scales(net, edits, make_pairs(edits, train))
            scaled = ", ".join(f"{name} {factor:.2f}" for name, factor in factors.items())
            sys.stdout.write(f"{model}: directions scaled by {scaled}\n")
        results[model] = scores(net, perceptual, (photos, rows), (edits, make_pairs(edits, held)))
    sys.stdout.write(table({Path(model).name: row for model, row in results.items()}) + "\n")
    if given.out:
        write_json(given.out, results)


if __name__ == "__main__":
    main()
