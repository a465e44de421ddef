"""What each style does to an image in a text model's space, by how much: derivatives, on average over faces.

The published table (`style_effects`) holds directions only, found by two drawings for each style and face. Where
gradients go through the text model, one drawing and `D` passes backwards give the lengths too, for all styles at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sg3cli.latents.spaces import WPlus
from sg3cli.latents.text_model import TextModel
from sg3cli.nets.generator import Generator


def style_responses(G: Generator, ws: np.ndarray, model: TextModel, batch: int = 4) -> Iterator[np.ndarray]:
    """Yield `[channels,D]` float32 for each face of ws `[n,num_ws,w_dim]`: a row's change for a unit of a style."""
    codes = torch.from_numpy(ws).to(G.mapping.w_avg)
    for start in range(0, len(codes), batch):
        with torch.no_grad():
            given = WPlus(codes[start : start + batch]).to_s(G).by_layer(G)
        styles = {name: s.detach().requires_grad_(True) for name, s in given.items()}
        rows = model.embed(G.synthesis.from_styles(styles).clamp(-1, 1))
        parts = []
        for k in range(model.width):
            last = k == model.width - 1
            grads = torch.autograd.grad(rows[:, k].sum(), list(styles.values()), retain_graph=not last)
            parts.append(torch.cat(grads, 1))
        yield from torch.stack(parts, 2).float().cpu().numpy()
