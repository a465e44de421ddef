"""Synthesis network of StyleGAN3: Fourier features, then layers that are alias-free by construction."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping as MappingABC
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sg3cli.nets.generator_config import GeneratorConfig, LayerSpec
from sg3cli.nets.inference_buffers import Blocks, is_large
from sg3cli.nets.layers import EqualLinear
from sg3cli.nets.ops.filtered_lrelu import filter_case
from sg3cli.nets.ops.filters import design_lowpass_filter
from sg3cli.nets.ops.lrelu_spec import LreluSpec
from sg3cli.nets.ops.modulated_conv import modulated_conv2d, modulated_conv2d_into
from sg3cli.nets.ops.upfirdn import parse_padding

Styles = MappingABC[str, Tensor]
Sides = tuple[int, int, int, int]  # left, right, top, bottom
NO_MARGIN: Sides = (0, 0, 0, 0)


@lru_cache(maxsize=256)
def _designed(taps: int, cutoff: float, width: float, rate: int, radial: bool) -> Tensor | None:
    with torch.device("cpu"):  # a real filter also while a network is laid out on the meta device
        return design_lowpass_filter(taps, cutoff=cutoff, width=width, fs=rate, radial=radial)


def layer_filters(spec: LayerSpec) -> tuple[Tensor | None, Tensor | None]:
    """Up- and down-sampling filter of a layer, cut off at the band of its input and of its output."""
    up = _designed(spec.up_taps, spec.in_cutoff, 2 * spec.in_half_width, spec.tmp_rate, False)
    down = _designed(spec.down_taps, spec.out_cutoff, 2 * spec.out_half_width, spec.tmp_rate, spec.down_radial)
    return (None if up is None else up.clone()), (None if down is None else down.clone())


class SynthesisInput(nn.Module):
    """Fourier features on a canvas that w turns and shifts; the image spans [-0.5, 0.5] of it."""

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, w_dim: int, channels: int, size: int, rate: float, bandwidth: float) -> None:
        super().__init__()
        self.channels, self.size, self.rate, self.bandwidth = channels, size, rate, bandwidth
        self.weight = nn.Parameter(torch.randn(channels, channels))
        # Frequencies fill the disc of the first band evenly.
        radius = bandwidth * torch.rand(channels).sqrt()
        angle = 2 * math.pi * torch.rand(channels)
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1))
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.affine = EqualLinear(w_dim, 4, weight_init=0.0, bias_init=(1.0, 0.0, 0.0, 0.0))

    def styles(self, w: Tensor) -> Tensor:
        """w [N, w_dim] -> [N, 4]: cosine and sine of the learned rotation, translation in image widths."""
        pose = self.affine(w)
        y: Tensor = pose / pose[:, :2].norm(dim=1, keepdim=True)
        return y

    def forward(self, pose: Tensor, transform: Tensor | None = None, extra_samples: Sides = NO_MARGIN) -> Tensor:
        """pose [N, 4], transform [3, 3] or [N, 3, 3] (output to feature space) -> [N, C, size, size].

        `extra_samples` lie beyond each side of the canvas: those inside stay where they are.
        """
        matrix = _rotate_shift(pose) @ (self.transform if transform is None else transform.to(pose))
        phases = self.phases + torch.einsum("ck,nk->nc", self.freqs, matrix[:, :2, 2])
        freqs = self.freqs @ matrix[:, :2, :2]
        # A transform that zooms out raises the frequencies; those that leave the band fade before they alias.
        excess = (freqs.norm(dim=2) - self.bandwidth) / (self.rate / 2 - self.bandwidth)
        amplitudes = (1 - excess).clamp(0, 1)

        across, down = (self._axis(*sides).to(pose.dtype) for sides in (extra_samples[:2], extra_samples[2:]))
        angle = freqs[:, :, 0, None, None] * across[None, :] + freqs[:, :, 1, None, None] * down[:, None]
        x = ((angle + phases[:, :, None, None]) * (2 * math.pi)).sin() * amplitudes[:, :, None, None]
        mixed = (self.weight / math.sqrt(self.channels)) @ x.flatten(2)
        y: Tensor = mixed.unflatten(2, (len(down), len(across)))
        return y

    def _axis(self, before: int, after: int) -> Tensor:
        """Where the samples lie along one side, in image widths: [before + size + after]."""
        return (torch.arange(-before, self.size + after, device=self.freqs.device) + 0.5 - self.size / 2) / self.rate


def _rotate_shift(pose: Tensor) -> Tensor:
    """[N, 4] (c, s, tx, ty) -> [N, 3, 3]: rotation by (c, s) after translation by (-tx, -ty)."""
    c, s, tx, ty = pose.unbind(dim=1)
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    rotate = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=1).view(-1, 3, 3)
    shift = torch.stack([one, zero, -tx, zero, one, -ty, zero, zero, one], dim=1).view(-1, 3, 3)
    return rotate @ shift


class SynthesisLayer(nn.Module):
    """Modulated convolution, then leaky ReLU evaluated at a higher rate between two low-pass filters."""

    magnitude_ema: Tensor
    up_filter: Tensor | None
    down_filter: Tensor | None

    def __init__(self, spec: LayerSpec, config: GeneratorConfig) -> None:
        super().__init__()
        self.spec = spec
        self.clamp = config.conv_clamp
        self.conv_dtype: torch.dtype | None = None  # see `Synthesis.set_precision`
        self.magnitude_ema_beta = config.magnitude_ema_beta
        self.group_mean: Callable[[Tensor], Tensor] | None = None  # see `Synthesis.share_magnitudes`
        kernel = spec.conv_kernel
        self.weight = nn.Parameter(torch.randn(spec.out_channels, spec.in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(spec.out_channels))
        up_filter, down_filter = layer_filters(spec)
        self.register_buffer("magnitude_ema", torch.ones([]))
        self.register_buffer("up_filter", up_filter)
        self.register_buffer("down_filter", down_filter)
        self.affine = EqualLinear(config.w_dim, spec.in_channels, bias_init=1.0)

    def styles(self, w: Tensor) -> Tensor:
        """w [N, w_dim] -> one scale for each input channel [N, in_channels]."""
        s = self.affine(w)
        # ToRGB is not demodulated, so its fan-in is divided out here.
        y: Tensor = s / math.sqrt(self.spec.in_channels) if self.spec.is_torgb else s
        return y

    def forward(
        self, x: Tensor, s: Tensor, update_emas: bool = False, remat: bool = False, impl: str = "auto"
    ) -> Tensor:
        """x [N, I, in_size, in_size], styles s [N, I] -> [N, O, out_size, out_size].

        With `remat` nothing inside the layer is kept for the backward pass; it is computed again there.
        """
        if update_emas:
            magnitude = x.detach().float().square().mean()
            if self.group_mean is not None:
                magnitude = self.group_mean(magnitude)
            self.magnitude_ema.copy_(magnitude.lerp(self.magnitude_ema, self.magnitude_ema_beta))
        gain = self.magnitude_ema.rsqrt()  # outside of `_run`: its second run must see the same gain
        if remat and torch.is_grad_enabled():
            y: Tensor = checkpoint(self._run, x, s, gain, impl, use_reentrant=False)
            return y
        return self._run(x, s, gain, impl)

    def _run(self, x: Tensor, s: Tensor, gain: Tensor, impl: str) -> Tensor:
        return self.activate(self.convolve(x, s, gain, impl), impl)

    def convolve(self, x: Tensor, s: Tensor, gain: Tensor | None = None, impl: str = "auto") -> Tensor:
        """The first half of the layer: x [N, I, in_size, in_size] -> [N, O, in_size + k - 1, in_size + k - 1]."""
        return modulated_conv2d(
            x,
            self.weight,
            s,
            demodulate=not self.spec.is_torgb,
            padding=self.spec.conv_kernel - 1,
            input_gain=self.magnitude_ema.rsqrt() if gain is None else gain,
            dtype=self.conv_dtype,
            impl=impl,
        )

    @property
    def case(self) -> LreluSpec:
        """What `activate` does."""
        spec = self.spec
        filters, padding = (self.up_filter, self.down_filter), parse_padding(spec.padding)
        gain, slope = (1.0, 1.0) if spec.is_torgb else (math.sqrt(2), 0.2)
        return LreluSpec(*filters, spec.up, spec.down, padding, gain, slope, self.clamp)

    def activate(self, x: Tensor, impl: str = "auto", out: Tensor | None = None) -> Tensor:
        """The second half: what `convolve` gave -> [N, O, out_size, out_size], in `out` where that is given."""
        return filter_case(x, self.bias, self.case, impl, out)


class Synthesis(nn.Module):
    """Codes to images.

    checkpoint_layers: layers whose inside is recomputed in the backward pass (True: all), to save memory.
    impl: "auto", "torch" or "kernel", handed to `filtered_lrelu`.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        specs = config.layers()
        first = specs[0]
        self.num_ws = config.num_ws
        self.resolution = config.img_resolution
        self.output_scale = config.output_scale
        self.layer_names = config.layer_names
        self.checkpoint_layers: set[int] | bool = False
        self.impl = "auto"
        self.input = SynthesisInput(
            config.w_dim, first.in_channels, first.in_size, first.in_rate, bandwidth=first.in_cutoff
        )
        for spec in specs:
            self.add_module(spec.name, SynthesisLayer(spec, config))

    def set_precision(self, name: str) -> None:
        """ "fp32", or "bf16": convolutions multiply in bfloat16 and sum in float32; all else stays float32."""
        for layer in self.layers():
            layer.conv_dtype = {"fp32": None, "bf16": torch.bfloat16}[name]

    def share_magnitudes(self, group_mean: Callable[[Tensor], Tensor]) -> None:
        """Training over several processes: layers track the magnitude of the whole batch, through `group_mean`."""
        for layer in self.layers():
            layer.group_mean = group_mean

    def layers(self) -> list[SynthesisLayer]:
        return [getattr(self, name) for name in self.layer_names]

    def forward(
        self,
        ws: Tensor,
        transform: Tensor | None = None,
        update_emas: bool = False,
        expand: Sides = NO_MARGIN,
        shift: Tensor | None = None,
    ) -> Tensor:
        """ws [N, num_ws, w_dim] -> images [N, 3, R, R] float32, about [-1, 1].

        `transform` [3, 3] or [N, 3, 3] takes the place of the buffer `input.transform` in this call. It maps
        output to feature coordinates: give the inverse of the motion that the image shall make. `expand` widens
        the view by so many pixels on each side (left, right, top, bottom), see `expanded`. `shift` [N, channels] is
        added to the styles of the codes, its channels in the order of `style_space`.
        """
        styles = self.style_space(ws)
        if shift is not None:
            parts = torch.split(shift, [s.shape[1] for s in styles.values()], dim=1)
            styles = {name: s + part for (name, s), part in zip(styles.items(), parts, strict=True)}
        if expand != NO_MARGIN:
            return self.expanded(styles, transform, expand)
        return self.from_styles(styles, transform, update_emas)

    def style_space(self, ws: Tensor) -> dict[str, Tensor]:
        """ws [N, num_ws, w_dim] -> StyleSpace S: "input" [N, 4] and each layer's name [N, in_channels]."""
        if ws.ndim != 3 or ws.shape[1] != self.num_ws:
            raise ValueError(f"ws must be [N, {self.num_ws}, w_dim], not {list(ws.shape)}")
        first, *rest = ws.float().unbind(dim=1)
        styles = {"input": self.input.styles(first)}
        for name, layer, w in zip(self.layer_names, self.layers(), rest, strict=True):
            styles[name] = layer.styles(w)
        return styles

    def expanded(self, styles: Styles, transform: Tensor | None, expand: Sides) -> Tensor:
        """StyleSpace S -> images [N, 3, R + top + bottom, R + left + right], in one pass.

        Every layer is fully convolutional and keeps its padding, so a canvas that is larger by whole samples of the
        first rate gives an image that is larger by as many times R / rate, and the inside keeps its sample grid. The
        next whole number of samples is rendered and cut. (Instead of up to nine shifted renders: Alaluf et al. 2022,
        section 6.)
        """
        unit = self.resolution / self.input.rate
        if unit != int(unit):
            raise ValueError(f"a generator of {self.resolution} px cannot be expanded in one pass")
        left, right, top, bottom = (math.ceil(pixels / unit) for pixels in expand)
        extra_samples = (left, right, top, bottom)
        wide = self.from_styles(styles, transform, extra_samples=extra_samples)
        rows, columns = wide.shape[2:]
        drop = [int(unit) * samples - pixels for samples, pixels in zip(extra_samples, expand, strict=True)]
        return wide[:, :, drop[2] : rows - drop[3], drop[0] : columns - drop[1]]

    def from_styles(
        self,
        styles: Styles,
        transform: Tensor | None = None,
        update_emas: bool = False,
        extra_samples: Sides = NO_MARGIN,
    ) -> Tensor:
        """StyleSpace S (see `style_space`) -> images [N, 3, R, R], larger with `extra_samples` at the input."""
        x = self.input(styles["input"], transform, extra_samples)
        return self.through(x, styles, 0, len(self.layer_names), update_emas).float() * self.output_scale

    def through(self, x: Tensor, styles: Styles, first: int, last: int, update_emas: bool = False) -> Tensor:
        """Features x before layer `first` -> those before layer `last`, counted from 0, by the styles of the layers.

        After the last layer they are the image, `output_scale` aside.
        """
        blocks = Blocks([layer.spec for layer in self.layers()])
        for i, name in enumerate(self.layer_names[first:last], start=first):
            layer: SynthesisLayer = getattr(self, name)
            if not (torch.is_grad_enabled() or update_emas or layer._forward_hooks or layer._forward_pre_hooks):
                x = self._infer(layer, x, styles[name], blocks)
                continue
            chosen = self.checkpoint_layers
            remat = chosen if isinstance(chosen, bool) else i in chosen
            x = layer(x, styles[name], update_emas=update_emas, remat=remat, impl=self.impl)
        return x

    def _infer(self, layer: SynthesisLayer, x: Tensor, s: Tensor, blocks: Blocks) -> Tensor:
        """The layer without gradients; a large one in `blocks`, where its output takes the place of its input."""
        if self.impl == "torch" or not is_large(layer.spec, x):
            x = layer.convolve(x, s, impl=self.impl)  # in two steps: the input is free before the output is made
            return layer.activate(x, self.impl)
        spec, edge = layer.spec, layer.spec.conv_kernel - 1
        n, _, height, width = x.shape
        y = blocks.convolved(n, spec, height + edge, width + edge)
        modulated_conv2d_into(x, layer.weight, s, y, edge, layer.magnitude_ema.rsqrt(), layer.conv_dtype)
        height, width = layer.case.output_size(height + edge, width + edge)
        return layer.activate(y, self.impl, blocks.result(n, spec, height, width))
