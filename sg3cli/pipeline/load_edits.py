"""Edits as data -> edits that can be applied: their files found, checked against the model, and read.

The one way from a direction's name, a file or a channel to what it does to codes; rendering, previews, sweeps and
`sg3 generate` take it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sg3cli.errors import UsageError
from sg3cli.files import digest_of, read_arrays
from sg3cli.latents.edits import Edit
from sg3cli.latents.moves import Move, ShiftS, ShiftW
from sg3cli.latents.projection import condition
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.weights.bundle import FLOW, STYLE_STATISTICS, Bundle
from sg3cli.weights.direction_file import Direction, find_direction, load_direction
from sg3cli.weights.kept import is_about, kept_by_target
from sg3cli.weights.mapper_file import MapperFile, mapper_file

if TYPE_CHECKING:
    from sg3cli.nets.code_flow import CodeFlow
    from sg3cli.nets.generator import Generator
    from sg3cli.weights.loaded_nets import LoadedNets


@dataclass(frozen=True)
class LoadedEdits:
    """Edits with their moves, and the digests of the files that those were read from, by direction."""

    edits: list[Edit]
    digests: dict[str, str]
    notices: list[str]  # what was lost on the way to another space


def edit_files(edits: Sequence[Edit], bundle: Bundle) -> dict[str, Path]:
    """The file of every direction that the edits need; raises `UsageError` for an unknown one."""
    known = {name: bundle.direction_path(name) for name in bundle.direction_names()}
    return {name: find_direction(name, known) for edit in edits for name in edit.names}


def check_edits(edits: Sequence[Edit], bundle: Bundle) -> dict[str, Direction]:
    """The directions of the edits, read; raises when one, or a mapper, is unknown or does not belong to the model.

    Needs no network.
    """
    files = edit_files(edits, bundle)
    mappers = mappers_of(files)
    directions = {name: load_direction(path) for name, path in files.items() if name not in mappers}
    for direction in directions.values():
        direction.check_fits(bundle.config, bundle.origin.digest)
    for mapper in mappers.values():
        mapper.check_fits(bundle.config, bundle.origin.digest)
    for edit in edits:
        rows = edit.rows(bundle.config.num_ws)
        if not mappers.keys().isdisjoint(edit.names):
            check_mapper(edit, mappers)
            continue
        if edit.target is not None:
            check_target(edit, bundle)
        elif edit.channel is not None:
            channel_index(edit, bundle.config)
        elif edit.space == "s" and directions[edit.direction].space == "w" and 0 in rows:
            hint = "leave layer 0 out, or --space s"
            raise UsageError(f"{edit.title}: layer 0 does not follow its code in a straight line in S", hint)
    return directions


def load_edits(edits: Sequence[Edit], bundle: Bundle, nets: LoadedNets) -> LoadedEdits:
    """Read what each edit does to codes. Raises as `check_edits` does; a generator is read only where S wants one."""
    files, directions = edit_files(edits, bundle), check_edits(edits, bundle)
    networks = Networks(bundle, nets, mappers_of(files))
    loaded = [
        replace(
            edit,
            move=move_of(edit, directions, networks),
            keeps=kept_by_edit(edit, directions, networks),
            skin=directions[edit.direction].skin if edit.direction in directions else 0.0,
        )
        for edit in edits
    ]
    digests = {name: digest_of(path) for name, path in files.items()}
    if any(edit.channel is not None for edit in edits) and networks.statistics_path.is_file():
        digests[STYLE_STATISTICS] = digest_of(networks.statistics_path)
    if any(edit.target is not None for edit in edits):
        digests[FLOW] = digest_of(bundle.flow_path())
    return LoadedEdits(loaded, digests, networks.notices)


def mappers_of(files: Mapping[str, Path]) -> dict[str, MapperFile]:
    """Those of the files that hold a latent mapper."""
    return {name: found for name, path in files.items() if (found := mapper_file(path)) is not None}


def check_mapper(edit: Edit, mappers: Mapping[str, MapperFile]) -> None:
    """Raise for what only directions can."""
    if kept := next((name for name in edit.preserve if name in mappers), None):
        raise UsageError(f"{kept} is a mapper, which has no one direction to preserve", "preserve directions")
    if edit.space == "s" or edit.preserve:
        which = "--preserve" if edit.preserve else "--space s"
        raise UsageError(f"{edit.title} is a mapper, whose step takes no {which}", "leave it out")


def check_target(edit: Edit, bundle: Bundle) -> None:
    """Raise for an attribute that the model's flow does not know, and for what only directions can."""
    if edit.layers is not None or edit.space is not None or edit.preserve:
        raise UsageError(f"{edit.title}: a target takes no --layers, --space or --preserve", "use --edit for those")
    labels = flow_labels(bundle)
    if flow_label(edit.direction) not in labels:
        raise UsageError(
            f"{bundle.name} cannot bring {edit.direction!r} to a value", f"it can: {', '.join(map(shown, labels))}"
        )


def flow_labels(bundle: Bundle) -> tuple[str, ...]:
    """The attributes of the model's flow, from its file's header. Raises `ModelError` when there is none."""
    from sg3cli.nets.checkpoint import flow_config

    return flow_config(bundle.flow_path()).targets


def flow_label(name: str) -> str:
    """An attribute as flows call it: `mouth_open` of `mouth-open`, `male` of `gender`."""
    return {"gender": "male"}.get(name, name.replace("-", "_"))


def shown(label: str) -> str:
    """An attribute as a command line has it."""
    return label.replace("_", "-")


def channel_index(edit: Edit, config: GeneratorConfig) -> int:
    """Place of an edit's channel among all styles; raises `UsageError` for one that the model does not have."""
    assert edit.channel is not None
    row, channel = edit.channel
    sizes = list(config.style_sizes.values())
    if row >= len(sizes):
        raise UsageError(
            f"{edit.direction}: there is no such layer", f"the model has input and L0 to L{len(sizes) - 2}"
        )
    if channel >= sizes[row]:
        raise UsageError(f"{edit.direction}: there is no such channel", f"that layer has 0 to {sizes[row] - 1}")
    return sum(sizes[:row]) + channel


def kept_by_edit(edit: Edit, directions: Mapping[str, Direction], networks: Networks) -> frozenset[str]:
    """What an edit leaves alone, as its direction's file, or the flow's, says."""
    if edit.target is not None:
        return kept_by_target(flow_label(edit.direction), networks.flow.config.keeps_hue)
    if (mapper := networks.mappers.get(edit.direction)) is not None:
        return mapper.keeps
    return frozenset() if edit.channel is not None else directions[edit.direction].keeps


class Networks:
    """What a few edits need of the model beyond their files, read when it is asked for."""

    def __init__(self, bundle: Bundle, nets: LoadedNets, mappers: Mapping[str, MapperFile]) -> None:
        self.bundle, self.nets, self.mappers = bundle, nets, mappers
        self._generator: Generator | None = None
        self._deviations: np.ndarray | None = None
        self._flow: CodeFlow | None = None
        self.notices: list[str] = []

    @property
    def generator(self) -> Generator:
        """The model's own generator, on the CPU."""
        if self._generator is None:
            self._generator = self.nets.generator(self.bundle)
        return self._generator

    @property
    def flow(self) -> CodeFlow:
        """The model's flow on codes."""
        if self._flow is None:
            self._flow = self.bundle.flow()
        return self._flow

    @property
    def statistics_path(self) -> Path:
        """Where the model keeps statistics of its styles that were imported."""
        return self.bundle.companion(STYLE_STATISTICS)

    @property
    def deviations(self) -> np.ndarray:
        """Standard deviation `[channels]` of each style: imported ones, else those of the model's own faces."""
        if self._deviations is None:
            if self.statistics_path.is_file():
                self._deviations = read_arrays(self.statistics_path)[0]["std"]
            else:
                from sg3cli.latents.spaces import statistics

                self._deviations = statistics(self.generator, "s").std
        return self._deviations


def move_of(edit: Edit, directions: Mapping[str, Direction], networks: Networks) -> Move:
    """What strength 1 of an edit does to codes."""
    config = networks.bundle.config
    rows = edit.rows(config.num_ws)
    if edit.target is not None:
        from sg3cli.latents.flow_moves import FlowTo

        low, high = networks.flow.reach(flow_label(edit.direction))
        if not all(low <= key.strength <= high for key in edit.target):
            networks.notices.append(
                f"edit: {edit.title} to {edit.text} is beyond {low:.3g}..{high:.3g}, as far as it comes"
            )
        return FlowTo(networks.flow, flow_label(edit.direction))
    if edit.channel is not None:
        place = channel_index(edit, config)
        vector = np.zeros(sum(config.style_sizes.values()), np.float32)
        vector[place] = networks.deviations[place]
        return ShiftS(vector)
    if (mapper := networks.mappers.get(edit.direction)) is not None:
        from sg3cli.latents.mapper_moves import MapperStep
        from sg3cli.nets.checkpoint import load_mapper_file

        return MapperStep(load_mapper_file(mapper.path)[0], rows)
    own = directions[edit.direction]
    space = edit.space or own.space
    vector, *kept = (in_space(directions[name], space, rows, networks) for name in edit.names)
    if kept:
        vector = condition(vector, kept)
    if space == "s":
        return ShiftS(only_layers(vector[0], rows, config))
    return ShiftW(vector, rows)


def in_space(direction: Direction, space: str, rows: np.ndarray, networks: Networks) -> np.ndarray:
    """The direction's vector in W+ (`[num_ws or 1, w_dim]`) or in S (`[1, channels]`)."""
    if direction.space == space:
        return direction.vector
    from sg3cli.latents.spaces import to_s_direction, to_w_direction

    if space == "s":
        return to_s_direction(networks.generator, direction.vector, rows)[None]
    vector, lost = to_w_direction(networks.generator, direction.vector[0])
    networks.notices.append(f"edit: {lost:.0%} of {direction.name} lies beyond W+ and is left out (--space s has it)")
    return vector


def only_layers(vector: np.ndarray, rows: np.ndarray, config: GeneratorConfig) -> np.ndarray:
    """Styles `[channels]` with those of other layers of W+ than `rows` set to 0."""
    of_row = np.repeat(np.arange(config.num_ws), list(config.style_sizes.values()))
    return np.where(np.isin(of_row, rows), vector, 0).astype(np.float32)


def wants_network(kind: str, bundle: Bundle, edits: Sequence[Edit]) -> bool:
    """Whether `--transfer` of this `kind` takes the model's network: asked for, or `auto` and one of the edits, whose
    directions have been read, is of those that it is for."""
    if kind != "auto" or not bundle.has_transfer:
        return kind == "learned"
    about = bundle.transfer_for
    meant = [not about or any(is_about(label, edit.keeps) for label in about) for edit in edits if not edit.is_zero]
    return any(meant)
