"""How the edit of one frame goes over to it: by motion and light, and by what a model's network adds to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sg3cli.compositing.drawing_noise import without_noise
from sg3cli.compositing.motion_maps import motion_maps
from sg3cli.compositing.optical_flow import Shape
from sg3cli.compositing.own_lines import OwnLines, sagging
from sg3cli.compositing.registration import laid
from sg3cli.compositing.smiling import Smiling, smiled
from sg3cli.compositing.transfer import Transfer
from sg3cli.compositing.turning import turn_share
from sg3cli.faces.drawn_mesh import LIPS, DrawnMesh
from sg3cli.geometry import warp_quad

if TYPE_CHECKING:
    from sg3cli.nets.transfer_net import TransferNet

MULTIPLE = 8  # of the grid's sides, for the network


class Drawn(NamedTuple):
    """One frame's drawings without and with the edit `[N, M, 3]` (levels), and how the edit goes over to the source."""

    plain: np.ndarray
    edited: np.ndarray
    transfer: Transfer


@dataclass(frozen=True)
class MapMaker:
    """Makes the maps of single frames. `net` adds what motion and light do not tell; `mesh` says how mouths move and
    where in the frame the face of a drawing lies, without it dense flow alone does; `smiling` what goes with a smile.
    """

    net: TransferNet | None = None
    mesh: DrawnMesh | None = None
    smiling: Smiling | None = None

    def make(
        self,
        rgb: np.ndarray,
        window: np.ndarray,
        plain: np.ndarray,
        edited: np.ndarray,
        shape: Shape,
        kept: OwnLines | None = None,
        mouth: bool = True,
    ) -> Drawn:
        """Drawings `[N, M, 3]` uint8 of the frame `rgb [H, W, 3]` through `window [4, 2]`, laid onto it, with their
        maps; `shape` is the crop's where its square has `GRID` pixels, and is rounded. `kept`: lines that the face
        keeps; `mouth`: whether its mouth changes, and what goes with that."""
        height, width = (max(1, round(side / MULTIPLE)) * MULTIPLE for side in shape)
        source = warp_quad(rgb, window, (2 * height, 2 * width))
        plain, edited, points = laid(self.mesh, source, plain, edited, (height, width))
        maps = motion_maps(plain, edited, (height, width), points, source)
        if kept is not None and kept.older:
            lips = points[1][LIPS, :2] if mouth and points is not None else None
            maps = replace(maps, motion=sagging(maps.motion, lips))
        edited = without_noise(source, plain, edited, maps)
        # It has learned from few heads that turn, and makes those no better; but an older face has its folds from it.
        adds = 1.0 if kept is not None else 1 - turn_share(points)
        if self.net is not None and adds == 0:  # on its grid all the same: frames are mixed with those beside them
            maps = replace(maps, residual=np.zeros(source.shape, np.float32))
        elif self.net is not None:
            from sg3cli.compositing.learned_maps import with_learned  # torch

            maps = with_learned(self.net, source, plain, edited, maps, kept)
            maps = replace(maps, residual=np.float32(adds) * maps.residual)
        if self.smiling is not None and points is not None and mouth:
            maps, edited = smiled(maps, edited, points, self.smiling)
        return Drawn(plain, edited, maps)
