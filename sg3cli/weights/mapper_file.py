"""Files of latent mappers: our own safetensors, told from a direction by their header, and StyleCLIP's checkpoints.

A checkpoint of StyleCLIP's for StyleGAN3 holds `mapper.course_mapping.mapping.1.weight` and so on (its own spelling),
of a mapper without levels `mapper.mapping.mapping.1.weight`, beside the whole generator (`decoder.`) and its options.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sg3cli.errors import ModelError
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.weights.kept import kept_by
from sg3cli.weights.safe_pickle.reader import explained, read
from sg3cli.weights.safe_pickle.values import Refused, Tensor, shown
from sg3cli.weights.state_prefixes import unwrapped

if TYPE_CHECKING:
    from sg3cli.nets.latent_mapper import LatentMapper

KIND = "mapper"
LEVELS = {"course": (0, 5), "coarse": (0, 5), "medium": (5, 8), "fine": (8, 16)}  # of the 16 rows of the official ones
ROWS = 16
NAME = re.compile(r"mapper\.(?:(course|coarse|medium|fine)_)?mapping\.mapping\.([1-4])\.(weight|bias)")
EXPECTED = "a mapper of StyleCLIP's for StyleGAN3: a checkpoint with `mapper.*` in its state_dict"


@dataclass(frozen=True)
class MapperFile:
    """What the header of a mapper's file says."""

    path: Path
    name: str
    num_ws: int
    w_dim: int
    generator: str | None  # digest of the one it was trained on; None when the file does not say
    meta: dict[str, Any]

    @property
    def keeps(self) -> frozenset[str]:
        """As of a direction: what it does not mean to change."""
        return kept_by(self.meta)

    @property
    def does(self) -> str:
        """What strength 1 means."""
        return str(self.meta.get("aim") or "the step that it was trained for")

    def check_fits(self, config: GeneratorConfig, generator: str | None = None) -> None:
        """Raise `ModelError` when it belongs to codes of another shape or to another generator."""
        if (self.num_ws, self.w_dim) != (config.num_ws, config.w_dim):
            what = f"mapper {self.name} takes codes of {self.num_ws}x{self.w_dim}"
            raise ModelError(f"{what}, the model has {config.num_ws}x{config.w_dim}", "use one of this generator")
        if self.generator and generator and self.generator != generator:
            what = f"mapper {self.name} was trained on another generator ({self.generator[:19]}...)"
            raise ModelError(what, "mappers do not carry over between generators: sg3 train mapper")


def mapper_file(path: Path) -> MapperFile | None:
    """The header of a mapper's file; None for any other file. Reads no weights."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="np") as file:
            header = json.loads((file.metadata() or {}).get("sg3", "{}"))
        if not isinstance(header, dict) or header.get("kind") != KIND:
            return None
        config, meta = header["config"], dict(header["meta"])
        generator = meta.get("generator")
        digest = generator if isinstance(generator, str) else None
        name = str(meta.get("name") or path.stem)
        return MapperFile(path, name, int(config["num_ws"]), int(config["w_dim"]), digest, meta)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None  # whoever takes it for a direction says what is wrong with it


# ---- StyleCLIP's checkpoints ----------------------------------------------------------------------------------------


def is_official_mapper(value: Any) -> bool:
    """Whether what `safe_pickle.read` found is a mapper's checkpoint."""
    state = value.get("state_dict") if isinstance(value, dict) else None
    return isinstance(state, dict) and any(isinstance(name, str) and "mapper." in name for name in state)


def read_official_mapper(path: Path) -> tuple[LatentMapper, dict[str, Any]]:
    """(The mapper, what its options say of the text) of a checkpoint of StyleCLIP's. Raises `ModelError`."""
    value = read(path)
    try:
        with explained(path):
            if not is_official_mapper(value):
                raise Refused("it holds no mapper")
            state = unwrapped(value["state_dict"])
            if any(name.startswith("decoder.convs.") for name in state):
                raise Refused("its mapper is one of StyleGAN2's codes")
            found = _arrays({name: t for name, t in state.items() if name.startswith("mapper.")})
            return _filled(found), _said(value.get("opts"))
    except ModelError as error:
        raise ModelError(str(error), EXPECTED) from error


def _arrays(state: Mapping[str, Any]) -> dict[tuple[str, int, str], np.ndarray]:
    """Weights and biases by (level, layer from 0, kind); all must be there, of one width and finite."""
    found: dict[tuple[str, int, str], np.ndarray] = {}
    for name, tensor in state.items():
        match = NAME.fullmatch(name)
        if match is None or not isinstance(tensor, Tensor):
            raise Refused(f"{shown(name)} is unknown in a mapper")
        level = match[1] or "all"
        found[level, int(match[2]) - 1, match[3]] = tensor.array().astype(np.float32)
    names = {level for level, _, _ in found}
    width = next(iter(found.values())).shape[-1]
    for level in names:
        for layer in range(4):
            for kind, shape in (("weight", (width, width)), ("bias", (width,))):
                array = found.get((level, layer, kind))
                if array is None or array.shape != shape:
                    has = "is missing" if array is None else f"has shape {shown(array.shape)}"
                    raise Refused(f"the {kind} of layer {layer + 1} of {level} {has}")
                if not np.isfinite(array).all():
                    raise Refused(f"the {kind} of layer {layer + 1} of {level} is not finite")
    if ("all" in names and len(names) > 1) or {"course", "coarse"} <= names:
        raise Refused("its levels overlap")
    return found


def _filled(found: Mapping[tuple[str, int, str], np.ndarray]) -> LatentMapper:
    """The network; published mappers see each channel over the rows of a level."""
    import torch

    from sg3cli.nets.latent_mapper import LatentMapper, MapperConfig

    rows = {"all": (0, ROWS), **LEVELS}
    names = sorted({level for level, _, _ in found}, key=lambda level: rows[level])
    width = next(iter(found.values())).shape[-1]
    net = LatentMapper(MapperConfig(ROWS, width, tuple(rows[name] for name in names), norm="levels"))
    state = {f"nets.{names.index(level)}.{k}.{kind}": torch.from_numpy(a) for (level, k, kind), a in found.items()}
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def _said(options: Any) -> dict[str, Any]:
    text = options.get("description") if isinstance(options, dict) else None
    return {"text": text[:200]} if isinstance(text, str) else {}
