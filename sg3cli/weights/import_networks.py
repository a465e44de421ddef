"""Networks in the files of others: NVIDIA's pickles, bare state dicts (also tuned ones), encoder checkpoints.

What comes out is a configuration and arrays under the official names, each checked against the other, with notices
about whatever was not taken as it stood.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.errors import ModelError
from sg3cli.nets.encoder import EncoderConfig
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.nets.synthesis import layer_filters
from sg3cli.weights.infer_encoder import infer_encoder
from sg3cli.weights.infer_generator import (
    NOTHING_GIVEN,
    WHAT,
    Given,
    Shapes,
    generator_shapes,
    infer_generator,
    matching_generators,
    official_config,
)
from sg3cli.weights.safe_pickle.reader import explained, read
from sg3cli.weights.safe_pickle.values import Module, Refused, Tensor, shown
from sg3cli.weights.state_prefixes import generator_of, unwrapped

TRANSFORM = "synthesis.input.transform"
NETWORKS = ("G_ema", "g_ema", "G")  # in order of preference: the averaged weights are the ones to use
MAX_DEPTH, MAX_MODULES = 16, 10_000
FILTER_TOLERANCE = 1e-4
UNSEEN = ("mapping_lr_multiplier", "conv_clamp", "output_scale")  # what neither shapes nor filters tell
UNUSUAL = 4.0  # times by which the spread of mapping weights may be off before it is said
CUTOFFS = (1.0, 1.5, 3.0, 4.0, 8.0)  # of the first layer, tried where the usual one does not fit the filters

State = dict[str, Tensor]


@dataclass(frozen=True)
class GeneratorPart:
    """A generator: `state` maps every name of its state dict to float32; `origin` says where it stood in the file."""

    config: GeneratorConfig
    state: dict[str, np.ndarray]
    origin: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderPart:
    """An encoder; `latent_avg` `[w_dim]` is the mean code it was trained to start from, if the file has it."""

    config: EncoderConfig
    state: dict[str, np.ndarray]
    latent_avg: np.ndarray | None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Official:
    """The networks of one file."""

    path: Path
    generator: GeneratorPart | None
    encoder: EncoderPart | None


def read_official(path: Path, given: Given = NOTHING_GIVEN) -> Official:
    """Read any file that holds a generator or an encoder. Raises `ModelError` that says what is wrong with it.

    `given` are settings of a generator whose file does not state them.
    """
    tree = read(path)
    try:
        with explained(path):
            parts = _parts(tree, path.stat().st_size, given)
    except ModelError as error:
        named = str(path) in str(error)
        raise ModelError(str(error) if named else f"cannot read {path}: {error}", error.hint) from error
    return Official(path, *parts)


def _parts(tree: Any, size: int, given: Given) -> tuple[GeneratorPart | None, EncoderPart | None]:
    """The networks of a file of `size` bytes."""
    if isinstance(tree, Module):
        tree = {"G_ema": tree}
    if not isinstance(tree, dict):
        raise ModelError("it holds no network", WHAT)
    found = next((name for name in NETWORKS if isinstance(tree.get(name), Module | dict)), None)
    if found is not None:
        return _network(tree[found], found, size, given), None
    if isinstance(tree.get("state_dict"), dict):
        return _checkpoint(tree, size, given)
    if any(isinstance(value, Tensor) for value in tree.values()):
        return _bare(_tensors(tree), "state dict", size, given), None
    held = ", ".join(shown(name, 30) for name in list(tree)[:5])
    raise ModelError(f"it holds no generator; it holds {held or 'nothing'}", WHAT)


def _network(network: Module | dict[str, Any], name: str, size: int, given: Given) -> GeneratorPart:
    """A network of NVIDIA's pickles, which states its configuration, or the state dict of a domain-adapted one."""
    if isinstance(network, dict):
        return _bare(_tensors(network), name, size, given)
    state = flatten(network)
    settings = network.state.get("_init_kwargs")
    if not isinstance(settings, dict) or network.state.get("_init_args", ()) != ():
        raise ModelError(f"the network {name} does not state its settings", WHAT)
    if given:
        raise ModelError(f"the network {name} states its settings itself", "leave out --config")
    return _generator(state, name, size, settings, given)


def flatten(network: Module) -> State:
    """Tensors by the path of their modules: own parameters, own buffers, children, as `state_dict()` orders them."""
    state: State = {}
    _flatten(network, "", state, [0])
    return state


def _flatten(module: Module, prefix: str, state: State, visited: list[int], depth: int = 0) -> None:
    visited[0] += 1
    if depth > MAX_DEPTH or visited[0] > MAX_MODULES:
        raise Refused("its networks are nested without end")
    tables = [module.state.get(name, {}) for name in ("_parameters", "_buffers", "_modules")]
    hidden = module.state.get("_non_persistent_buffers_set", ())
    if not all(isinstance(table, dict) for table in tables) or not isinstance(hidden, set | tuple | list):
        raise Refused("a network's attributes have an unknown form")
    for table in tables:
        for name, value in table.items():
            path = f"{prefix}{name}"
            if isinstance(value, Tensor) and table is not tables[2]:
                if table is tables[0] or name not in hidden:
                    state[path] = value
            elif isinstance(value, Module) and table is tables[2]:
                _flatten(value, f"{path}.", state, visited, depth + 1)
            elif value is not None:
                raise Refused(f"{shown(path)} is a {type(value).__name__}")


def _checkpoint(tree: dict[str, Any], size: int, given: Given) -> tuple[GeneratorPart | None, EncoderPart | None]:
    """An encoder's training snapshot: `encoder.*`, the whole generator as `decoder.*`, options and the mean code."""
    state = unwrapped(_tensors(tree["state_dict"]))
    encoder = {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
    decoder = {name.removeprefix("decoder."): t for name, t in state.items() if name.startswith("decoder.")}
    if not encoder and not decoder:
        return _bare(state, "state_dict", size, given), None
    options = tree.get("opts")
    options = options if isinstance(options, dict) else {}
    part = None
    if encoder:
        config = infer_encoder({name: t.size for name, t in encoder.items()}, options.get("encoder_type"))
        average = tree.get("latent_avg")
        latent_avg = _arrays({"latent_avg": average}, size)["latent_avg"] if isinstance(average, Tensor) else None
        part = EncoderPart(config, _arrays(encoder, size), latent_avg, _plain(options))
    return (_bare(decoder, "decoder", size, given) if decoder else None), part


def _plain(options: Mapping[Any, Any]) -> dict[str, Any]:
    """The options that are plain values, as far as they fit a description."""
    kept = {str(k)[:80]: v for k, v in options.items() if isinstance(v, str | int | float | bool | None)}
    return {k: v for k, v in list(kept.items())[:200] if not isinstance(v, str) or len(v) <= 200}


def _tensors(table: dict[str, Any]) -> State:
    """A state dict; anything else in it is refused by name."""
    for name, value in table.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise Refused(f"{shown(name)} is a {type(value).__name__}, not a tensor")
    return table


# ---- generators -----------------------------------------------------------------------------------------------------


def _bare(state: State, origin: str, size: int, given: Given) -> GeneratorPart:
    inside, words = generator_of(state)
    part = _generator(inside, origin, size, None, given)
    notices = [f"the {origin}: {word}" for word in words]
    return replace(part, notices=(*notices, *part.notices, *_assumed(part, given)))


def _assumed(part: GeneratorPart, given: Given) -> Iterator[str]:
    """What no tensor tells, in words; and what the mapping's weights say against it."""
    values = {name: getattr(part.config, name) for name in UNSEEN if name not in given}
    if values:
        told = ", ".join(f"{name} {value:g}" if value is not None else f"{name} none" for name, value in values.items())
        yield f"a state dict does not tell {told}: published values are assumed (--config KEY=VALUE for others)"
    spread = float(np.std(part.state["mapping.fc0.weight"])) if "mapping.fc0.weight" in part.state else 0.0
    scale = spread * part.config.mapping_lr_multiplier  # 1 when training begins, and it stays near
    if spread and not 1 / UNUSUAL < scale < UNUSUAL:
        yield (
            f"its mapping's weights have a spread of {spread:.3g}, as with mapping_lr_multiplier {1 / spread:.2g}, not "
            f"{part.config.mapping_lr_multiplier:g}: its faces may be wrong (--config mapping_lr_multiplier=VALUE)"
        )


def _generator(state: State, origin: str, size: int, settings: dict[str, Any] | None, given: Given) -> GeneratorPart:
    """The generator of a state dict; without `settings` its configuration follows from its shapes and filters."""
    notices = []
    shapes = {name: tensor.size for name, tensor in state.items()}
    transform = shapes.get(TRANSFORM)
    if transform is None or (len(transform) == 3 and transform[1:] == (3, 3)):
        # Tools for video leave the transforms of their frames in the generator; they belong to those frames.
        missing = (
            "had no input transform" if transform is None else f"had the input transforms of {transform[0]} frames"
        )
        notices.append(f"the {origin} {missing}; it has the identity now")
        shapes[TRANSFORM] = (3, 3)
        state.pop(TRANSFORM, None)
    types = sorted({tensor.storage.dtype for tensor in state.values()} - {"f4"})
    if types:
        notices.append(f"the {origin} was stored as {', '.join(types)} in part; it is float32 now")
    if settings is not None:
        config, arrays = official_config(settings, shapes), _with_transform(state, size)
        confirmed = _has_designed_filters(config, arrays)
    else:
        config, arrays, confirmed = _configured(state, shapes, size, given)
        if confirmed and config.first_cutoff != GeneratorConfig.first_cutoff and "first_cutoff" not in given:
            notices.append(f"first_cutoff is {config.first_cutoff:g}, as the filters of the {origin} tell")
    if not confirmed:
        notices.append(f"the filters of the {origin} are not the designed ones; they are used as they are")
    ordered = {name: arrays[name] for name in generator_shapes(config)}
    return GeneratorPart(config, ordered, origin, tuple(notices))


def _with_transform(state: State, size: int) -> dict[str, np.ndarray]:
    return {TRANSFORM: np.eye(3, dtype=np.float32), **_arrays(state, size)}


def _configured(
    state: State, shapes: Shapes, size: int, given: Given
) -> tuple[GeneratorConfig, dict[str, np.ndarray], bool]:
    """(configuration, arrays, whether the filters confirm it): with the usual cutoff, or another that fits them."""
    fitting: list[GeneratorConfig] = []
    refused: ModelError | None = None
    try:
        fitting = matching_generators(shapes, given)
        infer_generator(shapes, given)  # raises when there is none
    except ModelError as error:
        refused = error
    layered = any(name.startswith("synthesis.L0_") for name in shapes)
    others = [c for cutoff in CUTOFFS for c in _with_cutoff(shapes, cutoff, given)] if layered else []
    if refused is not None and not others:
        settings = "say its settings: --config first_cutoff=VALUE, first_stopband, margin_size, num_critical"
        raise ModelError(str(refused), settings if layered and not given else refused.hint)
    arrays = _with_transform(state, size)
    for config in (*fitting, *others):
        if _has_designed_filters(config, arrays):
            return config, arrays, True
    if not fitting:
        assert refused is not None
        raise refused
    return fitting[0], arrays, False


def _with_cutoff(shapes: Shapes, cutoff: float, given: Given) -> list[GeneratorConfig]:
    """Configurations of these shapes whose first layer has another cutoff, the stopband as far beyond it as usual."""
    if "first_cutoff" in given:
        return []
    stopband = cutoff * GeneratorConfig.first_stopband / GeneratorConfig.first_cutoff
    try:
        return matching_generators(shapes, {"first_cutoff": cutoff, "first_stopband": stopband, **given})
    except (ModelError, ValueError, ZeroDivisionError, OverflowError):
        return []


def _has_designed_filters(config: GeneratorConfig, state: Mapping[str, np.ndarray]) -> bool:
    """Whether the filters are those that follow from the configuration, which confirms its cutoffs."""
    for layer in config.layers():
        for kind, taps in zip(("up_filter", "down_filter"), layer_filters(layer), strict=True):
            if taps is not None:
                stored, designed = state[f"synthesis.{layer.name}.{kind}"], taps.numpy()
                if np.abs(stored - designed).max() > FILTER_TOLERANCE * np.abs(designed).max():
                    return False
    return True


def _arrays(state: State, size: int) -> dict[str, np.ndarray]:
    """The tensors' values as arrays of their own, floats in float32 and integers as they are."""
    total = sum(math.prod(t.size) * t.storage.itemsize for t in state.values())
    if total > size:
        raise Refused(f"its tensors together have {total} bytes, the file has {size}")
    arrays = {}
    for name, tensor in state.items():
        values = tensor.array()
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):  # what does not fit is refused below
                values = values.astype(np.float32)
            if not np.isfinite(values).all():
                raise Refused(f"{shown(name)} has values that are not finite")
        elif values.dtype.kind != "i" or not name.endswith("num_batches_tracked"):
            raise Refused(f"{shown(name)} holds {values.dtype}, not floats")
        arrays[name] = np.array(values, order="C")
    return arrays
