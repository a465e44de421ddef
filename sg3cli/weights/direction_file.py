"""Direction files: our own safetensors, InterFaceGAN's `*_boundary.npy`, arrays in pickles and `.pt` files.

All are read without executing anything in them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.errors import ModelError, UsageError
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.weights.import_arrays import SHAPES, as_direction, read_direction_array
from sg3cli.weights.kept import kept_by
from sg3cli.weights.mapper_file import mapper_file
from sg3cli.weights.safe_pickle.values import Refused

SYNONYMS = {  # what people say -> what the embedded model's directions are called
    **dict.fromkeys(("old", "older", "young", "younger", "years"), "age"),
    **dict.fromkeys(("happy", "happiness", "smiling", "grin"), "smile"),
    **dict.fromkeys(("open-mouth", "mouth", "talk"), "mouth-open"),
    **dict.fromkeys(("blink", "eyes", "sleep"), "eyes-closed"),
    **dict.fromkeys(("turn", "rotate", "left", "right"), "yaw"),
    **dict.fromkeys(("nod", "up", "down", "tilt"), "pitch"),
    **dict.fromkeys(("male", "female", "man", "woman", "sex"), "gender"),
    **dict.fromkeys(("make-up", "lipstick"), "makeup"),
    **dict.fromkeys(("eyeglasses", "spectacles"), "glasses"),
}
MOST_SKIN = 1.0
SUFFIXES = (".safetensors", ".npy", ".pkl", ".pickle", ".pt")


@dataclass(frozen=True)
class Direction:
    """`vector` `[num_ws, w_dim]` or `[1, w_dim]` float32, of StyleSpace `[1, channels]`; strength 1 adds it once.

    `generator` is the digest of the generator it was fitted on; None when the file does not say (InterFaceGAN's).
    """

    name: str
    vector: np.ndarray
    generator: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def does(self) -> str:
        """What strength 1 means, as the file says it."""
        unit = self.meta.get("unit")
        return str(self.meta.get("aim") or self.meta.get("description") or (unit if isinstance(unit, str) else ""))

    @property
    def space(self) -> str:
        """`w` (W or W+) or `s` (StyleSpace)."""
        return "s" if self.meta.get("space") == "s" else "w"

    @property
    def keeps(self) -> frozenset[str]:
        """What it does not mean to change, see `kept_by`."""
        return kept_by(self.meta)

    @property
    def skin(self) -> float:
        """The share by which strength 1 lets skin show more of its own structure (`compositing.skin`)."""
        share = self.meta.get("skin")
        return float(share) if isinstance(share, (int, float)) and abs(share) <= MOST_SKIN else 0.0

    @property
    def range(self) -> tuple[float, float] | None:
        """The strengths within which it holds; None when the file does not say."""
        match self.meta.get("range"):
            case [int() | float() as low, int() | float() as high]:
                return float(low), float(high)
        return None

    def check_fits(self, config: GeneratorConfig, generator: str | None = None) -> None:
        """Raise `ModelError` when the direction belongs to a generator of another shape or another digest."""
        rows, width = self.vector.shape
        channels = sum(config.style_sizes.values())
        fits = (rows, width) == (1, channels) if self.space == "s" else width == config.w_dim
        if not fits or rows not in (1, config.num_ws):
            codes = f"{channels} styles" if self.space == "s" else f"{config.num_ws}x{config.w_dim}"
            raise ModelError(
                f"direction {self.name} has shape {rows}x{width}, the codes have {codes}",
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
    """Read a direction file. Raises `UsageError` when it is missing, `ModelError` when it does not hold one."""
    if not path.is_file():
        raise UsageError(f"there is no direction file {path}", "give a name of `sg3 directions list` or a file")
    if mapper_file(path) is not None:
        raise ModelError(f"{path} is a latent mapper, which has no one vector", f"--edit {path}=1 takes it as it is")
    if path.suffix == ".safetensors":
        vector, meta = _read_safetensors(path)
    else:
        vector, meta = read_direction_array(path), {}
    name, generator = str(meta.get("name") or path.stem.removesuffix("_boundary")), meta.get("generator")
    return Direction(name, vector, generator if isinstance(generator, str) else None, meta)


def _read_safetensors(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:
            return as_direction(file.get_tensor("direction")), _metadata(file.metadata() or {})
    except Refused as cause:
        raise ModelError(f"cannot read the direction {path}: {cause}", SHAPES) from cause
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise ModelError(f"cannot read the direction {path}: {error}", "it must hold a `direction`") from error


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
    raise UsageError(f"unknown direction '{name}'{_meant(name, known)}", _known(known))


def _meant(name: str, known: Mapping[str, Path]) -> str:
    """`: did you mean age?`, where that can be told."""
    word = name.strip().lower().replace("_", "-")
    near = [SYNONYMS.get(word, word), *difflib.get_close_matches(word, known, 1, 0.6)]
    return next((f": did you mean {guess}?" for guess in near if guess in known), "")


def _known(known: Mapping[str, Path]) -> str:
    names = ", ".join(sorted(known)) or "none"
    return (
        f"known directions: {names}; or give a .npy, .pt or .safetensors file (sg3 directions list says what each does)"
    )
