"""An older face keeps the lines that it has, a younger one those that are no wrinkles.

    A' = A + s (A * g - A)        s: 1 where the source's skin has a line, g: a Gaussian of AREA, A: what a network adds

Where a fold is, a drawing darkens it and flow takes that for motion; the network takes the fold back and draws one
where it expects it. What was left looked like a pen's scratch. A fold that is there says best where age lies: motion
sags as a whole, light deepens the fold, and of what the network adds there only an area's lightness counts.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from sg3cli.compositing.face_mask import smoothstep
from sg3cli.compositing.hue import REC601
from sg3cli.compositing.mouth_motion import around_mouth
from sg3cli.compositing.wide_blur import wide_blur

DARK = 6.0  # levels added before a logarithm
WIDTH = 5.0  # pixels over which lightness is what a line stands out from
LINE = (0.06, 0.18)  # logarithm by which it does: from here on it is one, and in full
RIM = (0.3, 0.5)  # logarithm by which the rim of glasses, a strand of hair or a mole does, and no wrinkle
NEAR = 7  # pixels of a square in which a line counts
AROUND = 2.0  # pixels over which that ends
AREA = 10.0  # pixels of an area, whose lightness is changed all the same
SAGS = 4.5  # pixels of the maps: what moves in less is a fold, which flow takes for a thing that moved


class OwnLines(NamedTuple):
    """Where a face keeps its lines: `skin [h, w]` 0..1, and how deep one is that begins to be kept, and in full; and
    whose it is, for new ones (`forehead.character`); `hue`: whether skin keeps its own, down to a fold."""

    skin: np.ndarray
    depth: tuple[float, float] = LINE
    person: np.ndarray | None = None
    hue: bool = False

    @property
    def older(self) -> bool:
        """Whether wrinkles are among them."""
        return self.depth == LINE


def sagging(motion: np.ndarray, lips: np.ndarray | None = None) -> np.ndarray:
    """Motion `[h, w, 2]` without what is too small for skin that sags; `lips [n, 2]` (pixels) that another edit moves
    do as they did."""
    result: np.ndarray = cv2.GaussianBlur(motion, (0, 0), SAGS)
    if lips is None:
        return result
    moves = around_mouth(lips, (motion.shape[0], motion.shape[1])).astype(np.float32)
    result += moves[..., None] * (motion - result)
    return result


def beside_own_lines(added: np.ndarray, source: np.ndarray, kept: OwnLines) -> np.ndarray:
    """What is `added [H, W, 3]` (levels) to a `source`, but for what is fine where there are lines that are `kept`."""
    own = line_depth(source) * cv2.resize(kept.skin, source.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    near = cv2.GaussianBlur(cv2.dilate(own, np.ones((NEAR, NEAR), np.uint8)), (0, 0), AROUND)
    share = smoothstep((near - kept.depth[0]) / (kept.depth[1] - kept.depth[0])).astype(np.float32)
    result: np.ndarray = added + share[..., None] * (wide_blur(added, AREA) - added)
    return result


def line_depth(image: np.ndarray) -> np.ndarray:
    """`[H, W]`: how far the lightness of `image [H, W, 3]` (levels) is from that of what is around, as a logarithm."""
    lightness = np.log(image.astype(np.float32) @ np.array(REC601, np.float32) + np.float32(DARK))
    result: np.ndarray = np.abs(lightness - wide_blur(lightness, WIDTH))
    return result
