"""What an edit does to a face beyond motion and light, told by a network from the source and the two drawings."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import torch

from sg3cli.compositing.channels import scaled, total
from sg3cli.compositing.forehead import on_forehead
from sg3cli.compositing.hue import in_the_hue_of
from sg3cli.compositing.optical_flow import at_grid
from sg3cli.compositing.own_lines import OwnLines, beside_own_lines
from sg3cli.compositing.paste import paste
from sg3cli.compositing.transfer import MAPS, Transfer
from sg3cli.levels import HALF, to_signed
from sg3cli.nets.transfer_net import TransferNet

FINEST = 1.5  # pixels of what the network sees: detail that is finer is the source's own
AREA = 4.0  # pixels over which it is judged
FOLD = 1 / 128  # of the square: over so much the colour of what is added is judged


@torch.inference_mode()
def with_learned(
    net: TransferNet,
    source: np.ndarray,
    plain: np.ndarray,
    edited: np.ndarray,
    maps: Transfer,
    kept: OwnLines | None = None,
) -> Transfer:
    """The `maps` `[h, w]` of one frame (multiples of 8) with what the network adds to what they make of it.

    `source [2h, 2w, 3]` (levels) is the frame through the window, `plain`, `edited` `[N, M, 3]` uint8 the drawings.
    Nothing is added where these agree. `kept`: lines of the face that stay.
    """
    shape = maps.motion.shape[0], maps.motion.shape[1]
    p, q = (_tensor(to_signed(at_grid(image, shape))) for image in (plain, edited))
    source = np.rint(source).clip(0, 255).astype(np.uint8)
    base = on_source(source, plain, edited, maps)
    residual = net(_tensor(to_signed(source)), _tensor(to_signed(base)), p, q)
    levels = _levels(residual)
    added = on_forehead(with_grain(levels, base), base, None if kept is None else kept.person)
    if kept is not None:
        added = in_hue(added, base, 2 * maps.side)
        if kept.hue:
            before = moved_alone(source, plain, edited, maps)
            light = base.astype(np.float32) - before  # a drawing has hues of its own that are finer than an area
            own = in_hue(light + added, before, 2 * maps.side) - light
            skin = cv2.resize(kept.skin, source.shape[1::-1], interpolation=cv2.INTER_LINEAR)
            added = added + scaled(own - added, skin)
        added = beside_own_lines(added, source, kept)
    return replace(maps, residual=added)


def in_hue(added: np.ndarray, base: np.ndarray, side: int) -> np.ndarray:
    """What is `added [H, W, 3]` (levels) to a picture `base`, whose square has `side` pixels, but for what changes its
    hue: a network that learned folds from other people's skin makes some green and some orange."""
    before, after = (_tensor(to_signed(image)) for image in (base, base + added))
    return _levels(in_the_hue_of(before, after, side, FOLD) - before)


def with_grain(added: np.ndarray, base: np.ndarray) -> np.ndarray:
    """What is `added [H, W, 3]` (levels) to a picture `base`, without what only makes that one's finest detail less.

    The share by which it does, in least squares over small areas: a network that is unsure of a pore takes half of it.
    """
    fine, own = (i - cv2.GaussianBlur(i, (0, 0), FINEST) for i in (added, base.astype(np.float32)))
    both, square = (cv2.GaussianBlur(total(a * own), (0, 0), AREA) for a in (fine, own))
    less = np.minimum(both / (square + 1.0), 0)
    result: np.ndarray = added - less[..., None] * own
    return result


def on_source(source: np.ndarray, plain: np.ndarray, edited: np.ndarray, maps: Transfer) -> np.ndarray:
    """What `maps` make of `source [H, W, 3]` uint8, all of which the window shows: R0 of the same shape."""
    height, width = source.shape[:2]
    window = np.array([[0, 0], [0, height], [width, height], [width, 0]], np.float64)
    return paste(source, edited, window, np.ones(maps.motion.shape[:2], np.float32), plain=plain, transfer=maps)


def moved_alone(source: np.ndarray, plain: np.ndarray, edited: np.ndarray, maps: Transfer) -> np.ndarray:
    """What the motion of `maps` makes of `source [H, W, 3]` uint8, in its own light."""
    still = {name: 0 * getattr(maps, name) for name in MAPS if name not in ("motion", "follows")}
    return on_source(source, plain, edited, replace(maps, **still))


def _levels(difference: torch.Tensor) -> np.ndarray:
    """A difference [1,3,H,W] of images in [-1,1] as levels `[H, W, 3]`."""
    result: np.ndarray = HALF * difference[0].permute(1, 2, 0).contiguous().float().cpu().numpy()
    return result


def _tensor(image: np.ndarray) -> torch.Tensor:
    """`[H, W, C]` as [1,C,H,W]; one frame at a time, so that a result does not depend on a batch."""
    return torch.from_numpy(np.ascontiguousarray(image, np.float32)).permute(2, 0, 1)[None]
