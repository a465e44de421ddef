"""Edits by a latent mapper (`nets.latent_mapper`): a step that each code has of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from sg3cli.latents.codes import Codes
from sg3cli.nets.latent_mapper import LatentMapper

AT_ONCE = 64  # frames


@dataclass(frozen=True)
class MapperStep:
    """`w[j] + strength * step(w)[j]` on the chosen layers j; the mapper sees all of them."""

    mapper: LatentMapper
    layers: np.ndarray  # [n] ints

    def __call__(self, codes: Codes, strengths: np.ndarray) -> Codes:
        ws = codes.ws.astype(np.float32)  # a copy
        seen = torch.from_numpy(codes.ws.astype(np.float32))
        with torch.inference_mode():
            step = torch.cat([self.mapper(seen[n : n + AT_ONCE]) for n in range(0, len(seen), AT_ONCE)]).numpy()
        ws[:, self.layers] += np.asarray(strengths, np.float32)[:, None, None] * step[:, self.layers]
        return replace(codes, ws=ws)
