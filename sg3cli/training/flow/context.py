"""What a picture shows beside its face: colours of the background and of the light on the face.

The young of a collection may all stand before a white wall. A flow that is not told so learns that the young have white
walls; one that is, keeps the wall as it was.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.training.flow.belonging import Read

CONTEXT = tuple(f"{part}_{colour}" for part in ("background", "face") for colour in ("red", "green", "blue"))
SIZE = 32  # pixels on which colours are measured


def context_of(x: Tensor) -> Tensor:
    """Aligned faces [N,3,R,R] in [-1,1] -> [N,6]: mean colours of the upper corners and of the middle of the face."""
    small = F.adaptive_avg_pool2d(x, SIZE)
    corners = torch.cat([small[:, :, : SIZE // 3, : SIZE // 6], small[:, :, : SIZE // 3, -(SIZE // 6) :]], 3)
    face = small[:, :, SIZE * 2 // 5 : SIZE * 4 // 5, SIZE // 3 : -(SIZE // 3)]
    return torch.cat([corners.mean((2, 3)), face.mean((2, 3))], 1)


def with_context(read: Read) -> Read:
    """What reads attributes and, after them, the context."""
    return lambda x: torch.cat([read(x), context_of(x)], 1)
