"""The codes of some frames: W+, and what an edit or a refinement has added where W+ does not reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sg3cli.files import RowFile


@dataclass(frozen=True)
class Codes:
    """`ws [n, num_ws, w_dim]`, float32, as everything here.

    `shift [n, channels]` is added to the styles that the codes give, in the order of `GeneratorConfig.style_sizes`; so
    an edit in StyleSpace is exact and the order of edits does not matter. `pose [n, 3, 3]` corrects where the face
    lies: a matrix on the side of the features, applied after a frame's transform. None: nothing is added.
    """

    ws: np.ndarray
    shift: np.ndarray | None = None
    pose: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ws)

    def __getitem__(self, rows: slice | np.ndarray) -> Codes:
        """Those of some frames."""
        return Codes(*(None if part is None else part[rows] for part in (self.ws, self.shift, self.pose)))  # type: ignore[arg-type]

    def placed(self, transforms: np.ndarray | None) -> np.ndarray:
        """`transforms [n, 3, 3]` (None: none) with the correction of the pose, `[n, 3, 3]` or `[3, 3]`."""
        if self.pose is None:
            return np.eye(3) if transforms is None else np.asarray(transforms)
        return self.pose if transforms is None else self.pose @ transforms


def as_codes(codes: Codes | np.ndarray) -> Codes:
    """Bare W+ codes as `Codes`."""
    return codes if isinstance(codes, Codes) else Codes(np.asarray(codes, dtype=np.float32))


def joined(parts: Sequence[Codes]) -> Codes:
    """The codes of several clips or faces as one; all have the same parts."""

    def whole(arrays: list[np.ndarray | None]) -> np.ndarray | None:
        there = [array for array in arrays if array is not None]
        return np.concatenate(there) if there else None

    ws, shift, pose = (whole([getattr(part, name) for part in parts]) for name in ("ws", "shift", "pose"))
    assert ws is not None
    return Codes(ws, shift, pose)


def between(plain: Codes, edited: Codes, shares: np.ndarray) -> Codes:
    """The codes on the straight line from `plain` to `edited`, by `shares [n]` of the way; the very ones at 0 and 1.

    What only one of them adds is 0 in the other; a pose is that of `edited`, which no edit changes.
    """

    def mixed(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
        if a is None and b is None:
            return None
        a, b = (np.zeros_like(b) if a is None else a), (np.zeros_like(a) if b is None else b)
        share = shares.astype(np.float32).reshape(-1, *[1] * (a.ndim - 1))
        return np.where(share == 1, b, a + share * (b - a))

    ws = mixed(plain.ws, edited.ws)
    assert ws is not None
    return Codes(ws, mixed(plain.shift, edited.shift), edited.pose)


@dataclass(frozen=True)
class CodeRows:
    """Codes of a whole clip that stay on disk: rows of each part, read when they are asked for."""

    ws: RowFile
    shift: RowFile | None = None
    pose: RowFile | None = None

    def __len__(self) -> int:
        return len(self.ws)

    @property
    def parts(self) -> Sequence[RowFile | None]:
        """W+ codes, StyleSpace, pose."""
        return self.ws, self.shift, self.pose

    def take(self, index: np.ndarray) -> Codes:
        """Codes of the frames `index [n]`, in that order."""
        return Codes(*(None if part is None else part.take(index) for part in self.parts))  # type: ignore[arg-type]
