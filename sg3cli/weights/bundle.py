"""A model bundle: one folder with a generator, the encoder that belongs to it and the directions fitted on it.

    people-128/model.json             name, resolution, licence, source, how it was made
    people-128/generator.safetensors  weights, with the architecture in the file's metadata
    people-128/encoder.safetensors    only needed to invert: a bundle without it can still generate
    people-128/directions/age.safetensors ...
    sketch/parent.safetensors         only in an adapted model (`sg3 adapt`): the generator that it was adapted from

Bundles are looked up by name in the package, then in the model store, or given as a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sg3cli import places
from sg3cli.errors import InputError, ModelError
from sg3cli.files import digest_of, read_arrays
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.weights.direction_file import Direction, load_direction

if TYPE_CHECKING:
    import numpy as np

    from sg3cli.nets.code_flow import CodeFlow
    from sg3cli.nets.encoder import Encoder
    from sg3cli.nets.generator import Generator
    from sg3cli.nets.transfer_net import TransferNet

GENERATOR = "generator.safetensors"
PARENT = "parent.safetensors"  # of an adapted bundle: the generator whose codes, encoder and directions it takes
TRANSFER_NET = "transfer.safetensors"  # of a bundle: brings an edit over to the source
ATTRIBUTE_NET = "probe.safetensors"  # of a bundle: reads labels and identity off a face; not used in training
SMILE = "smile.safetensors"  # of a bundle: what goes with a smile that its drawings leave to the mouth
SMILE_SHAPES = {"shape": (468, 3), "motion": (468, 3), "light": (128, 128)}
SMILE_MOST = 10.0  # of all values; a few are the most that a face has
FLOW = "flow.safetensors"  # of a bundle: a flow on its codes that brings attributes to values
READER = "reader.safetensors"  # of a bundle: heads of a face reader on a published backbone
TEXT = "text.safetensors"  # of a bundle: a small model that puts texts and faces into one space
STYLE_STATISTICS = "stylespace.safetensors"  # of a bundle: imported mean and deviation of each style
LATER = (FLOW, STYLE_STATISTICS)  # what a model may get, or get anew, after it was described
MAKE_AGAIN = "import, train or copy it again"
EMBEDDED = Path(__file__).parent


@dataclass(frozen=True)
class Bundle:
    """A model on disk. Nothing heavy is read before `generator()` or `encoder()` is called."""

    path: Path
    meta: dict[str, Any]
    generator_file: str = GENERATOR

    @property
    def name(self) -> str:
        return str(self.meta["name"])

    @cached_property
    def digest(self) -> str:
        """`sha256:...` of the generator's file; codes and directions carry it (those of `origin`)."""
        return self._digest(self.generator_file)

    @property
    def is_adapted(self) -> bool:
        """Whether its generator was adapted from another one, whose codes it takes."""
        return self.generator_file == GENERATOR and "adapted_from" in self.meta

    @cached_property
    def origin(self) -> Bundle:
        """The model whose codes these are: itself, or of an adapted one its parent, with the same encoder.

        Codes are found, directions fitted and people tuned with it. Raises `ModelError` when the parent's generator
        is not the one that the model's description names.
        """
        if not self.is_adapted:
            return self
        named = self.meta["adapted_from"]
        if not isinstance(named, dict) or not (self.path / PARENT).is_file():
            raise ModelError(f"model {self.path} lacks {PARENT}, which it was adapted from", "copy the whole folder")
        parent = replace(self, meta={**self.meta, "name": str(named.get("name"))}, generator_file=PARENT)
        if parent.digest != named.get("generator"):
            raise ModelError(f"{self.path / PARENT} is not what {self.name} was adapted from", "copy the model again")
        return parent

    @cached_property
    def encoder_digest(self) -> str:
        """`sha256:...` of the encoder's file; `ModelError` when there is none."""
        return self._digest(self.encoder_path().name)

    def checked(self, name: str) -> Path:
        """The file of a part; `ModelError` when it is not the one that the model's description notes."""
        self._digest(name)
        return self.path / name

    def _digest(self, name: str) -> str:
        """Digest of a part; `ModelError` when it is not the one that the model's description notes."""
        found, noted = digest_of(self.path / name), self.meta.get("parts")
        known = noted.get(name) if isinstance(noted, dict) else None
        if known is not None and found != f"sha256:{known}":
            raise ModelError(f"{self.path / name} is damaged: it is not what model.json notes", MAKE_AGAIN)
        return found

    @cached_property
    def config(self) -> GeneratorConfig:
        """The generator's architecture, from its file's header. Raises `ModelError` for a damaged one."""
        from safetensors import SafetensorError, safe_open

        path = self.path / self.generator_file
        try:
            with safe_open(str(path), framework="np") as file:
                return GeneratorConfig.from_dict(json.loads(file.metadata()["sg3"])["config"])
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as cause:
            raise ModelError(f"{path} is damaged: {cause}", "copy the model again, or import it again") from cause

    @property
    def restyle_steps(self) -> int | None:
        """After how many passes the encoder's codes are as good as they get; None: the model does not say."""
        steps = self.meta.get("restyle_steps")
        if steps is not None and (type(steps) is not int or steps < 1):
            raise ModelError(f"the model {self.name} names {steps!r} passes of its encoder", "correct its model.json")
        return steps

    @property
    def has_encoder(self) -> bool:
        return (self.path / "encoder.safetensors").is_file()

    def encoder_path(self) -> Path:
        """The encoder's file; `ModelError` that says how to add one otherwise."""
        if not self.has_encoder:
            raise ModelError(
                f"model {self.name} has no encoder (encoder.safetensors), so it can generate but not invert",
                f"sg3 models import GENERATOR --name {self.name} --encoder ENCODER.pt",
            )
        return self.path / "encoder.safetensors"

    def generator(self) -> Generator:
        """The generator on the CPU, float32, eval mode, no gradients."""
        from sg3cli.nets.checkpoint import load_generator_file

        _ = self.digest  # raises for a damaged file
        G, _ = load_generator_file(self.path / self.generator_file)
        return G.eval().requires_grad_(False)

    def encoder(self) -> Encoder:
        """The encoder on the CPU, float32, eval mode, no gradients."""
        from sg3cli.nets.checkpoint import load_encoder_file

        _ = self.encoder_digest
        encoder, _ = load_encoder_file(self.encoder_path())
        return encoder.eval().requires_grad_(False)

    def companion(self, name: str) -> Path:
        """Where a file that was made or imported for the model later lies, or would lie.

        In the model's folder; for the model in the package, which is not written to, in the model store.
        """
        own = self.path / name
        if own.is_file() or not self.path.is_relative_to(EMBEDDED):
            return own
        return self.kept(name)

    def kept(self, name: str) -> Path:
        """The same in the model store."""
        from sg3cli.weights import store

        return store.models_dir() / "companions" / self.digest.rpartition(":")[2][:16] / name

    @property
    def transfer_for(self) -> tuple[str, ...]:
        """The attributes whose edits the transfer network is for; none: all."""
        return tuple(filter(None, str(self.meta.get("transfer_for", "")).split(",")))

    @property
    def has_transfer(self) -> bool:
        """Whether a network for the transfer of edits belongs to the model."""
        return (self.path / TRANSFER_NET).is_file()

    @cached_property
    def transfer_digest(self) -> str | None:
        """`sha256:...` of that network's file; None without one."""
        return self._digest(TRANSFER_NET) if self.has_transfer else None

    def transfer(self) -> TransferNet:
        """That network on the CPU, float32, eval mode, no gradients; `ModelError` when there is none."""
        from sg3cli.nets.checkpoint import load_transfer_file

        if not self.has_transfer:
            raise ModelError(
                f"model {self.name} has no transfer network ({TRANSFER_NET})", "use --transfer motion, or auto"
            )
        return load_transfer_file(self.path / TRANSFER_NET)[0]

    def smile(self) -> dict[str, np.ndarray] | None:
        """What goes with a smile (`compositing.smiling.Smiling`); None where nothing is added to what drawings tell."""
        if self.smile_digest is None:
            return None
        try:
            arrays = read_arrays(self.path / SMILE)[0]
        except InputError as error:
            raise ModelError(str(error), MAKE_AGAIN) from error
        whole = {name: values.shape for name, values in arrays.items()} == SMILE_SHAPES and all(
            values.dtype.name == "float32" and abs(values).max() < SMILE_MOST for values in arrays.values()
        )
        if not whole or not arrays["shape"].any():
            raise ModelError(f"{self.path / SMILE} does not hold what goes with a smile", MAKE_AGAIN)
        return arrays

    @cached_property
    def smile_digest(self) -> str | None:
        """`sha256:...` of its file; None without one."""
        return self._digest(SMILE) if (self.path / SMILE).is_file() else None

    @property
    def has_flow(self) -> bool:
        """Whether a flow belongs to the model, or was trained for it later."""
        return self.companion(FLOW).is_file()

    def flow_path(self) -> Path:
        """The model's flow, its own or one that was trained later; `ModelError` when there is none."""
        path = self.companion(FLOW)
        if not path.is_file():
            raise ModelError(
                f"model {self.name} has no flow ({FLOW}), which --target needs",
                f"sg3 train flow PICTURES --model {self.name}, or use --edit",
            )
        return path

    def flow(self) -> CodeFlow:
        """That flow on the CPU, float32, eval mode, no gradients. Raises `ModelError`."""
        from sg3cli.nets.checkpoint import load_flow_file

        path = self.flow_path()
        if path.parent == self.path:
            self._digest(FLOW)
        flow, meta = load_flow_file(path)
        if meta.get("generator") != self.origin.digest:
            raise ModelError(f"{path} belongs to another generator", f"sg3 train flow PICTURES --model {self.name}")
        return flow

    @property
    def has_text(self) -> bool:
        """Whether a text model belongs to the model, or was trained for it later."""
        return self.companion(TEXT).is_file()

    def text_path(self) -> Path:
        """That text model's file; `ModelError` when there is none."""
        path = self.companion(TEXT)
        if not path.is_file():
            raise ModelError(
                f"model {self.name} has no text model ({TEXT})",
                f"sg3 train text LABELS --model {self.name}, or use --text-model clip:ViT-B-32",
            )
        if path.parent == self.path:
            self._digest(TEXT)
        return path

    @cached_property
    def directions(self) -> Mapping[str, Direction]:
        """The model's directions by name; each is read when it is asked for."""
        return StoredDirections(self)

    @cached_property
    def directions_digest(self) -> str:
        """A digest of all directions together."""
        together = "".join(digest_of(self.direction_path(name)) for name in self.direction_names())
        return "sha256:" + hashlib.sha256(together.encode()).hexdigest()

    def direction_names(self) -> list[str]:
        return sorted(p.stem for p in (self.path / "directions").glob("*.safetensors"))

    def direction_path(self, name: str) -> Path:
        """The file of a direction; ModelError that lists the known ones otherwise."""
        path = self.path / "directions" / f"{name}.safetensors"
        if not path.is_file():
            known = ", ".join(self.direction_names()) or "none"
            raise ModelError(f"{self.name} has no direction {name!r}", f"it has: {known}")
        self._digest(f"directions/{name}.safetensors")
        return path


class StoredDirections(Mapping[str, Direction]):
    """`model.directions["age"]`; an unknown name is a `ModelError` that lists those known."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    def __getitem__(self, name: str) -> Direction:
        return load_direction(self._bundle.direction_path(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._bundle.direction_names())

    def __len__(self) -> int:
        return len(self._bundle.direction_names())


def noted_parts(folder: Path) -> dict[str, str]:
    """sha256 of each part of a model that is about to be described, under its name, for `parts` of `model.json`.

    Without what is made or imported for a model later, which may be made again.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.safetensors"))}
    return {name: digest_of(path).partition(":")[2] for name, path in files.items() if name not in LATER}


def load_model(name_or_path: str | Path) -> Bundle:
    """The model of a name (`people-128`) or in a folder, unread yet. `ModelError` says what is missing."""
    folder = _find(name_or_path)
    try:
        meta = json.loads((folder / "model.json").read_text(encoding="utf8"))
    except (OSError, ValueError) as cause:
        raise ModelError(f"{folder} holds no readable model.json ({cause})", "is it a model folder?") from cause
    if not isinstance(meta, dict) or meta.get("schema") != 1:
        raise ModelError(f"{folder}/model.json has an unknown schema", "it was written by another version of sg3")
    if not (folder / "generator.safetensors").is_file():
        raise ModelError(f"model {folder} lacks generator.safetensors", "copy the whole folder, or import it again")
    return Bundle(folder, {"name": folder.name, **meta})


def _find(name_or_path: str | Path) -> Path:
    from sg3cli.weights import store

    given = places.expand(name_or_path)
    for folder in (EMBEDDED / given.name, store.bundle_folder(given.name)) if given.name == str(given) else ():
        if (folder / "model.json").is_file():
            return folder
    if given.is_dir():
        return given
    if given.is_file():
        raise ModelError(f"{given} is a file, not a model folder", f"sg3 models import {given}")
    if store.is_convertible(str(name_or_path)):
        raise ModelError(f"model {name_or_path} has not been imported", f"sg3 models import {name_or_path}")
    raise ModelError(f"model {str(name_or_path)!r} is neither a known name nor a folder", "see `sg3 models list`")
