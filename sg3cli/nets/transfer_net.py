"""A small network that sees what motion and light make of an edit, and says what is missing to the picture it means.

The source S is seen at twice the size of two drawings of the face, P without and Q with the edit; R0 is S with what
motion and light tell of the two (`compositing.motion_maps`). The answer is a factor for R0:

    R = R0 + gate (R0 + 1 + dark) (exp(y) - 1)        y = net(S, R0, P, Q)

A drawing of 128 pixels tells of a wrinkle as a stain; the network has seen what wrinkles are. The gate is a smooth
function of |Q - P|: where a drawing does not change, the source stays as it is to the bit. A U-Net (Ronneberger et al.
2015) of 1.5 million parameters; the frame keeps its own resolution, only the factor has 256 pixels a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = 128  # pixels a side of the drawings that are compared
REACH = 15  # pixels of the grid over which what changes may take its surroundings along
LEVEL = 4 / 127.5  # mean difference of the drawings, in [-1, 1], at which half of the answer counts
LARGEST = 1.5  # logarithm of the largest factor
DARK = 8 / 127.5  # so much is never black
INPUTS = 12 + 12 + 3 + 3


@dataclass(frozen=True)
class TransferConfig:
    """Channels at 1, 1/2, 1/4, 1/8 of the grid."""

    widths: tuple[int, ...] = (32, 64, 112, 176)


class Block(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W] -> the same shape."""
        result: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return result


class TransferNet(nn.Module):
    """`residual = net(source, base, plain, edited)`; 0 with the weights it begins with."""

    def __init__(self, config: TransferConfig | None = None) -> None:
        super().__init__()
        self.config = config or TransferConfig()
        widths = self.config.widths
        self.stem = nn.Conv2d(INPUTS, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.encode = nn.ModuleList(Block(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.decode = nn.ModuleList(Block(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 12, 3, padding=1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()  # type: ignore[union-attr]

    def forward(self, source: Tensor, base: Tensor, plain: Tensor, edited: Tensor) -> Tensor:
        """What is added to the base [N,3,2n,2n], in [-1,1]; source as the base, plain and edited [N,3,n,n].

        n may differ down and across; both are multiples of 8.
        """
        seen = [F.pixel_unshuffle(source, 2), F.pixel_unshuffle(base - source, 2), plain, edited - plain]
        x = self.stem(torch.cat(seen, 1))
        kept = []
        for k, block in enumerate(self.encode):
            x = block(self.down[k - 1](x) if k else x)
            kept.append(x)
        for k in reversed(range(len(self.decode))):
            x = F.interpolate(self.up[k](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = self.decode[k](x + kept[k])
        y = F.pixel_shuffle(self.head(F.silu(x)).float(), 2)
        gate = F.interpolate(change_gate(plain, edited), scale_factor=2.0, mode="bilinear", align_corners=False)
        return gate * (base + 1 + DARK) * torch.expm1(LARGEST * torch.tanh(y / LARGEST))


def change_gate(plain: Tensor, edited: Tensor) -> Tensor:
    """[N,1,n,n] in 0..1: how much of an answer counts near where two drawings [N,3,n,n] differ; 0 where they agree."""
    change = (edited - plain).abs().mean(1, keepdim=True)
    near = F.max_pool2d(F.max_pool2d(change, (REACH, 1), 1, (REACH // 2, 0)), (1, REACH), 1, (0, REACH // 2))
    near = F.avg_pool2d(near, REACH, 1, REACH // 2, count_include_pad=False).square()
    return near / (near + LEVEL**2)
