"""Codes to images: edited codes through a generator, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from sg3cli.levels import tensor_to_uint8
from sg3cli.nets.synthesis import NO_MARGIN, Sides

if TYPE_CHECKING:
    from sg3cli.nets.generator import Generator


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Images `[N, 3, H, W]` in [-1, 1] to levels `[N, H, W, 3]` uint8, rounded and clipped."""
    return tensor_to_uint8(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def render_crops(
    G: Generator, ws: np.ndarray, transforms: np.ndarray | None = None, batch: int = 8, expand: Sides = NO_MARGIN
) -> Iterator[np.ndarray]:
    """Yield one crop `[N, N, 3]` uint8 per code of `ws [T, num_ws, w_dim]`.

    `transforms [T, 3, 3]` are inverse(M), handed on as they are; None renders aligned faces. `expand` adds so many
    pixels of view to the left, right, top and bottom.
    Batches are cut at multiples of `batch`, so slices that start there give the same bytes as the whole.
    """
    device = next(G.parameters()).device
    if transforms is not None and len(transforms) != len(ws):
        raise ValueError(f"{len(ws)} codes but {len(transforms)} transforms")
    for start in range(0, len(ws), batch):
        part = slice(start, start + batch)
        codes = torch.from_numpy(np.asarray(ws[part], dtype=np.float32)).to(device)
        motion = np.eye(3) if transforms is None else np.asarray(transforms[part])
        with torch.inference_mode():
            images = G.synthesis(codes, transform=torch.from_numpy(motion).float().to(device), expand=expand)
        yield from to_uint8(images)
