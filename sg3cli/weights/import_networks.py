"""Networks in the files of others: NVIDIA's pickles, bare state dicts (also tuned ones), encoder checkpoints.

What comes out is a configuration and arrays under the official names, each checked against the other, with notices
about whatever was not taken as it stood.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.errors import ModelError
from sg3cli.nets.encoder import EncoderConfig
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.nets.synthesis import layer_filters
from sg3cli.weights.infer_encoder import infer_encoder
from sg3cli.weights.infer_generator import WHAT, generator_shapes, infer_generator, matching_generators, official_config
from sg3cli.weights.safe_pickle.reader import explained, read
from sg3cli.weights.safe_pickle.values import Module, Refused, Tensor, shown

TRANSFORM = "synthesis.input.transform"
NETWORKS = ("G_ema", "g_ema", "G")  # in order of preference: the averaged weights are the ones to use
MAX_DEPTH, MAX_MODULES = 16, 10_000
FILTER_TOLERANCE = 1e-4

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


def read_official(path: Path) -> Official:
    """Read any file that holds a generator or an encoder. Raises `ModelError` that says what is wrong with it."""
    tree = read(path)
    try:
        with explained(path):
            parts = _parts(tree, path.stat().st_size)
    except ModelError as error:
        named = str(path) in str(error)
        raise ModelError(str(error) if named else f"cannot read {path}: {error}", error.hint) from error
    return Official(path, *parts)


def _parts(tree: Any, size: int) -> tuple[GeneratorPart | None, EncoderPart | None]:
    """The networks of a file of `size` bytes."""
    if isinstance(tree, Module):
        tree = {"G_ema": tree}
    if not isinstance(tree, dict):
        raise ModelError("it holds no network", WHAT)
    found = next((name for name in NETWORKS if isinstance(tree.get(name), Module | dict)), None)
    if found is not None:
        return _network(tree[found], found, size), None
    if isinstance(tree.get("state_dict"), dict):
        return _checkpoint(tree, size)
    if any(isinstance(value, Tensor) for value in tree.values()):
        return _bare(_tensors(tree), "state dict", size), None
    held = ", ".join(shown(name, 30) for name in list(tree)[:5])
    raise ModelError(f"it holds no generator; it holds {held or 'nothing'}", WHAT)


def _network(network: Module | dict[str, Any], name: str, size: int) -> GeneratorPart:
    """A network of NVIDIA's pickles, which states its configuration, or the state dict of a domain-adapted one."""
    if isinstance(network, dict):
        return _bare(_tensors(network), name, size)
    state = flatten(network)
    settings = network.state.get("_init_kwargs")
    if not isinstance(settings, dict) or network.state.get("_init_args", ()) != ():
        raise ModelError(f"the network {name} does not state its settings", WHAT)
    return _generator(state, name, size, settings)


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


def _checkpoint(tree: dict[str, Any], size: int) -> tuple[GeneratorPart | None, EncoderPart | None]:
    """An encoder's training snapshot: `encoder.*`, the whole generator as `decoder.*`, options and the mean code."""
    state = _tensors(tree["state_dict"])
    encoder = {name.removeprefix("encoder."): t for name, t in state.items() if name.startswith("encoder.")}
    decoder = {name.removeprefix("decoder."): t for name, t in state.items() if name.startswith("decoder.")}
    if not encoder and not decoder:
        return _bare(state, "state_dict", size), None
    options = tree.get("opts")
    options = options if isinstance(options, dict) else {}
    part = None
    if encoder:
        config = infer_encoder({name: t.size for name, t in encoder.items()}, options.get("encoder_type"))
        average = tree.get("latent_avg")
        latent_avg = _arrays({"latent_avg": average}, size)["latent_avg"] if isinstance(average, Tensor) else None
        part = EncoderPart(config, _arrays(encoder, size), latent_avg, _plain(options))
    return (_bare(decoder, "decoder", size) if decoder else None), part


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


def _bare(state: State, origin: str, size: int) -> GeneratorPart:
    return _generator(dict(state), origin, size, None)


def _generator(state: State, origin: str, size: int, settings: dict[str, Any] | None) -> GeneratorPart:
    """The generator of a state dict; without `settings` its configuration follows from its shapes."""
    notices = []
    shapes = {name: tensor.size for name, tensor in state.items()}
    given = shapes.get(TRANSFORM)
    if given is None or (len(given) == 3 and given[1:] == (3, 3)):
        # Tools for video leave the transforms of their frames in the generator; they belong to those frames.
        missing = "had no input transform" if given is None else f"had the input transforms of {given[0]} frames"
        notices.append(f"the {origin} {missing}; it has the identity now")
        shapes[TRANSFORM] = (3, 3)
        state.pop(TRANSFORM, None)
    config = infer_generator(shapes) if settings is None else official_config(settings, shapes)
    types = sorted({tensor.storage.dtype for tensor in state.values()} - {"f4"})
    if types:
        notices.append(f"the {origin} was stored as {', '.join(types)} in part; it is float32 now")
    arrays = _arrays(state, size)
    arrays.setdefault(TRANSFORM, np.eye(3, dtype=np.float32))
    fitting = [config] if settings is not None else matching_generators(shapes)
    designed = [c for c in fitting if _has_designed_filters(c, arrays)]
    if not designed:
        notices.append(f"the filters of the {origin} are not the designed ones; they are used as they are")
    ordered = {name: arrays[name] for name in generator_shapes(config)}
    return GeneratorPart((designed or [config])[0], ordered, origin, tuple(notices))


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
