"""More codes for a flow: those of pictures, moved along directions that the model has.

The young and the old of a thousand photographs differ in much beside their age, and a soft drawing shows little of it;
a direction that was fitted to say "older" shows it. Of every code a few are made by some directions at random, and get
the attributes of the picture and what is read of the change. So the flow learns from people what belongs together, and
from directions what each attribute does to somebody who stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sg3cli.nets.generator import Generator
from sg3cli.training.flow.belonging import Read, read_drawn
from sg3cli.weights.bundle import Bundle

TIMES = 2  # codes made of each
SHARE = 0.35  # of the directions that move a code


@dataclass(frozen=True)
class Known:
    """A direction `[num_ws, w_dim]` and the strengths within which it holds."""

    vector: Tensor
    low: float
    high: float


def known_directions(bundle: Bundle) -> list[Known]:
    """The model's directions of W+ that say within which strengths they hold."""
    found = []
    for direction in bundle.directions.values():
        if direction.space == "w" and direction.range is not None:
            vector = np.broadcast_to(direction.vector, (bundle.config.num_ws, bundle.config.w_dim))
            found.append(Known(torch.from_numpy(vector.astype(np.float32)), *direction.range))
    return found


@torch.inference_mode()
def spread(
    ws: Tensor, labels: Tensor, directions: Sequence[Known], G: Generator, read: Read, seed: int, times: int = TIMES
) -> tuple[Tensor, Tensor]:
    """Codes [N + N times,num_ws,w_dim] and their attributes; the first N are those given."""
    if not directions or not times:
        return ws, labels
    rng = np.random.default_rng(seed)
    low, high = (np.array([getattr(known, end) for known in directions]) for end in ("low", "high"))
    size = (times, len(ws), len(directions))
    strengths = rng.uniform(low, high, size) * (rng.random(size) < SHARE)
    vectors = torch.stack([known.vector for known in directions])
    change = torch.einsum("tnd,dlw->tnlw", torch.from_numpy(strengths.astype(np.float32)), vectors)
    moved = (ws + change).flatten(0, 1)
    told = read_drawn(moved, G, read) - read_drawn(ws, G, read).repeat(times, 1)
    return torch.cat([ws, moved]), torch.cat([labels, labels.repeat(times, 1) + told])
