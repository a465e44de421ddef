"""What each style does to an image in a text model's space: the table that text edits are made from.

For every style, on a few faces: the image with the style above its mean by `STEP` deviations and the image with it
below are embedded, the difference is normalised, the mean over the faces is normalised again (StyleCLIP's `delta_i_c`).
What lies before the style's layer does not change, so each layer's input is computed once for all faces and only the
rest of the network is run; the other styles are those of the faces, always.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sg3cli.latents.spaces import Statistics, WPlus
from sg3cli.latents.text_model import TextModel
from sg3cli.nets.generator import Generator

STEP = 5.0  # deviations to each side of the mean, for faces


@torch.no_grad()
def layer_effects(
    G: Generator,
    ws: np.ndarray,
    layer: int,
    statistics: Statistics,
    model: TextModel,
    batch: int = 16,
    step: float = STEP,
    first: int = 0,
) -> Iterator[np.ndarray]:
    """Yield the effect `[D]` float32 of each style of the layer (-1: the input), from its channel `first` on.

    ws `[n, num_ws, w_dim]`: the faces. Memory: the layer's input for all faces, and `batch` images.
    """
    codes = torch.from_numpy(ws).to(G.mapping.w_avg)
    styles = WPlus(codes).to_s(G).by_layer(G)
    names = list(styles)
    start = sum(G.config.style_sizes[name] for name in names[: layer + 1])
    name = names[layer + 1]
    prefix = None
    if layer >= 0:
        parts = [{key: s[k : k + batch] for key, s in styles.items()} for k in range(0, len(codes), batch)]
        prefix = torch.cat([G.synthesis.through(G.synthesis.input(p["input"]), p, 0, layer) for p in parts])
    for channel in range(first, styles[name].shape[1]):
        mean, std = float(statistics.mean[start + channel]), float(statistics.std[start + channel])
        ends = [
            np.concatenate(
                [
                    model.images(image)
                    for image in _images(G, styles, prefix, layer, channel, mean + sign * step * std, batch)
                ]
            )
            for sign in (1, -1)
        ]
        yield mean_direction(ends[0] - ends[1])


def _images(
    G: Generator, styles: dict[str, Tensor], prefix: Tensor | None, layer: int, channel: int, value: float, batch: int
) -> Iterator[Tensor]:
    """Images of all faces with one style at `value`; `styles` stay as they are."""
    name, last = list(styles)[layer + 1], len(G.layer_names)
    for start in range(0, len(styles[name]), batch):
        part = {key: s[start : start + batch] for key, s in styles.items()}
        part[name] = part[name].clone()
        part[name][:, channel] = value
        x = G.synthesis.input(part["input"]) if prefix is None else prefix[start : start + batch]
        yield G.synthesis.through(x, part, max(layer, 0), last).float() * G.synthesis.output_scale


def mean_direction(differences: np.ndarray) -> np.ndarray:
    """`[n, D]` differences of embeddings -> `[D]` float32: mean of their directions, of length 1; 0 where all are 0."""
    lengths = np.linalg.norm(differences, axis=1, keepdims=True)
    mean = np.divide(differences, lengths, out=np.zeros_like(differences), where=lengths > 1e-12).mean(axis=0)
    length = float(np.linalg.norm(mean))
    unit: np.ndarray = (mean / length if length > 1e-12 else mean).astype(np.float32)
    return unit
