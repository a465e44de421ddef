"""What one filtered leaky ReLU does to its samples: the part of a call that all implementations share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Padding = tuple[int, int, int, int]
FACTORS = (1, 2, 4)  # of up- and down-sampling that the compiled kernels do
TAPS_PER_PHASE = 6


class LreluSpec(NamedTuple):
    """Filters [taps] (separable), [h, w] or None (identity), and the numbers; see `filtered_lrelu`."""

    fu: Tensor | None
    fd: Tensor | None
    up: int = 1
    down: int = 1
    pad: Padding = (0, 0, 0, 0)
    gain: float = 2**0.5
    slope: float = 0.2
    clamp: float | None = None
    flip: bool = False

    @classmethod
    def of(
        cls,
        fu: Tensor | None,
        fd: Tensor | None,
        up: int,
        down: int,
        pad: Sequence[int],
        gain: float,
        slope: float,
        clamp: float | None,
        flip: bool,
    ) -> LreluSpec:
        """From the arguments of a custom operator, whose padding is a list."""
        x0, x1, y0, y1 = pad
        return cls(fu, fd, up, down, (x0, x1, y0, y1), gain, slope, clamp, flip)

    @property
    def numbers(self) -> tuple[int, int, list[int], float, float, float | None, bool]:
        """All but the filters, as the custom operators take them."""
        return self.up, self.down, list(self.pad), self.gain, self.slope, self.clamp, self.flip

    @property
    def taps(self) -> tuple[int, int]:
        """Lengths of the up and the down filter along an axis."""
        return (1 if self.fu is None else self.fu.shape[0]), (1 if self.fd is None else self.fd.shape[0])

    @property
    def full(self) -> bool:
        """Whether the down filter is two-dimensional."""
        return self.fd is not None and self.fd.ndim == 2

    def sizes(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Height and width of the up-sampled grid and of the output."""
        up_taps, down_taps = self.taps
        grid_w = width * self.up + self.pad[0] + self.pad[1] - up_taps + 1
        grid_h = height * self.up + self.pad[2] + self.pad[3] - up_taps + 1
        return grid_h, grid_w, (grid_h - down_taps) // self.down + 1, (grid_w - down_taps) // self.down + 1

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the output for an input of height x width."""
        return self.sizes(height, width)[2:]

    def suits_kernels(self, x: Tensor) -> bool:
        """Whether this on `x` [N, C, H, W] is of a kind that kernels do: see FACTORS; the up filter is separable."""
        up_taps, down_taps = self.taps
        known = all(f is None or (f.dtype == torch.float32 and not f.requires_grad) for f in (self.fu, self.fd))
        return (
            known
            and not (self.fu is None and self.fd is None)
            and (self.fu is None or self.fu.ndim == 1)
            and self.up in FACTORS
            and self.down in FACTORS
            and up_taps <= TAPS_PER_PHASE * self.up
            and down_taps <= TAPS_PER_PHASE * self.down
            and self.gain > 0
            and x.ndim == 4
            and x.numel() > 0
            and min(self.sizes(x.shape[2], x.shape[3])) > 0
        )
