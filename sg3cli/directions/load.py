"""Direction files: our own safetensors and InterFaceGAN's `*_boundary.npy`, read without executing anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.errors import ModelError, UsageError

SUFFIXES = (".safetensors", ".npy")


@dataclass(frozen=True)
class Direction:
    """`vector` `[num_ws, w_dim]` or `[1, w_dim]` float32, scaled so that strength 1 is one unit.

    `generator` is the digest of the generator it was fitted on; None when the file does not say (InterFaceGAN's).
    """

    name: str
    vector: np.ndarray
    generator: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def check_fits(self, num_ws: int, w_dim: int, generator: str | None = None) -> None:
        """Raise `ModelError` when the direction belongs to a generator of another shape or another digest."""
        rows, width = self.vector.shape
        if width != w_dim or rows not in (1, num_ws):
            raise ModelError(
                f"direction {self.name} has shape {rows}x{width}, the codes have {num_ws}x{w_dim}",
                "use a direction that was fitted on this generator",
            )
        if self.generator and generator and self.generator != generator:
            raise ModelError(
                f"direction {self.name} was fitted on another generator ({self.generator[:19]}...)",
                "directions do not carry over between generators; see `sg3 directions list`",
            )


def is_direction_file(name: str) -> bool:
    """Whether `name` means a file rather than one of the model's directions."""
    return name.endswith(SUFFIXES)


def load_direction(path: Path) -> Direction:
    """Read a direction file. Raises `UsageError` when it is missing or is not one."""
    if not path.is_file():
        raise UsageError(f"there is no direction file {path}", "give a name of `sg3 directions list` or a file")
    vector, meta = _read_npy(path) if path.suffix == ".npy" else _read_safetensors(path)
    vector = np.asarray(vector, dtype=np.float32)
    if vector.ndim == 3 and vector.shape[0] == 1:  # InterFaceGAN and HyperStyle-family files: (1, 16, 512)
        vector = vector[0]
    if vector.ndim == 1:
        vector = vector[None]
    if vector.ndim != 2 or vector.size == 0 or not np.isfinite(vector).all():
        raise UsageError(f"{path} does not hold a direction", "a direction is [512], [1,512] or [1,16,512] of floats")
    name = str(meta.get("name") or path.stem.removesuffix("_boundary"))
    return Direction(name, vector, meta.get("generator"), meta)


def _read_npy(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    try:
        array = np.load(path, allow_pickle=False)  # pickled arrays could run code
    except (ValueError, OSError, EOFError) as error:
        raise UsageError(f"cannot read the direction {path}: {error}", "it must be a plain array of floats") from error
    if array.dtype.kind != "f":
        raise UsageError(f"{path} holds {array.dtype}, not floats", "a direction is an array of floats")
    return array, {}


def _read_safetensors(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            return file.get_tensor("direction"), _metadata(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"cannot read the direction {path}: {error}", "it must hold a `direction`") from error


def _metadata(entries: dict[str, str]) -> dict[str, Any]:
    """safetensors metadata are strings; an entry `sg3` holds ours as JSON, otherwise they are taken as they stand."""
    return dict(json.loads(entries["sg3"])) if "sg3" in entries else dict(entries)


def find_direction(name: str, known: Mapping[str, Path]) -> Path:
    """The file of a direction given by name or as a file. Raises `UsageError` that lists the `known` names."""
    if name in known:
        return known[name]
    if is_direction_file(name):
        if Path(name).is_file():
            return Path(name)
        raise UsageError(f"there is no direction file {name}", _known(known))
    raise UsageError(f"unknown direction '{name}'", _known(known))


def _known(known: Mapping[str, Path]) -> str:
    return f"known directions: {', '.join(sorted(known)) or 'none'}; or give a .npy or .safetensors file"
