"""Pictures of where a run stands: held-out photographs inverted and edited, held-out pairs beside their truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sg3cli.files import atomic_path
from sg3cli.nets.restyle import restyle_codes
from sg3cli.training.people128.pair_data import ATTRIBUTES, Pairs, PictureSet, attribute_index
from sg3cli.training.people128.pair_net import PairNet

TITLE = 14  # pixels above each column
PHOTO_EDITS: tuple[tuple[str, float], ...] = (
    ("age", 1), ("age", 2), ("age", -1), ("smile", 1), ("mouth_open", 1), ("eyes_closed", 1), ("yaw", 1),
)  # fmt: skip
PAIR_ATTRIBUTES = ("age", "smile", "mouth_open", "eyes_closed", "brow_raise", "glasses")


@torch.no_grad()
def photo_sheet(net: PairNet, x: Tensor, edits: Sequence[tuple[str, float]] = PHOTO_EDITS) -> np.ndarray:
    """x [N,3,R,R] -> a row each: source, inversion after 3 steps, edits; [H,W,3] uint8."""
    ws, index = restyle_codes(net.encoder, net.G, x), attribute_index()
    columns, titles = [x, net.G.synthesis(ws)], ["source", "inversion"]
    for name, strength in edits:
        delta = torch.zeros(len(x), len(ATTRIBUTES), device=x.device)
        delta[:, index[name]] = strength
        columns.append(net.G.synthesis(net.edited(ws, delta)))
        titles.append(f"{name} {strength:+g}")
    return tiled(columns, titles)


@torch.no_grad()
def pair_sheet(net: PairNet, a: Tensor, b: Tensor, delta: Tensor) -> np.ndarray:
    """A row for each pair: A, its drawing, the edited drawing, the truth B; [H,W,3] uint8."""
    ws = restyle_codes(net.encoder, net.G, a)
    return tiled(
        [a, net.G.synthesis(ws), net.G.synthesis(net.edited(ws, delta)), b], ["A", "drawn", "edited", "truth B"]
    )


def choose_pairs(pairs: Pairs, each: int = 2, names: Sequence[str] = PAIR_ATTRIBUTES) -> np.ndarray:
    """Numbers of `each` pairs for each of `names` in which (almost) only this differs, the strongest half of them."""
    index, chosen = attribute_index(), []
    for name in names:
        size = np.abs(pairs.delta[:, index[name]])
        alone = size > 0.9 * np.abs(pairs.delta).sum(1)
        found = np.flatnonzero(alone & (size > 0))
        if len(found):
            strong = found[size[found] >= np.median(size[found])]
            chosen += strong[:: max(1, len(strong) // each)][:each].tolist()
    return np.array(chosen, np.int64)


def choose_photos(pictures: PictureSet, rows: np.ndarray, count: int) -> np.ndarray:
    """`count` of `rows`, taking the sources in turn so that all kinds of pictures are seen."""
    source = np.nan_to_num(pictures.column("source")[rows], nan=-1)
    order = np.argsort([np.sum(source[:k] == s) for k, s in enumerate(source)], kind="stable")
    return rows[order[:count]]


def tiled(columns: Sequence[Tensor], titles: Sequence[str]) -> np.ndarray:
    """Columns of pictures [N,3,R,R] in [-1,1] with a title each -> [TITLE + N R, columns R, 3] uint8."""
    import cv2

    body = torch.cat([torch.cat(list(column.cpu()), 1) for column in columns], 2)  # [3, N R, columns R]
    picture = ((body.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    head = np.full((TITLE, picture.shape[1], 3), 255, np.uint8)
    side = columns[0].shape[-1]
    for k, title in enumerate(titles):
        cv2.putText(head, title, (k * side + 3, TITLE - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([head, picture])


def write_sheet(path: Path, picture: np.ndarray) -> None:
    """A PNG of [H,W,3] uint8 RGB."""
    import cv2

    coded = cv2.imencode(".png", picture[:, :, ::-1])[1]
    with atomic_path(path) as temporary:
        temporary.write_bytes(coded.tobytes())
