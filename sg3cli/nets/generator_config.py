"""The shape of a StyleGAN3 generator: its hyper-parameters and what follows from them for every layer.

Everything here is arithmetic on numbers; no tensor is made. Notation and formulas: Karras et al., "Alias-Free
Generative Adversarial Networks" (2021), section 3.2 and appendix F.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from sg3cli.errors import ModelError

# Arguments of the official constructor that change speed or training, never the image.
_IGNORED_OFFICIAL = {"num_fp16_res", "fused_modconv_default"}


@dataclass(frozen=True)
class LayerSpec:
    """One synthesis layer: rates in samples and cutoffs in cycles per image width, sizes in pixels."""

    name: str
    is_torgb: bool
    is_critical: bool
    in_channels: int
    out_channels: int
    in_size: int
    out_size: int
    in_rate: int
    out_rate: int
    in_cutoff: float
    out_cutoff: float
    in_half_width: float
    out_half_width: float
    conv_kernel: int
    filter_size: int
    lrelu_upsampling: int
    use_radial_filters: bool

    @property
    def tmp_rate(self) -> int:
        """Rate at which the non-linearity runs; ToRGB has none and stays at its own rate."""
        return max(self.in_rate, self.out_rate) * (1 if self.is_torgb else self.lrelu_upsampling)

    @property
    def up(self) -> int:
        return self.tmp_rate // self.in_rate

    @property
    def down(self) -> int:
        return self.tmp_rate // self.out_rate

    @property
    def up_taps(self) -> int:
        return self.filter_size * self.up if self.up > 1 and not self.is_torgb else 1

    @property
    def down_taps(self) -> int:
        return self.filter_size * self.down if self.down > 1 and not self.is_torgb else 1

    @property
    def down_radial(self) -> bool:
        return self.use_radial_filters and not self.is_critical

    @property
    def padding(self) -> tuple[int, int, int, int]:
        """(x0, x1, y0, y1) at the temporary rate: makes the output `out_size` pixels, centred."""
        total = (self.out_size - 1) * self.down + 1  # samples needed before the last decimation
        total -= (self.in_size + self.conv_kernel - 1) * self.up  # samples there after zero insertion
        total += self.up_taps + self.down_taps - 2  # eaten by the two filters
        low = (total + self.up) // 2
        return low, total - low, low, total - low


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """Hyper-parameters of a StyleGAN3 generator; the defaults are those of configuration T."""

    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    img_resolution: int
    img_channels: int = 3
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    w_avg_beta: float = 0.998
    channel_base: int = 32768
    channel_max: int = 512
    num_layers: int = 14
    num_critical: int = 2
    first_cutoff: float = 2.0
    first_stopband: float = 2.0**2.1
    last_stopband_rel: float = 2.0**0.3
    margin_size: int = 10
    output_scale: float = 0.25
    conv_kernel: int = 3
    filter_size: int = 6
    lrelu_upsampling: int = 2
    use_radial_filters: bool = False
    conv_clamp: float | None = 256.0
    magnitude_ema_beta: float = 0.5 ** (32 / 20000)

    @classmethod
    def stylegan3_t(cls, resolution: int, channel_base: int | None = None) -> GeneratorConfig:
        """Configuration T (translation) with the published widths; 256 px has half of them, as FFHQ-U-256."""
        base = channel_base or (16384 if resolution <= 256 else 32768)
        return cls(img_resolution=resolution, channel_base=base)

    @classmethod
    def stylegan3_r(cls, resolution: int, channel_base: int | None = None) -> GeneratorConfig:
        """Configuration R (rotation): 1x1 convolutions, radial filters, twice the channels of T."""
        base = channel_base or (32768 if resolution <= 256 else 65536)
        return cls(
            img_resolution=resolution,
            channel_base=base,
            channel_max=1024,
            conv_kernel=1,
            use_radial_filters=True,
        )

    @classmethod
    def from_official(cls, init_kwargs: dict[str, Any]) -> GeneratorConfig:
        """From the constructor arguments in an official pickle. Raises ModelError on an unknown one."""
        kwargs = {k: v for k, v in init_kwargs.items() if k not in _IGNORED_OFFICIAL}
        mapping = dict(kwargs.pop("mapping_kwargs", None) or {})
        renamed = {
            "num_layers": "mapping_layers",
            "lr_multiplier": "mapping_lr_multiplier",
            "w_avg_beta": "w_avg_beta",
        }
        for old, new in renamed.items():
            if old in mapping:
                kwargs[new] = mapping.pop(old)
        kwargs |= {f"mapping_kwargs.{k}": v for k, v in mapping.items()}
        kwargs.setdefault("magnitude_ema_beta", 0.999)  # that constructor's default; training overrides it
        return cls.from_dict(kwargs)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> GeneratorConfig:
        """Inverse of `to_dict`. Raises ModelError when an entry is unknown or the resolution is missing."""
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise ModelError(
                f"the generator has settings this version does not know: {', '.join(unknown)}",
                "the file may come from a newer version or from a modified StyleGAN3",
            )
        if "img_resolution" not in values:
            raise ModelError("the generator's settings lack img_resolution", "the file is incomplete; get it again")
        return cls(**values)

    @property
    def num_ws(self) -> int:
        """One code for the Fourier input, one for each layer, one for ToRGB."""
        return self.num_layers + 2

    @property
    def input_channels(self) -> int:
        return self.layers()[0].in_channels

    @property
    def layer_names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers())

    @property
    def style_sizes(self) -> dict[str, int]:
        """StyleSpace: channels of the Fourier input and of every layer, in the order of the codes that feed them."""
        return {"input": 4, **{layer.name: layer.in_channels for layer in self.layers()}}

    def layers(self) -> tuple[LayerSpec, ...]:
        """Appendix F: cutoff and stopband grow geometrically and stop growing at the critical layers."""
        cutoffs, rates, half_widths = self._frequencies()
        sizes = [rate + 2 * self.margin_size for rate in rates]
        sizes[-2:] = [self.img_resolution] * 2  # the margin is cropped away before ToRGB
        channels = [round(min(self.channel_base / 2 / cutoff, self.channel_max)) for cutoff in cutoffs]
        channels[-1] = self.img_channels
        specs = []
        for i in range(self.num_layers + 1):
            prev = max(i - 1, 0)
            is_torgb = i == self.num_layers
            specs.append(
                LayerSpec(
                    name=f"L{i}_{sizes[i]}_{channels[i]}",
                    is_torgb=is_torgb,
                    is_critical=i >= self.num_layers - self.num_critical,
                    in_channels=channels[prev],
                    out_channels=channels[i],
                    in_size=sizes[prev],
                    out_size=sizes[i],
                    in_rate=rates[prev],
                    out_rate=rates[i],
                    in_cutoff=cutoffs[prev],
                    out_cutoff=cutoffs[i],
                    in_half_width=half_widths[prev],
                    out_half_width=half_widths[i],
                    conv_kernel=1 if is_torgb else self.conv_kernel,
                    filter_size=self.filter_size,
                    lrelu_upsampling=self.lrelu_upsampling,
                    use_radial_filters=self.use_radial_filters,
                )
            )
        return tuple(specs)

    def _frequencies(self) -> tuple[list[float], list[int], list[float]]:
        """Cutoff f_c, sampling rate s and transition half width f_h of every layer."""
        last_cutoff = self.img_resolution / 2
        last_stopband = last_cutoff * self.last_stopband_rel
        cutoffs, rates, half_widths = [], [], []
        for i in range(self.num_layers + 1):
            progress = min(i / (self.num_layers - self.num_critical), 1.0)
            cutoff = self.first_cutoff * (last_cutoff / self.first_cutoff) ** progress
            stopband = self.first_stopband * (last_stopband / self.first_stopband) ** progress
            rate = 2 ** math.ceil(math.log2(min(2 * stopband, self.img_resolution)))
            cutoffs.append(cutoff)
            rates.append(rate)
            half_widths.append(max(stopband, rate / 2) - cutoff)
        return cutoffs, rates, half_widths
