"""Network configurations from the shapes of a state dict, and back.

A StyleGAN3's hyper-parameters all leave a trace in its tensors: sizes and channels stand in the layers' names, the
kernel tells T from R, the filters' lengths the up-sampling. What leaves none (clamp, scale of the output) has the
published value. A configuration counts only if it gives back every name and shape, and no other.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from sg3cli.errors import ModelError
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.weights.safe_pickle.values import shown

Shapes = Mapping[str, tuple[int, ...]]
Given = Mapping[str, Any]  # settings that the user has told, by their names
NOTHING_GIVEN: Given = MappingProxyType({})

LAYER = re.compile(r"synthesis\.(L(\d{1,3})_(\d{1,5})_(\d{1,5}))\.weight")
LIMITS = {  # what a network may be; beyond these a file is damaged or means harm
    "z_dim": (1, 8192),
    "c_dim": (0, 65536),
    "w_dim": (1, 8192),
    "img_resolution": (4, 8192),
    "img_channels": (1, 64),
    "mapping_layers": (1, 64),
    "channel_base": (1, 1 << 24),
    "channel_max": (1, 16384),
    "num_layers": (1, 64),
    "num_critical": (0, 63),
    "margin_size": (0, 512),
    "conv_kernel": (1, 15),
    "filter_size": (1, 32),
    "lrelu_upsampling": (1, 16),
}
POSITIVE = ("first_cutoff", "first_stopband", "last_stopband_rel", "mapping_lr_multiplier", "output_scale")
WHAT = "sg3 reads StyleGAN3 generators of configurations T and R and their variants"


# ---- generators: configuration -> shapes ----------------------------------------------------------------------------


def generator_shapes(config: GeneratorConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of a generator's state dict, in the official order."""
    layers, w = config.layers(), config.w_dim
    channels = layers[0].in_channels
    shapes: dict[str, tuple[int, ...]] = {
        "synthesis.input.weight": (channels, channels),
        "synthesis.input.transform": (3, 3),
        "synthesis.input.freqs": (channels, 2),
        "synthesis.input.phases": (channels,),
        "synthesis.input.affine.weight": (4, w),
        "synthesis.input.affine.bias": (4,),
    }
    for layer in layers:
        name, kernel = f"synthesis.{layer.name}", layer.conv_kernel
        shapes[f"{name}.weight"] = (layer.out_channels, layer.in_channels, kernel, kernel)
        shapes[f"{name}.bias"] = (layer.out_channels,)
        shapes[f"{name}.magnitude_ema"] = ()
        if layer.up_taps > 1:
            shapes[f"{name}.up_filter"] = (layer.up_taps,)
        if layer.down_taps > 1:
            shapes[f"{name}.down_filter"] = (layer.down_taps,) * (2 if layer.down_radial else 1)
        shapes[f"{name}.affine.weight"] = (layer.in_channels, w)
        shapes[f"{name}.affine.bias"] = (layer.in_channels,)
    width = config.z_dim
    shapes["mapping.w_avg"] = (w,)
    if config.c_dim:
        shapes["mapping.embed.weight"], shapes["mapping.embed.bias"] = (w, config.c_dim), (w,)
        width += w
    for i in range(config.mapping_layers):
        shapes[f"mapping.fc{i}.weight"], shapes[f"mapping.fc{i}.bias"] = (w, width), (w,)
        width = w
    return shapes


def check_limits(config: GeneratorConfig) -> GeneratorConfig:
    """The same configuration, if it is one: types and ranges. Raises `ModelError` that names the setting."""
    values = dataclasses.asdict(config)
    for name, (low, high) in LIMITS.items():
        if type(values[name]) is not int or not low <= values[name] <= high:
            raise ModelError(
                f"the generator's {name} is {shown(values[name])}, not a number from {low} to {high}", WHAT
            )
    for name in (*POSITIVE, "conv_clamp", "w_avg_beta", "magnitude_ema_beta"):
        value = values[name]
        number = type(value) in (int, float) and 0 <= value < 1e9 and (value > 0 or name not in POSITIVE)
        if not number and not (value is None and name == "conv_clamp"):
            raise ModelError(f"the generator's {name} is {shown(value)}", WHAT)
    if type(config.use_radial_filters) is not bool or config.num_critical >= config.num_layers:
        raise ModelError("the generator's settings contradict each other", WHAT)
    return config


def first_difference(expected: Shapes, actual: Shapes) -> str | None:
    """What is wrong with the first tensor that is not as expected, in words; None when all are."""
    for name, shape in expected.items():
        if name not in actual:
            return f"{name} is missing"
        if tuple(actual[name]) != shape:
            return f"{name} has shape {shown(tuple(actual[name]))} instead of {shown(shape)}"
    extra = [name for name in actual if name not in expected]
    return f"{shown(extra[0])} does not belong to it" if extra else None


# ---- generators: shapes -> configuration ----------------------------------------------------------------------------


def official_config(settings: Mapping[str, Any], shapes: Shapes) -> GeneratorConfig:
    """The configuration an official pickle states. Raises `ModelError` if its tensors are not of that shape."""
    mapping = settings.get("mapping_kwargs") or {}
    names = (*settings, *(mapping if type(mapping) is dict else [None]))
    if not all(type(name) is str and name.isidentifier() and len(name) < 80 for name in names):
        raise ModelError("the generator's settings are not a table of names and values", WHAT)
    _refuse_stylegan2(shapes)
    config = check_limits(GeneratorConfig.from_official(dict(settings)))
    return _fitting([config], shapes)


def infer_generator(shapes: Shapes, given: Given = NOTHING_GIVEN) -> GeneratorConfig:
    """The first of `generator_candidates` that gives back `shapes` exactly."""
    return _fitting(generator_candidates(shapes, given), shapes)


def matching_generators(shapes: Shapes, given: Given = NOTHING_GIVEN) -> list[GeneratorConfig]:
    """All candidates of exactly these shapes; they differ in what only the filters' values can tell."""
    candidates = generator_candidates(shapes, given)
    return [c for c in candidates if first_difference(generator_shapes(check_limits(c)), shapes) is None]


def generator_candidates(shapes: Shapes, given: Given = NOTHING_GIVEN) -> Iterator[GeneratorConfig]:
    """Configurations that `shapes` may have, most usual first; the settings that are `given` are as they are given.

    Raises `ModelError` naming what is missing.
    """
    _refuse_stylegan2(shapes)
    names = _layers_of(shapes)
    sizes, channels = [size for _, size, _ in names], [count for _, _, count in names]
    first, num_layers = f"synthesis.{names[0][0]}", len(names) - 1
    kernel = _axis(shapes, f"{first}.weight", 2)
    w_dim = _axis(shapes, "synthesis.input.affine.weight", 1)
    c_dim = _axis(shapes, "mapping.embed.weight", 1) if "mapping.embed.weight" in shapes else 0
    z_dim = _axis(shapes, "mapping.fc0.weight", 1) - (w_dim if c_dim else 0)
    radial = any(name.endswith(".down_filter") and len(shape) == 2 for name, shape in shapes.items())
    depth = sum(1 for name in shapes if re.fullmatch(r"mapping\.fc\d+\.weight", name))
    taps = shapes.get(f"{first}.up_filter", (0,))[0]
    base = GeneratorConfig(
        z_dim=z_dim, c_dim=c_dim, w_dim=w_dim, img_resolution=sizes[-1], img_channels=channels[-1],
        mapping_layers=depth, num_layers=num_layers, conv_kernel=kernel, use_radial_filters=radial, margin_size=0,
    )  # fmt: skip
    upsamplings = [n for n in (2, 4, 3, 8) if taps and taps % n == 0] or [2 if taps else 1]
    for critical in (n for n in (2, 1, 3, 0, 4) if n < num_layers):
        for up in upsamplings:
            size = taps // up if taps else base.filter_size
            plain = dataclasses.replace(base, num_critical=critical, lrelu_upsampling=up, filter_size=size)
            plain = check_limits(dataclasses.replace(plain, **given))
            rate = check_limits(plain).layers()[0].out_rate
            margin = max(sizes[0] - rate, 0) // 2 if num_layers > 2 else 0
            widths = _channel_limits(plain, channels)
            if widths:
                found = {"margin_size": margin, "channel_base": widths[0], "channel_max": widths[1]}
                yield dataclasses.replace(plain, **{**found, **given})


def _fitting(candidates: Iterator[GeneratorConfig] | list[GeneratorConfig], shapes: Shapes) -> GeneratorConfig:
    """The first candidate that gives back `shapes`. Raises `ModelError` with the first tensor that the best misses."""
    wrong = ""
    for config in candidates:
        difference = first_difference(generator_shapes(check_limits(config)), shapes)
        if difference is None:
            return config
        wrong = wrong or difference
    raise ModelError(f"its tensors are not those of a StyleGAN3 generator: {wrong or 'no width fits'}", WHAT)


def _refuse_stylegan2(shapes: Shapes) -> None:
    if any(name.startswith(("synthesis.b4.", "synthesis.b8.", "style.1.", "convs.0.")) for name in shapes):
        raise ModelError("it is a StyleGAN2 generator, not a StyleGAN3", WHAT)


def _layers_of(shapes: Shapes) -> list[tuple[str, int, int]]:
    """(name, size, channels) of the layers, which must be numbered without a gap."""
    found = [match for name in shapes if (match := LAYER.fullmatch(name))]
    layers = sorted((int(m[2]), m[1], int(m[3]), int(m[4])) for m in found)
    for number, layer in enumerate(layers):
        if layer[0] != number:
            raise ModelError(f"its tensors are not those of a StyleGAN3 generator: layer L{number} is missing", WHAT)
    if len(layers) < 2:
        raise ModelError("it holds no StyleGAN3 generator: there is no tensor synthesis.L0_*.weight", WHAT)
    return [layer[1:] for layer in layers]


def _axis(shapes: Shapes, name: str, axis: int) -> int:
    if len(shapes.get(name, ())) <= axis:
        state = f"has shape {shown(shapes[name])}" if name in shapes else "is missing"
        raise ModelError(f"its tensors are not those of a StyleGAN3 generator: {name} {state}", WHAT)
    return shapes[name][axis]


def _channel_limits(config: GeneratorConfig, channels: list[int]) -> tuple[int, int] | None:
    """(channel_base, channel_max) that give these channels: base / (2 cutoff), rounded, at most max.

    Of the bases that do, a power of two is taken if there is one.
    """
    largest = max(channels[:-1])
    low, high = 0.0, math.inf
    for layer, count in zip(config.layers()[:-1], channels[:-1], strict=True):
        low = max(low, 2 * layer.out_cutoff * (count - 0.5))
        if count < largest:
            high = min(high, 2 * layer.out_cutoff * (count + 0.5))
    power = 2 ** math.ceil(math.log2(max(low, 1)))
    bases = [power, round((low + high) / 2)] if high < math.inf else [power]
    return next(((base, largest) for base in bases if low <= base <= high), None)
