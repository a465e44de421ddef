"""How the edit of one frame goes over to it: by motion and light, and by what a model's network adds to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sg3cli.compositing.motion_maps import motion_maps
from sg3cli.compositing.transfer import Transfer
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.geometry import warp_quad

if TYPE_CHECKING:
    from sg3cli.nets.transfer_net import TransferNet

MULTIPLE = 8  # of the grid's sides, for the network


@dataclass(frozen=True)
class MapMaker:
    """Makes the maps of single frames. `net` adds what motion and light do not tell; `mesh` says how mouths move,
    without it dense flow alone does.
    """

    net: TransferNet | None = None
    mesh: DrawnMesh | None = None

    def make(
        self, rgb: np.ndarray, window: np.ndarray, plain: np.ndarray, edited: np.ndarray, shape: tuple[int, int]
    ) -> Transfer:
        """Maps for the frame `rgb [H, W, 3]` through `window [4, 2]`; `shape` is the crop's where its square has `GRID`
        pixels, and is rounded."""
        height, width = (max(1, round(side / MULTIPLE)) * MULTIPLE for side in shape)
        maps = motion_maps(plain, edited, (height, width), self.mesh)
        if self.net is None:
            return maps
        from sg3cli.compositing.learned_maps import with_learned  # torch

        return with_learned(self.net, warp_quad(rgb, window, (2 * height, 2 * width)), plain, edited, maps)
