"""Two blocks of memory that the large layers of a pass without gradients use in turn.

At 1024 px every layer takes hundreds of megabytes. Freed one by one, tensors of ever other sizes leave holes in the
heap that no later one fits, and the peak depends on luck.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sg3cli.nets.generator_config import LayerSpec

LARGE = 1 << 25  # bytes of a convolution's output from which a layer works in the blocks


class Blocks:
    """One block for what convolutions give, one for what layers give; made when the first layer asks."""

    def __init__(self, specs: Sequence[LayerSpec]) -> None:
        self._specs = [spec for spec in specs if not spec.is_torgb]
        self._blocks: dict[str, Tensor] = {}

    def convolved(self, n: int, spec: LayerSpec, height: int, width: int) -> Tensor:
        """Uninitialised [n, spec.out_channels, height, width] for a convolution's output."""
        most = max(s.out_channels * (s.in_size + s.conv_kernel - 1) ** 2 for s in self._specs)
        return self._take("convolved", most, (n, spec.out_channels, height, width))

    def result(self, n: int, spec: LayerSpec, height: int, width: int) -> Tensor:
        """Uninitialised [n, spec.out_channels, height, width] in place of the layer's input."""
        most = max(s.out_channels * s.out_size**2 for s in self._specs)
        return self._take("result", most, (n, spec.out_channels, height, width))

    def _take(self, name: str, most: int, shape: tuple[int, int, int, int]) -> Tensor:
        n, channels, height, width = shape
        size = n * channels * height * width
        block = self._blocks.get(name)
        if block is None or block.numel() < size:  # beyond the plan only where the canvas was widened
            block = self._blocks[name] = torch.empty(max(n * most, size))
        return block[:size].view(shape)


def is_large(spec: LayerSpec, x: Tensor) -> bool:
    """Whether a layer on `x` [N, I, H, W] works in blocks: float32 on a CPU, and enough to matter."""
    edge = spec.conv_kernel - 1
    size = 4 * x.shape[0] * spec.out_channels * (x.shape[2] + edge) * (x.shape[3] + edge)
    return not spec.is_torgb and x.device.type == "cpu" and x.dtype == torch.float32 and size >= LARGE
