"""Networks on disk: safetensors with the configuration as JSON in the header, so a file describes itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sg3cli.errors import InputError, ModelError
from sg3cli.files import atomic_path, safetensors_errors
from sg3cli.nets.code_flow import CodeFlow, CodeFlowConfig
from sg3cli.nets.encoder import Encoder, EncoderConfig
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.nets.latent_mapper import LatentMapper, MapperConfig
from sg3cli.nets.synthesis import layer_filters
from sg3cli.nets.text_tower import TextConfig, TextNet
from sg3cli.nets.transfer_net import TransferConfig, TransferNet

_HEADER = "sg3"  # one header entry only: the order of several is not fixed, and the file's digest would wander
_SCHEMA = 1
_HALF_MAX = torch.finfo(torch.float16).max


def save_generator(
    path: Path | str, G: Generator, meta: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write `G` at `path`, atomically. `meta` must be JSON-able; `dtype` float16 halves the parameters' size.

    Buffers keep their precision. Filters equal to the designed ones are left out; loading designs them.
    """
    state = _stored_state(G, dtype)
    for name, layer in zip(G.layer_names, G.synthesis.layers(), strict=True):
        designed = layer_filters(layer.spec)
        for kind, filt in zip(("up_filter", "down_filter"), designed, strict=True):
            key = f"synthesis.{name}.{kind}"
            if filt is not None and torch.equal(state[key], filt):
                del state[key]
    _write(Path(path), "generator", state, G.config.to_dict(), meta)


def load_generator_file(path: Path | str) -> tuple[Generator, dict[str, Any]]:
    """Read what `save_generator` wrote: (generator in eval mode and float32, meta).

    Raises ModelError when the file is missing, damaged, or not a generator.
    """
    state, config, meta = _read(Path(path), "generator")
    G = Generator(GeneratorConfig.from_dict(config))
    fresh = G.state_dict()
    state = {k: fresh[k] for k in fresh if k.endswith("_filter") and k not in state} | state
    _fill(G, state, Path(path))
    return G.eval().requires_grad_(False), meta


def save_encoder(
    path: Path | str, encoder: Encoder, meta: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write `encoder` at `path`, as `save_generator` does."""
    _write(Path(path), "encoder", _stored_state(encoder, dtype), encoder.config.to_dict(), meta)


def load_encoder_file(path: Path | str) -> tuple[Encoder, dict[str, Any]]:
    """Read what `save_encoder` wrote: (encoder in eval mode and float32, meta). Raises ModelError."""
    state, config, meta = _read(Path(path), "encoder")
    encoder = Encoder(EncoderConfig.from_dict(config))
    _fill(encoder, state, Path(path))
    return encoder.eval().requires_grad_(False), meta


def save_transfer(
    path: Path | str, net: TransferNet, meta: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write a transfer network at `path`, as `save_generator` does."""
    _write(Path(path), "transfer", _stored_state(net, dtype), {"widths": list(net.config.widths)}, meta)


def load_transfer_file(path: Path | str) -> tuple[TransferNet, dict[str, Any]]:
    """Read what `save_transfer` wrote: (network in eval mode and float32, meta). Raises ModelError."""
    state, config, meta = _read(Path(path), "transfer")
    net = TransferNet(TransferConfig(tuple(int(width) for width in config["widths"])))
    _fill(net, state, Path(path))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a fifth faster
    return net.eval().requires_grad_(False), meta


def save_flow(
    path: Path | str, flow: CodeFlow, meta: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write a flow on codes at `path`, as `save_generator` does; `meta` holds the digest of its generator."""
    state = _stored_state(flow, dtype)
    state["vectors"] = state["vectors"].to(dtype)
    _write(Path(path), "flow", state, flow.config.to_dict(), meta)


def load_flow_file(path: Path | str) -> tuple[CodeFlow, dict[str, Any]]:
    """Read what `save_flow` wrote: (flow in eval mode and float32, meta). Raises ModelError."""
    state, config, meta = _read(Path(path), "flow")
    flow = CodeFlow(CodeFlowConfig.from_dict(config))
    _fill(flow, state, Path(path))
    return flow.eval().requires_grad_(False), meta


def save_text(
    path: Path | str, net: TextNet, meta: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write the towers of a text model at `path`, as `save_generator` does."""
    _write(Path(path), "text", _stored_state(net, dtype), net.config.to_dict(), meta)


def load_text_file(path: Path | str) -> tuple[TextNet, dict[str, Any]]:
    """Read what `save_text` wrote: (towers in eval mode and float32, meta). Raises ModelError."""
    state, config, meta = _read(Path(path), "text")
    try:
        net = TextNet(TextConfig.from_dict(config))
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError) as e:
        raise ModelError(f"{path} is damaged or no text model of sg3: {e}", "get or make the file again") from e
    _fill(net, state, Path(path))
    return net.eval().requires_grad_(False), meta


def save_mapper(
    path: Path | str, mapper: LatentMapper, meta: dict[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write a latent mapper at `path`, as `save_generator` does; `meta` holds its name and its generator's digest."""
    _write(Path(path), "mapper", _stored_state(mapper, dtype), mapper.config.to_dict(), meta)


def load_mapper_file(path: Path | str) -> tuple[LatentMapper, dict[str, Any]]:
    """Read what `save_mapper` wrote: (mapper in eval mode and float32, meta). Raises ModelError."""
    state, config, meta = _read(Path(path), "mapper")
    try:
        mapper = LatentMapper(MapperConfig.from_dict(config))
    except (TypeError, ValueError, KeyError, AttributeError) as e:
        raise ModelError(f"{path} is damaged or no mapper of sg3: {e}", "get or make the file again") from e
    _fill(mapper, state, Path(path))
    return mapper.eval().requires_grad_(False), meta


def flow_config(path: Path | str) -> CodeFlowConfig:
    """The header of a flow's file alone. Raises ModelError."""
    try:
        with safe_open(str(path), framework="np") as f:
            header = json.loads((f.metadata() or {})[_HEADER])
            return CodeFlowConfig.from_dict(header["config"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as e:
        raise ModelError(f"{path} is damaged or no flow of sg3: {e}", "get or make the file again") from e


def _stored_state(net: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """The state dict on the CPU, its parameters in `dtype` where they fit in it."""
    parameters = {name for name, _ in net.named_parameters()}
    state = {}
    for name, tensor in net.state_dict().items():
        tensor = tensor.detach().cpu()
        fits = dtype != torch.float16 or tensor.numel() == 0 or float(tensor.abs().max()) <= _HALF_MAX
        if name in parameters and fits:
            tensor = tensor.to(dtype)
        state[name] = tensor.clone(memory_format=torch.contiguous_format)
    return state


def _write(
    path: Path, kind: str, state: dict[str, Tensor], config: dict[str, Any], meta: dict[str, Any] | None
) -> None:
    header = {"schema": _SCHEMA, "kind": kind, "config": config, "meta": meta or {}}
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: folder {path.parent} does not exist", "make the folder first")
    with atomic_path(path) as temp, safetensors_errors():
        save_file(state, temp, metadata={_HEADER: json.dumps(header, sort_keys=True)})


def _read(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """(tensors, config, meta) of a file of this module's format."""
    if not path.is_file():
        raise ModelError(f"no {kind} at {path}", "see `sg3 models list` for the models that are here")
    try:
        with safe_open(path, framework="pt") as f:
            header = json.loads((f.metadata() or {}).get(_HEADER, "null"))
            state = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, json.JSONDecodeError) as e:
        raise ModelError(f"{path} is damaged or no safetensors file: {e}", "get or make the file again") from e
    if not isinstance(header, dict) or header.get("kind") != kind or header.get("schema") != _SCHEMA:
        raise ModelError(
            f"{path} is not {'an' if kind[0] in 'aeiou' else 'a'} {kind} of sg3",
            "official files are converted with `sg3 models import`",
        )
    return state, header["config"], header["meta"]


def _fill(net: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load `state` strictly; a mismatch becomes one ModelError that names a few of the keys."""
    want = net.state_dict()
    wrong = sorted(want.keys() ^ state.keys())
    wrong += sorted(k for k in want.keys() & state.keys() if want[k].shape != state[k].shape)
    if wrong:
        raise ModelError(f"{path} does not fit its own configuration: {_some(wrong)}", "get or make the file again")
    net.load_state_dict(state)


def _some(names: Iterable[str], limit: int = 3) -> str:
    names = list(names)
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
