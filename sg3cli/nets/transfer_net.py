"""A small network that says how an edit goes over to the source: what moved, what light changed, what is new.

It sees the source S at twice the size of two drawings of the face, P without and Q with the edit, and the optical flow
between the two. Its answer are maps, not a picture, so that the source is read at its own resolution:

    R(x) = (1 - new) ((1 + gain) S(x + u) + added (Q(x) - (1 + gain) P(x + u))) + new Q(x) + residual

Everything is multiplied by a smooth function of |Q - P|: where a drawing does not change, the source stays as it is to
the bit. A U-Net (Ronneberger et al. 2015) in float32 or bfloat16, about a million parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GRID = 128  # pixels a side of the drawings that are compared, and of the maps
REACH = 15  # pixels of the grid over which what changes may take its surroundings along
LEVEL = 4 / 127.5  # mean difference of the drawings, in [-1, 1], at which half of the answer counts
FARTHEST = 0.08  # of the side: by so much the network may correct the flow
LARGEST = 0.6  # logarithm of the largest gain
INPUTS = 12 + 3 + 3 + 2 + 3 + 3


@dataclass(frozen=True)
class TransferConfig:
    """Channels at 1, 1/2, 1/4, 1/8 of the grid."""

    widths: tuple[int, ...] = (16, 48, 96, 160)


class TransferMaps(NamedTuple):
    """How an edit goes over, for a batch; all but the residual on the grid of n pixels a side.

    motion [N,2,n,n]: u, x before y, in units of `GRID` pixels of the grid: Q(x) is P(x + u). gain [N,1,n,n]: a factor
    less 1.
    added [N,1,n,n]: share of what the drawings differ by. new [N,1,n,n]: share of the drawing itself.
    residual [N,3,2n,2n] in units of [-1, 1].
    """

    motion: Tensor
    gain: Tensor
    added: Tensor
    new: Tensor
    residual: Tensor


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
    """`maps = net(source, plain, edited, flow)`; with the weights it begins with, the maps add the difference of the
    drawings after the flow."""

    def __init__(self, config: TransferConfig | None = None) -> None:
        super().__init__()
        self.config = config or TransferConfig()
        widths = self.config.widths
        self.stem = nn.Conv2d(INPUTS, widths[0], 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths))
        self.encode = nn.ModuleList(Block(width) for width in widths)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(widths))
        self.decode = nn.ModuleList(Block(width) for width in widths[:-1])
        self.head = nn.Conv2d(widths[0], 2 + 4 + 12, 3, padding=1)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()  # type: ignore[union-attr]
            self.head.bias[3:6] = torch.tensor([2.0, 2.0, -4.0])  # type: ignore[index]

    def forward(self, source: Tensor, plain: Tensor, edited: Tensor, flow: Tensor) -> TransferMaps:
        """source [N,3,2n,2n], plain and edited [N,3,n,n] in [-1,1], flow [N,2,n,n] as the maps' motion.

        n may differ down and across; both are multiples of 8.
        """
        moved = read_at(plain, flow)
        small = F.avg_pool2d(source, 2)
        x = torch.cat([F.pixel_unshuffle(source, 2), plain, edited, 10 * flow, edited - moved, small - plain], 1)
        x = self.stem(x)
        kept = []
        for k, block in enumerate(self.encode):
            x = block(self.down[k - 1](x) if k else x)
            kept.append(x)
        for k in reversed(range(len(self.decode))):
            x = F.interpolate(self.up[k](x), scale_factor=2, mode="bilinear", align_corners=False)
            x = self.decode[k](x + kept[k])
        return self._maps(self.head(F.silu(x)).float(), flow, change_gate(plain, edited))

    def _maps(self, y: Tensor, flow: Tensor, gate: Tensor) -> TransferMaps:
        """The head's y [N,18,n,n] as maps; gate [N,1,n,n] is 0 where the drawings agree."""
        motion = gate * (torch.sigmoid(y[:, 3:4]) * flow + FARTHEST * torch.tanh(y[:, :2]))
        gain = gate * torch.expm1(LARGEST * torch.tanh(y[:, 2:3]))
        added, new = gate * torch.sigmoid(y[:, 4:5]), gate * torch.sigmoid(y[:, 5:6])
        residual = F.pixel_shuffle(torch.tanh(y[:, 6:]), 2)
        return TransferMaps(motion, gain, added, new, F.interpolate(gate, scale_factor=2.0, mode="bilinear") * residual)


def change_gate(plain: Tensor, edited: Tensor) -> Tensor:
    """[N,1,n,n] in 0..1: how much of an answer counts near where two drawings [N,3,n,n] differ; 0 where they agree."""
    change = (edited - plain).abs().mean(1, keepdim=True)
    near = F.max_pool2d(change, REACH, 1, REACH // 2)
    near = F.avg_pool2d(near, REACH, 1, REACH // 2, count_include_pad=False).square()
    return near / (near + LEVEL**2)


def read_at(image: Tensor, motion: Tensor, mode: str = "bilinear", side: int = GRID) -> Tensor:
    """image [N,C,H,W] at x + motion [N,2,H,W] (units of `side` pixels); beyond its edge it goes on as it is there."""
    height, width = image.shape[2:]
    y = (torch.arange(height, device=image.device, dtype=motion.dtype) + 0.5) / height
    x = (torch.arange(width, device=image.device, dtype=motion.dtype) + 0.5) / width
    across, down = motion[:, 0] * (side / width), motion[:, 1] * (side / height)
    place = torch.stack([x[None, None, :] + across, y[None, :, None] + down], -1)
    return F.grid_sample(image, 2 * place - 1, mode=mode, padding_mode="border", align_corners=False)


def transferred(source: Tensor, plain: Tensor, edited: Tensor, maps: TransferMaps) -> Tensor:
    """The result [N,3,2n,2n] of the maps on the source at the size that the network sees, for training."""

    def enlarged(x: Tensor) -> Tensor:
        return F.interpolate(x, size=source.shape[2:], mode="bilinear", align_corners=False)

    moved = read_at(source, enlarged(maps.motion), "bicubic", 2 * GRID)
    change = (edited + 1) - (1 + maps.gain) * (read_at(plain, maps.motion) + 1)
    change, large = (F.interpolate(x, size=source.shape[2:], mode="bicubic") for x in (maps.added * change, edited))
    new = enlarged(maps.new)
    kept = (1 + enlarged(maps.gain)) * (moved + 1) - 1 + change
    return (1 - new) * kept + new * large + maps.residual
