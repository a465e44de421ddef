"""Residual discriminator of StyleGAN2 (Karras et al. 2020), which StyleGAN3 uses unchanged; official names."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.nets.layers import EqualLinear
from sg3cli.nets.ops.upfirdn import downsample2d, setup_filter, upfirdn2d

_BINOMIAL = (1.0, 3.0, 3.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """`img_resolution` must be a power of two, at least 8; widths are min(channel_base / resolution, channel_max)."""

    img_resolution: int
    img_channels: int = 3
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = 256.0
    mbstd_group_size: int = 4
    mbstd_num_channels: int = 1

    def __post_init__(self) -> None:
        if self.img_resolution < 8 or self.img_resolution & (self.img_resolution - 1):
            raise ValueError(f"img_resolution must be a power of two from 8, not {self.img_resolution}")

    def channels(self, resolution: int) -> int:
        return min(self.channel_base // resolution, self.channel_max)


class EqualConv(nn.Module):
    """Convolution with equalised learning rate, then optionally leaky ReLU; `down` 2 low-passes and decimates."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: int,
        down: int = 1,
        activate: bool = True,
        bias: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.kernel, self.down, self.activate, self.clamp = kernel, down, activate, clamp
        self.weight_gain = 1 / math.sqrt(in_channels * kernel**2)
        self.weight = nn.Parameter(torch.randn(channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.register_buffer("resample_filter", setup_filter(_BINOMIAL))

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[N, I, H, W] -> [N, O, H/down, W/down], times `gain`."""
        weight = self.weight * self.weight_gain
        pad = self.kernel // 2
        if self.down == 1:
            x = F.conv2d(x, weight, padding=pad)
        elif self.kernel == 1:
            x = F.conv2d(downsample2d(x, self.resample_filter), weight)
        else:
            taps = self.resample_filter.shape[0]
            before, after = pad + (taps - self.down + 1) // 2, pad + (taps - self.down) // 2
            x = upfirdn2d(x, self.resample_filter, padding=(before, after, before, after))
            x = F.conv2d(x, weight, stride=self.down)
        if self.bias is not None:
            x = x + self.bias[:, None, None]
        if self.activate:
            x, gain = F.leaky_relu(x, 0.2), gain * math.sqrt(2)
        x = x * gain if gain != 1 else x
        return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)


class DiscriminatorBlock(nn.Module):
    """Two convolutions beside a linear skip; halves the image."""

    resample_filter: Tensor

    def __init__(self, config: DiscriminatorConfig, resolution: int) -> None:
        super().__init__()
        width, wider = config.channels(resolution), config.channels(resolution // 2)
        clamp = config.conv_clamp
        self.register_buffer("resample_filter", setup_filter(_BINOMIAL))
        self.fromrgb: EqualConv | None = None
        if resolution == config.img_resolution:
            self.fromrgb = EqualConv(config.img_channels, width, 1, clamp=clamp)
        self.conv0 = EqualConv(width, width, 3, clamp=clamp)
        self.conv1 = EqualConv(width, wider, 3, down=2, clamp=clamp)
        self.skip = EqualConv(width, wider, 1, down=2, activate=False, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.fromrgb is not None:
            x = self.fromrgb(x)
        half = math.sqrt(0.5)  # the sum of two branches keeps the variance of one
        y: Tensor = self.skip(x, gain=half) + self.conv1(self.conv0(x), gain=half)
        return y


class DiscriminatorEpilogue(nn.Module):
    """From 4x4 features to one logit, with the batch's standard deviation as an extra channel."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        width = config.channels(4)
        self.group_size, self.num_channels = config.mbstd_group_size, config.mbstd_num_channels
        self.conv = EqualConv(width + self.num_channels, width, 3, clamp=config.conv_clamp)
        self.fc = EqualLinear(width * 16, width, activate=True)
        self.out = EqualLinear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.num_channels:
            x = torch.cat([x, minibatch_std(x, self.group_size, self.num_channels)], dim=1)
        y: Tensor = self.out(self.fc(self.conv(x).flatten(1)))
        return y


def minibatch_std(x: Tensor, group_size: int, num_channels: int) -> Tensor:
    """Mean deviation within groups of samples, x [N, C, H, W] -> [N, num_channels, H, W] (Karras et al. 2018).

    The last batch of an epoch may not be a multiple of `group_size`; then the groups are smaller.
    """
    n, channels, h, w = x.shape
    group = math.gcd(n, group_size)
    grouped = x.reshape(group, n // group, num_channels, channels // num_channels, h, w)
    std = (grouped.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=(2, 3, 4))
    return std.repeat(group, 1)[:, :, None, None].expand(-1, -1, h, w)


class Discriminator(nn.Module):
    """Images [N, 3, R, R] in [-1, 1] to logits [N, 1]."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        resolution = config.img_resolution
        self.block_names: list[str] = []
        while resolution > 4:
            self.block_names.append(f"b{resolution}")
            self.add_module(self.block_names[-1], DiscriminatorBlock(config, resolution))
            resolution //= 2
        self.b4 = DiscriminatorEpilogue(config)

    def forward(self, img: Tensor) -> Tensor:
        x = img
        for name in self.block_names:
            x = getattr(self, name)(x)
        y: Tensor = self.b4(x)
        return y
