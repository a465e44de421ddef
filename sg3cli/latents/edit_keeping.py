"""Tuning that leaves the edits alone: a tuned generator changes with a direction as the untuned one does.

    |(G_t(ws + s D_k) - G_t(ws)) - (G(ws + s D_k) - G(ws))|      G: the generator before tuning, G_t: while it is tuned

Pivotal tuning asks for one picture at each pivot. Around it the generator goes where it likes: after a hundred steps on
a still, a direction that ages drew a white patch on each cheek. Roich et al. 2021 (section 3.3) hold codes that are
drawn at random; these are the ones that will be used.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sg3cli.nets.generator import Generator

STRENGTH = (0.5, 2.0)


class EditKeeper:
    """Directions `[K, num_ws, w_dim]` and the generator before tuning, which is not touched."""

    def __init__(self, G: Generator, directions: np.ndarray) -> None:
        self.G = G
        self.directions = torch.from_numpy(np.asarray(directions, np.float32)).to(next(G.parameters()).device)

    def loss(
        self,
        tuned: Generator,
        ws: Tensor,
        turns: Tensor,
        shift: Tensor | None,
        drawn: Tensor,
        seed: tuple[int, int],
    ) -> Tensor:
        """[] mean absolute difference of the two changes, for one direction and strength that follow from `seed`.

        ws `[B, num_ws, w_dim]`, turns `[B, 3, 3]`; drawn `[B, 3, N, N]` is what `tuned` makes of them, without
        gradient: the edited picture follows it.
        """
        rng = np.random.default_rng(seed)
        k, sign, (low, high) = int(rng.integers(len(self.directions))), rng.choice((-1.0, 1.0)), STRENGTH
        edited = ws + float(sign * rng.uniform(low, high)) * self.directions[k]
        with torch.no_grad():
            before, after = (self.G.synthesis(codes, transform=turns, shift=shift) for codes in (ws, edited))
        image: Tensor = tuned.synthesis(edited, transform=turns, shift=shift)
        distance: Tensor = (image - (drawn + after - before)).abs().mean()
        return distance
