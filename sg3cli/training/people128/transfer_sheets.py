"""Pictures of where the transfer network stands: held-out pairs beside their truth, held-out photographs edited."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from sg3cli.compositing.optical_flow import at_grid
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.nets.transfer_net import TransferNet
from sg3cli.training.people128.pair_data import ATTRIBUTES, Pairs, PictureSet, attribute_index
from sg3cli.training.people128.pair_sheets import choose_pairs, choose_photos, tiled
from sg3cli.training.people128.transfer_data import SIZE, Example, on_face, sized, stacked
from sg3cli.training.people128.transfer_drawings import Drawings
from sg3cli.training.people128.transfer_trainer import inputs_of

PHOTO_EDITS = (("age", 2.0), ("smile", 1.5), ("age", -2.0), ("eyes_closed", 1.5), ("age", 1.0))


def chosen(pairs: Pairs, each: int = 2) -> Pairs:
    """A few pairs in which one attribute changes."""
    rows = np.array(choose_pairs(pairs, each), np.int64)
    return Pairs(pairs.rows[rows], pairs.delta[rows], pairs.share[rows])


def photo_edits(
    photos: PictureSet, rows: np.ndarray, edits: Sequence[tuple[str, float]] = PHOTO_EDITS, count: int = 10
) -> Pairs:
    """Photographs with one edit each; the truth is not known, the picture stands in its place."""
    some = np.array([int(row) for row in choose_photos(photos, rows, count)], np.int64)
    delta, index = np.zeros((len(some), len(ATTRIBUTES)), np.float32), attribute_index()
    for k in range(len(some)):
        name, strength = edits[k % len(edits)]
        delta[k, index[name]] = strength
    return Pairs(np.stack([some, some], 1), delta, np.ones(len(some), np.float32))


def examples_of(pictures: PictureSet, pairs: Pairs, drawings: Drawings, mesh: DrawnMesh | None) -> Example:
    """All of the pairs, with the model's drawings as they are."""
    examples = []
    for rows, *drawn in zip(pairs.rows, *drawings, strict=True):
        source, truth = (sized(pictures.picture(int(row)), SIZE) for row in rows)
        plain, edited = (at_grid(image) for image in drawn)
        plain, edited, base = on_face(source, plain, edited, mesh)
        examples.append([source, truth, base, plain, edited])
    return stacked(examples)


@torch.no_grad()
def transfer_sheet(net: TransferNet, e: Example) -> np.ndarray:
    """A row each: source, both drawings, what motion and light make of it, the result, the truth; [H,W,3] uint8."""
    result = e.base + net(*inputs_of(e))
    plain, edited = (F.interpolate(x, scale_factor=2.0, mode="bicubic") for x in (e.plain, e.edited))
    columns = [e.source, plain, edited, e.base, result, e.truth]
    return tiled(columns, ["source", "drawn", "drawn, edited", "motion and light", "transferred", "truth"])
