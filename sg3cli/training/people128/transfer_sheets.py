"""Pictures of where the transfer network stands: held-out pairs beside their truth, held-out photographs edited."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from sg3cli.compositing.optical_flow import at_grid
from sg3cli.levels import tensor_to_uint8
from sg3cli.nets.restyle import restyle_codes
from sg3cli.nets.transfer_net import TransferNet, transferred
from sg3cli.training.people128.pair_data import ATTRIBUTES, Pairs, PictureSet, attribute_index
from sg3cli.training.people128.pair_net import PairNet
from sg3cli.training.people128.pair_sheets import choose_pairs, choose_photos, tiled
from sg3cli.training.people128.transfer_data import SIZE, Example, sized, stacked

PHOTO_EDITS = (("age", 1.5), ("smile", 1.5), ("mouth_open", 1.0), ("eyes_closed", 1.5), ("glasses", 1.0))


@torch.no_grad()
def held_examples(net: PairNet, pictures: PictureSet, pairs: Pairs, each: int = 2) -> Example:
    """Pairs in which one attribute changes, with the model's drawings."""
    chosen, examples = choose_pairs(pairs, each), []
    for k in chosen:
        source, truth = (sized(pictures.picture(int(row)), SIZE) for row in pairs.rows[k])
        ws = restyle_codes(net.encoder, net.G, pictures.tensor(pairs.rows[k, :1], net.G.img_resolution))
        edited = net.edited(ws, torch.from_numpy(pairs.delta[k : k + 1]))
        examples.append([source, truth, *drawn(net, torch.cat([ws, edited]))])
    return stacked(examples)


@torch.no_grad()
def photo_examples(
    net: PairNet,
    photos: PictureSet,
    rows: np.ndarray,
    edits: Sequence[tuple[str, float]] = PHOTO_EDITS,
    count: int = 10,
) -> Example:
    """Photographs with one edit each; the truth is not known, the source stands in its place."""
    examples, index = [], attribute_index()
    for k, row in enumerate(choose_photos(photos, rows, count)):
        name, strength = edits[k % len(edits)]
        delta = torch.zeros(1, len(ATTRIBUTES))
        delta[0, index[name]] = strength
        source = sized(photos.picture(int(row)), SIZE)
        ws = restyle_codes(net.encoder, net.G, photos.tensor(np.array([row]), net.G.img_resolution))
        examples.append([source, source, *drawn(net, torch.cat([ws, net.edited(ws, delta)]))])
    return stacked(examples)


def drawn(net: PairNet, ws: torch.Tensor) -> list[np.ndarray]:
    """Drawings of codes `[N, num_ws, w_dim]`, each `[n, n, 3]` float32 levels on the transfer's grid."""
    images = tensor_to_uint8(net.G.synthesis(ws)).permute(0, 2, 3, 1).numpy()
    return [at_grid(image).astype(np.float32) for image in images]


@torch.no_grad()
def transfer_sheet(net: TransferNet, e: Example) -> np.ndarray:
    """A row each: source, both drawings, the added difference, the result, the truth; [H,W,3] uint8."""
    maps = net(e.source, e.plain, e.edited, e.flow)
    result = transferred(e.source, e.plain, e.edited, maps)
    plain, edited = (F.interpolate(x, scale_factor=2.0, mode="bicubic") for x in (e.plain, e.edited))
    columns = [e.source, plain, edited, e.source + edited - plain, result, e.truth]
    return tiled(columns, ["source", "drawn", "drawn, edited", "difference added", "transferred", "truth"])
