"""An edit brought over to the frame: the drawings say what changes, the source keeps its own pixels.

P is the face as it is drawn without the edit, Q with it, S the frame, all seen through one window. Maps on a coarse
grid say where the source's pixels go and what is done to them:

    R(x) = (1 - new) ((1 + gain) S'(x + u) + added (Q(x) - (1 + gain) P(x + u))) + new Q(x) + residual

S' is S with what is finer than a drawing can show reduced by `texture`: where a beard goes, its hairs go. Q equal to P
gives S to the bit. The frame is read once, at its own resolution; only the maps and the drawings are enlarged.
`motion_maps` and `learned_maps` make them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sg3cli.compositing.channels import length, scaled, weighted
from sg3cli.compositing.wide_blur import wide_blur
from sg3cli.geometry import quad_matrix

FINE = 0.8  # pixels of the motion's grid: what is finer is the source's alone
GRAIN = 0.8  # frame pixels: the scale of what interpolation takes
AREA = 3.0  # frame pixels over which grain is measured
NEAR = 12  # frame pixels around what is read, so that it is measured alike
GREEN = np.array([0.25, 0.5, 0.25], np.float32)  # weights by which grain is measured
LEAST = 1 / 64  # frame pixels: what moves by less is read where it is
STILL = 0.2  # frame pixels: what moves by less is hardly read between pixels
QUIET = 1.0  # levels of grain that make no difference
MOST = 1.6  # by which grain is made stronger
CALM = 0.05  # of the square's side: nothing smaller than this moves on its own around the face

MAPS = ("motion", "follows", "gain", "added", "new", "residual", "texture")  # of a transfer that every frame has

Warp = Callable[[np.ndarray], np.ndarray]  # an image of the window -> the same at the frame's pixels, float32


@dataclass(frozen=True)
class Transfer:
    """Maps of one frame, float32, on grids over one window whose square part has `side` pixels on the motion's grid.

    motion `[h, w, 2]`: u, x before y, in shares of the square's side. follows `[h, w, 2]`: the same, of what moves with
    the edited part whatever else stays (`compositing.smiling`). gain `[h, w, 1 or 3]`: a factor less 1. added and
    new `[h, w, 1]`: shares. residual `[a h, a w, 3]` in levels, any whole a. texture `[h, w, 1]`: a factor less 1 of
    what is fine. skin `[h, w]`: the share by which the skin's own structure becomes more (`compositing.skin`); None: as
    it is.
    """

    motion: np.ndarray
    follows: np.ndarray
    gain: np.ndarray
    added: np.ndarray
    new: np.ndarray
    residual: np.ndarray
    texture: np.ndarray
    side: int
    skin: np.ndarray | None = None

    def mixed(self, weights: np.ndarray, others: Sequence[Transfer]) -> Transfer:
        """The sum of `others`, each weighted by one of `weights [T]`."""
        weights = weights.astype(np.float32)

        def total(name: str) -> np.ndarray:
            result: np.ndarray = np.tensordot(weights, np.stack([getattr(maps, name) for maps in others]), 1)
            return result

        mixed = {name: total(name) for name in MAPS}
        return Transfer(**mixed | {"new": mixed["new"].clip(0, 1)}, side=self.side)

    @property
    def moves(self) -> np.ndarray:
        """All motion, `[h, w, 2]`."""
        result: np.ndarray = self.motion + self.follows
        return result

    def read_at(self, follows: np.ndarray) -> Transfer:
        """The transfer whose result at x is that of this one at x + follows `[h, w, 2]`, if Q is read there as well."""

        def read(name: str) -> np.ndarray:
            return _deep(read_moved(getattr(self, name), follows, self.side, cv2.INTER_LINEAR))

        maps = {name: read(name) for name in MAPS}
        return replace(self, **maps | {"follows": maps["follows"] + follows})

    def lit_on(self, face: np.ndarray) -> Transfer:
        """The transfer with nothing but its motion beyond the `face [h, w]`.

        Where a jaw moves, what flow does not see of it is read as light: hair beside it turned black.
        """
        large = sized(face[..., None], self.residual.shape[:2])
        changes = {name: getattr(self, name) * face[..., None] for name in ("gain", "added", "new", "texture")}
        return replace(self, **changes, residual=self.residual * large)

    def within(self, face: np.ndarray, share: np.ndarray, following: np.ndarray) -> Transfer:
        """The transfer with its motion as it is on the `face [h, w]`, smooth around it, and reduced to `share [h, w]`;
        what follows, to `following [h, w]`.

        Around the face there is hair and a wall, which a drawing tells little of: what moves there follows the head.
        """
        calm = cv2.GaussianBlur(self.motion, (0, 0), CALM * self.side)
        motion = calm + face[..., None] * (self.motion - calm)
        texture = self.texture * (face * share)[..., None]
        follows = self.follows * following[..., None]
        return replace(self, motion=motion * share[..., None], follows=follows, texture=texture)


def moved_frame(
    frame: np.ndarray, window: np.ndarray, box: tuple[slice, slice], transfer: Transfer, warp: Warp
) -> np.ndarray:
    """S'(x + u) `[h, w, 3]` float32 at the pixels `box` of `frame [H, W, 3]`; where maps are 0 its very values.

    `window [4, 2]` is what the maps cover: the square, expanded or not.
    """
    rows, columns = box
    shape = transfer.motion.shape[:2]
    motion = warp(transfer.moves * np.float32(transfer.side))
    linear = quad_matrix(window, shape)[:2, :2].astype(np.float32)
    motion = motion @ linear.T  # from pixels of the grid to frame pixels
    result = frame[box].astype(np.float32)
    far = length(motion)
    if (part := extent(far > LEAST)) is not None:
        x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, part[1]] + motion[*part, 0]
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[part[0], None] + motion[*part, 1]
        moved = cv2.remap(frame, x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
        result[part] = as_grainy(moved, frame, x, y, np.clip(far[part] / STILL, 0, 1))
    if transfer.texture.any():
        fine = result - wide_blur(result, FINE * pixels_of(window, shape))
        result += _deep(warp(transfer.texture)) * fine
    return result


def extent(where: np.ndarray) -> tuple[slice, slice] | None:
    """Rows and columns that hold all of `where [h, w]` bool; None where it is nowhere."""
    x, y, width, height = cv2.boundingRect(where.astype(np.uint8))
    return (slice(y, y + height), slice(x, x + width)) if width else None


def pixels_of(window: np.ndarray, shape: tuple[int, int]) -> float:
    """How many frame pixels, along a line, one of the grid of `shape` over `window [4, 2]` is."""
    return float(np.sqrt(abs(np.linalg.det(quad_matrix(window, shape)[:2, :2]))))


def as_grainy(moved: np.ndarray, frame: np.ndarray, x: np.ndarray, y: np.ndarray, where: np.ndarray) -> np.ndarray:
    """`moved [h, w, 3]` with as much of what is finest as `frame` has at `x`, `y` `[h, w]`, by shares `where [h, w]`.

    Between pixels a frame is read by interpolation, which takes a good part of single pixels' contrast: skin that moved
    by half a pixel lay as a soft patch among skin that did not.
    """
    low = [max(0, int(values.min()) - NEAR) for values in (x, y)]
    high = [int(values.max()) + NEAR + 2 for values in (x, y)]
    around = weighted(frame[low[1] : high[1], low[0] : high[0]].astype(np.float32), GREEN)
    has = cv2.remap(_energy(_grain(around)), x - low[0], y - low[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    grain = _grain(moved)
    share = np.sqrt((has + QUIET**2) / (_energy(weighted(grain, GREEN)) + QUIET**2)).clip(1, MOST)
    result: np.ndarray = moved + scaled(grain, where * (share - 1))
    return result


def _grain(image: np.ndarray) -> np.ndarray:
    result: np.ndarray = image - cv2.GaussianBlur(image, (0, 0), GRAIN)
    return result


def _energy(grain: np.ndarray) -> np.ndarray:
    result: np.ndarray = wide_blur(grain * grain, AREA)
    return result


def applied(moved: np.ndarray, plain: np.ndarray, edited: np.ndarray, transfer: Transfer, warp: Warp) -> np.ndarray:
    """R `[h, w, 3]` float32 from the moved frame `[h, w, 3]` and the drawings `[N, M, 3]`.

    What S' is multiplied by, and what is added to it, are put together on the grids: two images are enlarged, not five.
    """
    shape = plain.shape[:2]
    gain, added, new = (sized(values, shape) for values in (transfer.gain, transfer.added, transfer.new))
    q = edited.astype(np.float32)
    change = added * (q - (1 + gain) * read_moved(plain, transfer.moves, transfer.side))
    if new.any():
        change += new * (q - change)
    factor = transfer.gain - transfer.new * (1 + transfer.gain)
    result: np.ndarray = moved + _deep(warp(factor)) * moved + warp(_together(change, transfer.residual))
    return result


def _together(change: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """The sum of two images `[., ., 3]` of one window, on the finer one's grid."""
    if not residual.any():
        return change
    if len(residual) <= len(change):
        coarse: np.ndarray = change + sized(residual, (change.shape[0], change.shape[1]))
        return coarse
    fine: np.ndarray = residual + cv2.resize(change, residual.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return fine


def read_moved(image: np.ndarray, motion: np.ndarray, side: int, how: int = cv2.INTER_CUBIC) -> np.ndarray:
    """`image [N, M, C]` at x + u, float32; `motion [h, w, 2]` in units of `side` pixels of its own grid."""
    height, width = image.shape[:2]
    motion = sized(motion, (height, width)) * np.float32(side * height / len(motion))
    x = np.arange(width, dtype=np.float32)[None, :] + motion[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + motion[..., 1]
    values = image.astype(np.float32)
    result: np.ndarray = cv2.remap(values, x, y, how, borderMode=cv2.BORDER_REPLICATE)
    return result


def sized(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map `[h, w, C]` on another grid; C stays."""
    if values.shape[:2] == shape:
        return values
    how = cv2.INTER_AREA if values.shape[0] > shape[0] else cv2.INTER_LINEAR
    return _deep(cv2.resize(values, shape[::-1], interpolation=how))


def _deep(values: np.ndarray) -> np.ndarray:
    """`[h, w]` as `[h, w, 1]`: OpenCV drops a single channel."""
    return values[..., None] if values.ndim == 2 else values
