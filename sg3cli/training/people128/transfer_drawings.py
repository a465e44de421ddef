"""What a model draws of the first picture of each pair, without and with the edit that leads to the second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sg3cli.compositing.shade import as_shown
from sg3cli.files import atomic_path
from sg3cli.levels import tensor_to_uint8
from sg3cli.nets.encoder import Encoder
from sg3cli.nets.generator import Generator
from sg3cli.nets.restyle import average_image, restyle_codes
from sg3cli.training.people128.pair_data import ATTRIBUTES, Pairs, PictureSet
from sg3cli.training.people128.pair_net import PairNet
from sg3cli.weights.bundle import Bundle

AT_ONCE = 12


class Drawings(NamedTuple):
    """What the model draws for each pair, `[M, n, n, 3]` uint8."""

    plain: np.ndarray
    edited: np.ndarray


@dataclass(frozen=True)
class Drawer:
    """A model that draws: `draw(ws [N,num_ws,w_dim], delta [N,K])` -> pictures without and with the change, [N,3,R,R]
    in [-1,1] each; `knows [K]`: the attributes that it can change."""

    G: Generator
    encoder: Encoder
    draw: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    knows: np.ndarray

    @classmethod
    def of_pairs(cls, net: PairNet) -> Drawer:
        """With the directions that pairs taught."""

        def draw(ws: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
            return net.G.synthesis(ws), net.G.synthesis(net.edited(ws, delta))

        return cls(net.G, net.encoder, draw, np.ones(len(ATTRIBUTES), bool))

    @classmethod
    def of_bundle(cls, bundle: Bundle, G: Generator, encoder: Encoder) -> Drawer:
        """With the directions of a model, strength 1 for one unit of an attribute, as footage shows them."""
        names = [name.replace("_", "-") for name in ATTRIBUTES]
        known = {k: bundle.directions[name] for k, name in enumerate(names) if name in bundle.direction_names()}
        vectors = torch.zeros(len(names), G.num_ws, G.w_dim)
        for k, direction in known.items():
            vectors[k] = torch.from_numpy(direction.vector.copy())

        def draw(ws: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
            plain = G.synthesis(ws)
            edited = G.synthesis(ws + torch.einsum("nk,kld->nld", delta, vectors))
            for row, k in enumerate(delta.abs().argmax(1).tolist()):
                part = slice(row, row + 1)
                edited[part] = as_shown(plain[part], edited[part], known[k].keeps if k in known else ())
            return plain, edited

        return cls(G, encoder, draw, np.array([k in known for k in range(len(names))]))


@torch.no_grad()
def draw_pairs(drawer: Drawer, pictures: PictureSet, pairs: Pairs, file: Path) -> Drawings:
    """The drawings of the first picture of each pair, and of the same edited; kept in `file`."""
    if not file.is_file():
        start, size = average_image(drawer.G, drawer.encoder.config.input_size), drawer.G.img_resolution
        firsts, where = np.unique(pairs.rows[:, 0], return_inverse=True)
        parts = (firsts[k : k + AT_ONCE] for k in range(0, len(firsts), AT_ONCE))
        ws = torch.cat([restyle_codes(drawer.encoder, drawer.G, pictures.tensor(p, size), 3, start) for p in parts])
        plain, edited = np.empty((2, len(pairs), size, size, 3), np.uint8)
        for k in range(0, len(pairs), AT_ONCE):
            part = slice(k, k + AT_ONCE)
            drawn = drawer.draw(ws[where[part]], torch.from_numpy(pairs.delta[part]))
            plain[part], edited[part] = (tensor_to_uint8(y).permute(0, 2, 3, 1).cpu().numpy() for y in drawn)
        with atomic_path(file) as temporary, Path(temporary).open("wb") as stream:
            np.savez(stream, plain=plain, edited=edited)
    with np.load(file) as stored:
        return Drawings(stored["plain"], stored["edited"])
