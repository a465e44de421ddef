"""Codes to images: edited codes through a generator, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from sg3cli.latents.codes import Codes, as_codes
from sg3cli.levels import tensor_to_uint8
from sg3cli.nets.synthesis import NO_MARGIN, Sides

if TYPE_CHECKING:
    from sg3cli.nets.generator import Generator


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """Images `[N, 3, H, W]` in [-1, 1] to levels `[N, H, W, 3]` uint8, rounded and clipped."""
    return tensor_to_uint8(images).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def render_crops(
    G: Generator,
    codes: Codes | np.ndarray,
    transforms: np.ndarray | None = None,
    batch: int = 8,
    expand: Sides = NO_MARGIN,
) -> Iterator[np.ndarray]:
    """Yield one crop `[N, N, 3]` uint8 per code; bare codes are W+ `[T, num_ws, w_dim]`.

    `transforms [T, 3, 3]` are inverse(M), handed on as they are; None renders aligned faces. `expand` adds so many
    pixels of view to the left, right, top and bottom.
    On the CPU each is drawn by itself, which takes hardly longer: products over a batch round otherwise, and a level
    more in a drawing may be several in a frame. Elsewhere batches are cut at multiples of `batch`, so slices that start
    there give the same bytes as the whole.
    """
    codes = as_codes(codes)
    if transforms is not None and len(transforms) != len(codes):
        raise ValueError(f"{len(codes)} codes but {len(transforms)} transforms")
    at_once = 1 if next(G.parameters()).device.type == "cpu" else batch
    for start in range(0, len(codes), at_once):
        part = slice(start, start + at_once)
        with torch.inference_mode():  # left before a crop is handed out: the caller may want gradients meanwhile
            images = draw(G, codes[part], None if transforms is None else transforms[part], expand)
        yield from to_uint8(images)


def draw(G: Generator, codes: Codes, transforms: np.ndarray | None = None, expand: Sides = NO_MARGIN) -> torch.Tensor:
    """Images `[n, 3, H, W]` of the codes, all at once; see `render_crops`."""
    device = next(G.parameters()).device
    ws = torch.from_numpy(np.asarray(codes.ws, dtype=np.float32)).to(device)
    motion = torch.from_numpy(codes.placed(transforms)).float().to(device)
    more = {} if codes.shift is None else {"shift": torch.from_numpy(codes.shift).to(device)}
    images: torch.Tensor = G.synthesis(ws, transform=motion, expand=expand, **more)
    return images
