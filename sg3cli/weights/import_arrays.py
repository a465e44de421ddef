"""Array files of the editing tools: directions, codes, transforms, StyleCLIP's tables. Nothing in them is executed.

Most are pickled object arrays, for which numpy's own reader would run whatever is inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.errors import ModelError
from sg3cli.weights.mapper_file import is_official_mapper
from sg3cli.weights.safe_pickle.reader import explained, read
from sg3cli.weights.safe_pickle.values import Array, Refused, Tensor, shown

MOST_LAYERS = 64  # a direction has a row for each layer; tables of channels have thousands
SHAPES = "a direction is [512], [1,512] or [1,16,512] of floats"


@dataclass(frozen=True)
class StyleStatistics:
    """StyleCLIP's `s_stats`: mean and standard deviation of each channel of StyleSpace, by layer."""

    mean: dict[str, np.ndarray]
    std: dict[str, np.ndarray]


def read_direction_array(path: Path) -> np.ndarray:
    """The direction `[rows, w_dim]` float32 of an `.npy`, pickle or `.pt` file. Raises `ModelError`."""
    value = read(path)
    with _not_what(path, SHAPES):
        if _is_statistics(value):
            raise Refused("it holds StyleCLIP's statistics of channels, not a direction")
        while isinstance(value, Array) and isinstance(value.values, list):
            value = value.values
        if isinstance(value, dict | list) and len(value) == 1:
            (value,) = value.values() if isinstance(value, dict) else value
        return as_direction(_floats(value))


def as_direction(array: np.ndarray) -> np.ndarray:
    """`[w_dim]`, `[rows, w_dim]` or `[1, rows, w_dim]` as `[rows, w_dim]` float32. Raises `Refused`."""
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 1:
        array = array[None]
    if array.ndim == 2 and len(array) > MOST_LAYERS:
        table = f"it is a table of {array.shape[0]}x{array.shape[1]} values"
        raise Refused(f"{table}, as StyleCLIP's delta_i_c: a text chooses a direction from it, it is none itself")
    if array.ndim != 2 or array.size == 0:
        raise Refused(f"it holds an array of shape {shown(array.shape)}, not a direction")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise Refused("it has values that are not finite")
    return array


def read_latents(path: Path) -> dict[str, np.ndarray]:
    """`latents.npy`: codes by frame or image name, `[steps, num_ws, w_dim]` float32.

    The image tools keep every refinement step, the video tools the last one only; that is one step here.
    """
    with _not_what(path, "latents.npy holds a table of names and codes"):
        codes = {name: _steps(value) for name, value in _table(read(path)).items()}
        if len({code.shape[1:] for code in codes.values()}) > 1:
            raise Refused("its codes are of different shapes")
        return codes


def read_codes(path: Path, names: Sequence[str] | None = None) -> np.ndarray:
    """Codes `[N, num_ws or 1, w_dim]` float32 of an `.npy`: an array, or `latents.npy`, of which `names` choose rows.

    Of several refinement steps the last one counts. Raises `ModelError` when a name is missing or nothing fits.
    """
    with _not_what(path, "codes are an .npy of [N,w_dim] or [N,num_ws,w_dim], or a table of names and codes"):
        value = read(path)
        if isinstance(value, dict):
            if names is None:
                raise Refused("it holds codes by name, and the table has no column `file`")
            codes = {Path(name).name: code[-1] for name, code in read_latents(path).items()}
            if missing := [name for name in names if name not in codes]:
                raise Refused(f"it has no code of {missing[0]}")
            return np.stack([codes[name] for name in names])
        array = _floats(value)
        return (array[:, None] if array.ndim == 2 else array).astype(np.float32)


def kind_of(path: Path) -> str:
    """`statistics`, `effects` or `mapper` of StyleCLIP's files, else `direction`."""
    if path.suffix == ".safetensors" or not path.is_file():
        return "direction"
    value = read(path)
    with explained(path):
        if _is_statistics(value):
            return "statistics"
        if is_official_mapper(value):
            return "mapper"
        array = value.array() if isinstance(value, Array | Tensor) and not _has_objects(value) else value
    return "effects" if isinstance(array, np.ndarray) and array.ndim == 2 and len(array) > MOST_LAYERS else "direction"


def _has_objects(value: Array | Tensor) -> bool:
    return isinstance(value, Array) and isinstance(value.values, list)


def read_style_statistics(path: Path) -> StyleStatistics:
    """StyleCLIP's `s_stats`. Raises `ModelError`."""
    value = read(path)
    with _not_what(path, "s_stats is a pickled list of transforms, means and deviations"):
        if not _is_statistics(value):
            raise Refused("it does not hold StyleCLIP's statistics")
        mean, std = ({name: _floats(v).astype(np.float32).ravel() for name, v in t.items()} for t in value[1:])
        if {n: v.shape for n, v in mean.items()} != {n: v.shape for n, v in std.items()}:
            raise Refused("its means and deviations are of different layers")
        return StyleStatistics(mean, std)


def read_channel_table(path: Path) -> np.ndarray:
    """StyleCLIP's `delta_i_c.npy`: for each channel of StyleSpace its effect in CLIP's space, `[channels, 512]`."""
    value = read(path)
    with _not_what(path, "delta_i_c.npy is a table of floats, one row for each channel"):
        table = _floats(value)
        if table.ndim != 2 or len(table) <= MOST_LAYERS:
            raise Refused(f"it holds an array of shape {shown(table.shape)}, not a table of channels")
        return table.astype(np.float32)


# ---- parts ----------------------------------------------------------------------------------------------------------


@contextmanager
def _not_what(path: Path, expected: str) -> Iterator[None]:
    """Causes of a file that could be read but does not hold what it should."""
    try:
        with explained(path):
            yield
    except ModelError as error:
        raise ModelError(str(error), expected) from error


def _table(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value or not all(isinstance(name, str) for name in value):
        raise Refused("it does not hold a table of names")
    return value


def _is_statistics(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(part, dict) for part in value)


def _steps(value: Any) -> np.ndarray:
    """A code, or one for each step, as `[steps, num_ws, w_dim]`."""
    if isinstance(value, Array) and isinstance(value.values, list):
        value = value.values
    code = np.stack([_floats(step) for step in _alike(value)]) if isinstance(value, list | tuple) else _floats(value)
    code = code[None] if code.ndim == 2 else code
    if code.ndim != 3 or code.size == 0:
        raise Refused(f"a code has shape {shown(code.shape)}")
    return code.astype(np.float32)


def _alike(values: list[Any] | tuple[Any, ...]) -> list[np.ndarray]:
    arrays = [_floats(value) for value in values]
    if not arrays or len({array.shape for array in arrays}) > 1:
        raise Refused("a code's steps are of different shapes")
    return arrays


def _floats(value: Any) -> np.ndarray:
    """An array of floats. Raises `Refused` for anything else."""
    if isinstance(value, Array | Tensor):
        value = value.array()
    if not isinstance(value, np.ndarray):
        raise Refused(f"it holds a {type(value).__name__} where an array is expected")
    if value.dtype.kind != "f":
        raise Refused(f"it holds {value.dtype}, not floats")
    return value
