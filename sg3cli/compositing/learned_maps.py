"""What an edit does to a face, told by a network from the source and the two drawings."""

from __future__ import annotations

import numpy as np
import torch

from sg3cli.compositing.optical_flow import GRID, Shape, at_grid, motion_between
from sg3cli.compositing.transfer import Transfer
from sg3cli.levels import HALF, to_signed
from sg3cli.nets.transfer_net import TransferNet


@torch.inference_mode()
def learned_maps(
    net: TransferNet, source: np.ndarray, plain: np.ndarray, edited: np.ndarray, shape: Shape = (GRID, GRID)
) -> Transfer:
    """The maps of `shape` (multiples of 8) of one frame; they change nothing where the drawings agree.

    `source [2h, 2w, 3]` (levels) is the frame through the window, `plain`, `edited` `[N, M, 3]` uint8 the drawings.
    """
    flow = motion_between(plain, edited, shape)
    p, q = (_tensor(to_signed(at_grid(image, shape))) for image in (plain, edited))
    maps = net(_tensor(to_signed(source)), p, q, _tensor(flow))
    motion, gain, added, new, residual = (
        values[0].permute(1, 2, 0).contiguous().float().cpu().numpy() for values in maps
    )
    return Transfer(motion, gain, added, new, HALF * residual, np.zeros_like(added), GRID)


def _tensor(image: np.ndarray) -> torch.Tensor:
    """`[H, W, C]` as [1,C,H,W]; one frame at a time, so that a result does not depend on a batch."""
    return torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None]
