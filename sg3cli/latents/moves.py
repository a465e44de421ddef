"""What edits do to codes, once their files are read: a shift of W+ codes, or of styles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from sg3cli.latents.codes import Codes


class Move(Protocol):
    """Moves the codes of n frames by `strengths [n]`, none of which is 0; strength 1 is the direction's unit."""

    def __call__(self, codes: Codes, strengths: np.ndarray) -> Codes:
        """New codes; those that came in are left as they are."""
        ...


class AimedMove(Move, Protocol):
    """A move to values that an attribute shall have, which may change over time."""

    def towards(self, targets: np.ndarray) -> Move:
        """The move of n frames to `targets [n]`."""
        ...


@dataclass(frozen=True)
class ShiftW:
    """`w[j] + strength * vector[j]` on the chosen layers j: `vector [num_ws, w_dim]`, or `[1, w_dim]` for all alike."""

    vector: np.ndarray
    layers: np.ndarray  # [n] ints

    def __call__(self, codes: Codes, strengths: np.ndarray) -> Codes:
        ws = codes.ws.copy()
        vector = np.broadcast_to(self.vector.astype(np.float32), ws.shape[1:])
        ws[:, self.layers] += strengths[:, None, None] * vector[None, self.layers]
        return replace(codes, ws=ws)


@dataclass(frozen=True)
class ShiftS:
    """`s + strength * vector`: `vector [channels]` over all styles, 0 where nothing moves."""

    vector: np.ndarray

    def __call__(self, codes: Codes, strengths: np.ndarray) -> Codes:
        added = strengths[:, None] * self.vector.astype(np.float32)
        return replace(codes, shift=added if codes.shift is None else codes.shift + added)
