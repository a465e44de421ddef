"""How near a transferred edit comes to the rendered truth: paste, motion and the network side by side.

Pairs of renders of 512 px (`python -m synthface edits --size 512`), of people that nothing was trained on. Three kinds
of drawings: those of the model from its 128 px inversion; the true renders reduced to 128 px, which tests the transfer
alone; and these softened by 1.6 px. For each attribute: Lite0 distance to the truth in the face, PSNR in the face and
over the crop, and the sharpness (variance of the Laplacian in the face) over that of the truth.

`python -m sg3cli.training.people128.transfer_scores --help`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sg3cli.compositing.map_maker import MapMaker
from sg3cli.compositing.optical_flow import GRID
from sg3cli.compositing.paste import paste
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.files import write_json
from sg3cli.levels import to_signed
from sg3cli.nets.checkpoint import load_transfer_file
from sg3cli.nets.efficientnet_lite import PerceptualDistance
from sg3cli.training.people128.pair_data import ATTRIBUTES, Pairs, PictureSet, make_pairs, split_groups
from sg3cli.training.people128.pair_net import load_start
from sg3cli.training.people128.pair_scores import face_mask, psnr
from sg3cli.training.people128.transfer_drawings import Drawer, draw_pairs
from sg3cli.weights.efficientnet import load_efficientnet_lite

REGIMES = ("model", "true", "soft")
SOFT = 1.6  # pixels
COLUMNS = ("lite0", "face_psnr", "psnr", "sharpness")
METHODS = ("nothing", "paste", "motion", "learned")


class Case(NamedTuple):
    """Source and truth `[S, S, 3]`, drawings `[n, n, 3]`, all uint8; landmarks of both `[2, 68, 2]` in shares."""

    attribute: str
    source: np.ndarray
    truth: np.ndarray
    plain: np.ndarray
    edited: np.ndarray
    landmarks: np.ndarray


def cases(pictures: PictureSet, pairs: Pairs, drawn: tuple[np.ndarray, np.ndarray], regime: str) -> Iterator[Case]:
    """The pairs with their drawings of one kind."""
    import cv2

    names = list(ATTRIBUTES)
    for k, rows in enumerate(pairs.rows):
        source, truth = (pictures.picture(int(row)) for row in rows)
        plain, edited = drawn[0][k], drawn[1][k]
        if regime != "model":
            plain, edited = (cv2.resize(x, (GRID, GRID), interpolation=cv2.INTER_AREA) for x in (source, truth))
        if regime == "soft":
            plain, edited = (cv2.GaussianBlur(x, (0, 0), SOFT) for x in (plain, edited))
        name = names[int(np.abs(pairs.delta[k]).argmax())]
        yield Case(name, source, truth, plain, edited, pictures.landmarks[rows])


def result(case: Case, method: str, makers: Mapping[str, MapMaker]) -> np.ndarray:
    """The source with the edit, `[S, S, 3]` uint8; `makers` by method, none for a difference that is added."""
    if method == "nothing":
        return case.source
    size = len(case.source)
    window = np.array([[0, 0], [0, size], [size, size], [size, 0]], np.float64)
    plain, edited, transfer = case.plain, case.edited, None
    if method in makers:
        plain, edited, transfer = makers[method].make(case.source, window, plain, edited, (GRID, GRID))
    alpha = np.ones((GRID, GRID), np.float32)
    return paste(case.source, edited, window, alpha, plain=plain, transfer=transfer)


def measured(case: Case, image: np.ndarray, perceptual: PerceptualDistance) -> tuple[float, ...]:
    """The numbers of `COLUMNS`."""
    import cv2

    size = len(image)
    mask = face_mask(torch.from_numpy(case.landmarks) * size, size).amax(0, keepdim=True)
    y, x = (torch.from_numpy(to_signed(i)).permute(2, 0, 1)[None] for i in (image, case.truth))
    inside = mask[0, 0].numpy() > 0
    sharp = [cv2.Laplacian(i.mean(axis=2).astype(np.float32), cv2.CV_32F)[inside].var() for i in (image, case.truth)]
    with torch.no_grad():
        distance = float(perceptual(y, x, mask))
    return distance, float(psnr(y, x, mask)), float(psnr(y, x)), float(sharp[0] / sharp[1])


Table = dict[str, dict[str, list[float]]]  # attribute -> method -> numbers of COLUMNS


def scores(items: Iterator[Case], makers: Mapping[str, MapMaker], perceptual: PerceptualDistance) -> Table:
    """Means over the cases of each attribute, and `mean`, that of the attributes."""
    found: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    methods = [m for m in METHODS if m in ("nothing", "paste") or m in makers]
    for case in items:
        for method in methods:
            row = measured(case, result(case, method, makers), perceptual)
            found.setdefault(case.attribute, {}).setdefault(method, []).append(row)
    table: Table = {
        name: {method: np.mean(rows, axis=0).tolist() for method, rows in by_method.items()}
        for name, by_method in found.items()
    }
    table["mean"] = {m: np.mean([row[m] for row in table.values()], axis=0).tolist() for m in methods}
    return table


def written(table: Table, regime: str) -> str:
    """The table of one regime as text, a line for each attribute and a block for each number."""
    methods = list(table["mean"])
    lines = []
    for k, column in enumerate(COLUMNS):
        lines.append(" ".join([f"{regime + ' ' + column:<18}", *(f"{m:>9}" for m in methods)]))
        lines += [" ".join([f"  {name:<16}", *(f"{row[m][k]:>9.3f}" for m in methods)]) for name, row in table.items()]
    return "\n".join(lines)


def first_of_each(pairs: Pairs, count: int) -> Pairs:
    """`count` pairs, the attributes in turn."""
    kind = np.abs(pairs.delta).argmax(1)
    turn = np.array([np.sum(kind[:k] == kind[k]) for k in range(len(kind))])
    keep = np.sort(np.argsort(turn, kind="stable")[:count])
    return Pairs(pairs.rows[keep], pairs.delta[keep], pairs.share[keep])


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="Transferred edits against the rendered truth.")
    parser.add_argument("--edits", type=Path, required=True, help="pairs of 512 px")
    parser.add_argument("--model", type=Path, required=True, help="folder with generator, encoder, directions")
    parser.add_argument("--transfer", type=Path, help="transfer network; without it, paste and motion alone")
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--drawings", type=Path, required=True, help="where the model's drawings are kept (.npz)")
    parser.add_argument("--out", type=Path, help="JSON with all numbers")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    pictures = PictureSet(given.edits)
    pairs = first_of_each(make_pairs(pictures, split_groups(pictures, 0)[0]).alone(), given.count)
    drawn = draw_pairs(Drawer.of_pairs(load_start(given.model, 0).eval()), pictures, pairs, given.drawings)
    mesh = DrawnMesh.load()
    makers = {"motion": MapMaker(mesh=mesh)}
    if given.transfer:
        makers["learned"] = MapMaker(load_transfer_file(given.transfer)[0], mesh)
    perceptual, tables = PerceptualDistance(load_efficientnet_lite(given.backbone)), {}
    for regime in REGIMES:
        tables[regime] = scores(cases(pictures, pairs, drawn, regime), makers, perceptual)
        sys.stdout.write(written(tables[regime], regime) + "\n")
        sys.stdout.flush()
    if given.out:
        write_json(given.out, tables)


if __name__ == "__main__":
    main()
