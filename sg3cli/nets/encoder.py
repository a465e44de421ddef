"""Encoders of ReStyle (Alaluf et al. 2021): a residual trunk and one small head for each code of W+.

The trunk is the IR-SE network of ArcFace (Deng et al. 2019) or a ResNet-34. Heads are pSp's (each gives its
code) or e4e's (the first gives a base code, the others offsets from it). Parameters have the official names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.errors import ModelError
from sg3cli.nets.feature_branch import HIDDEN, FeatureBranch
from sg3cli.nets.layers import EqualLinear


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of an encoder; the defaults are those of the published IR-SE50 encoders.

    `stages` lists (channels, blocks). Each IR-SE stage halves the image; a ResNet's stem does, and all of its
    stages but the first.
    """

    input_nc: int = 6
    input_size: int = 256
    stem: int = 64
    stages: tuple[tuple[int, int], ...] = ((64, 3), (128, 4), (256, 14), (512, 3))
    head_dim: int = 512
    num_ws: int = 16
    w_dim: int = 512
    kind: str = "psp"  # psp | e4e
    se_reduction: int = 16  # 0: no squeeze-and-excitation
    trunk: str = "irse"  # irse | resnet
    detail: int = 0  # channels of a branch that sees twice the trunk's pixels (irse): the trunk then has input_size / 2
    features: int = 0  # components of what a backbone sees (`feature_branch`); 0: no such branch
    features_hidden: int = HIDDEN  # width of that branch's small network

    def __post_init__(self) -> None:
        if self.kind not in ("psp", "e4e") or self.trunk not in ("irse", "resnet"):
            raise ModelError(f"no such encoder: {self.kind} on {self.trunk}", "kinds: psp, e4e; trunks: irse, resnet")
        if self.detail and (self.trunk != "irse" or self.input_size % 2):
            raise ModelError("only an irse trunk on an even picture has a detail branch", "set detail to 0")

    @classmethod
    def resnet34(cls, **changes: Any) -> EncoderConfig:
        """The published encoders of domains other than faces."""
        return cls(trunk="resnet", stages=((64, 3), (128, 4), (256, 6), (512, 3)), **changes)

    @property
    def trunk_size(self) -> int:
        """Side of the picture that the trunk sees."""
        return self.input_size // 2 if self.detail else self.input_size

    @property
    def map_size(self) -> int:
        """Side of the trunk's last map; every halving rounds up."""
        count: int = -(-self.trunk_size // 2 ** len(self.stages))
        return count

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """Inverse of `to_dict`, also after JSON. Raises ModelError on an unknown entry."""
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ModelError(
                f"the encoder has settings this version does not know: {', '.join(unknown)}",
                "the file may come from a newer version",
            )
        changed = dict(values)
        if "stages" in changed:
            changed["stages"] = tuple((int(c), int(n)) for c, n in changed["stages"])
        return cls(**changed)


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their means (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True))))
        y: Tensor = x * gate.sigmoid()
        return y


class IRBlock(nn.Module):
    """Pre-normalised residual block of ArcFace's improved ResNet, with SE unless `se_reduction` is 0."""

    def __init__(self, in_channels: int, channels: int, stride: int, se_reduction: int = 16) -> None:
        super().__init__()
        if in_channels == channels:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)  # takes every stride-th pixel
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        branch: list[nn.Module] = [
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        ]
        if se_reduction:
            branch.append(SqueezeExcite(channels, se_reduction))
        self.res_layer = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return y


class BasicBlock(nn.Module):
    """Residual block of ResNet-18/34 (He et al. 2016)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class StyleHead(nn.Module):
    """map2style: strided convolutions until one pixel is left, then an equalised linear layer."""

    def __init__(self, in_channels: int, channels: int, size: int, w_dim: int) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        for _ in range(max((size - 1).bit_length(), 1)):
            convs += [nn.Conv2d(in_channels, channels, 3, 2, 1), nn.LeakyReLU(0.01)]
            in_channels = channels
        self.convs = nn.Sequential(*convs)
        self.linear = EqualLinear(channels, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, C, size, size] -> [N, w_dim]."""
        y: Tensor = self.linear(self.convs(x).flatten(1))
        return y


class DetailBranch(nn.Module):
    """Added to an encoder's stem: what a picture of twice the trunk's pixels says beyond its reduction.

    The last convolution begins with zeros, so an encoder that gets this branch gives the codes it gave before.
    """

    def __init__(self, in_channels: int, channels: int, stem: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, 1, 1),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 4, 2, 1),
            nn.PReLU(channels),
            nn.Conv2d(channels, stem, 3, 1, 1),
        )
        for parameter in self.convs[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,S,S] -> [N,stem,S/2,S/2]."""
        y: Tensor = self.convs(x)
        return y


def with_detail(encoder: Encoder, channels: int) -> Encoder:
    """A copy of an encoder that reads pictures of twice the size, through a new `DetailBranch`; same codes at first."""
    config = dataclasses.replace(encoder.config, input_size=2 * encoder.config.input_size, detail=channels)
    wider = Encoder(config)
    wider.load_state_dict(encoder.state_dict() | {k: v for k, v in wider.state_dict().items() if "detail." in k})
    return wider.train(encoder.training)


def with_features(encoder: Encoder, components: int, hidden: int = HIDDEN) -> Encoder:
    """A copy of an encoder with a new `FeatureBranch`, same codes; backbone and components are still to be set."""
    wider = Encoder(dataclasses.replace(encoder.config, features=components, features_hidden=hidden))
    new = {k: v for k, v in wider.state_dict().items() if k.startswith("features.")}
    wider.load_state_dict(encoder.state_dict() | new)
    return wider.train(encoder.training)


def ir_body(in_channels: int, stages: tuple[tuple[int, int], ...], se_reduction: int = 16) -> nn.Sequential:
    """The stages of an IR-SE network; the first block of each halves the image."""
    blocks = []
    for channels, count in stages:
        for i in range(count):
            blocks.append(IRBlock(in_channels, channels, stride=2 if i == 0 else 1, se_reduction=se_reduction))
            in_channels = channels
    return nn.Sequential(*blocks)


def _resnet_body(in_channels: int, stages: tuple[tuple[int, int], ...]) -> nn.Sequential:
    blocks = []
    for stage, (channels, count) in enumerate(stages):
        for i in range(count):
            blocks.append(BasicBlock(in_channels, channels, stride=2 if i == 0 and stage > 0 else 1))
            in_channels = channels
    return nn.Sequential(*blocks)


class Encoder(nn.Module):
    """Image and current reconstruction to an update of the codes."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        if config.trunk == "irse":
            self.input_layer = nn.Sequential(
                nn.Conv2d(config.input_nc, config.stem, 3, 1, 1, bias=False),
                nn.BatchNorm2d(config.stem),
                nn.PReLU(config.stem),
            )
            self.body = ir_body(config.stem, config.stages, config.se_reduction)
        else:
            self.conv1 = nn.Conv2d(config.input_nc, config.stem, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(config.stem)
            self.relu = nn.PReLU(config.stem)
            self.body = _resnet_body(config.stem, config.stages)
        self.detail = DetailBranch(config.input_nc, config.detail, config.stem) if config.detail else None
        sizes = (config.features, config.num_ws, config.w_dim, config.features_hidden)
        self.features = FeatureBranch(*sizes) if config.features else None
        channels = config.stages[-1][0]
        self.styles = nn.ModuleList(
            StyleHead(channels, config.head_dim, config.map_size, config.w_dim) for _ in range(config.num_ws)
        )

    def forward(self, x: Tensor, stage: int | None = None) -> Tensor:
        """x [N, input_nc, S, S] in [-1, 1] -> residual codes [N, num_ws, w_dim].

        `stage` is e4e's progressive training: codes after it get no offset of their own (None: all do).
        """
        ws = self._codes(self.body(self._stem(x)), stage)
        return ws if self.features is None else ws + self.features(x)

    def _codes(self, features: Tensor, stage: int | None) -> Tensor:
        """The trunk's last map [N,C,S,S] -> [N, num_ws, w_dim]."""
        if self.config.kind == "psp":
            return torch.stack([head(features) for head in self.styles], dim=1)
        last = len(self.styles) - 1
        active = last if stage is None else min(stage, last)
        base, *offsets = (head(features) for head in list(self.styles)[: active + 1])
        offsets = [base, *(base + d for d in offsets), *[base] * (last - active)]
        return torch.stack(offsets, dim=1)

    def _stem(self, x: Tensor) -> Tensor:
        if self.detail is not None:
            y: Tensor = self.input_layer(F.avg_pool2d(x, 2)) + self.detail(x)
        elif self.config.trunk == "irse":
            y = self.input_layer(x)
        else:
            y = self.relu(self.bn1(self.conv1(x)))
        return y
