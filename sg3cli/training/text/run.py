"""The recipe of `sg3 train text`: pictures described once in three views, captions of their labels, two towers, a file.

A source is a table of labels with a column `file` (aligned pictures), or a folder in the format of `sg3 train`'s own
sets. Of sets the people that other recipes hold out are held out here too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.console import Console
from sg3cli.errors import InputError, UsageError
from sg3cli.files import Chunks, digest_of, in_chunks
from sg3cli.nets.checkpoint import save_text
from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.face_reader import SIZE
from sg3cli.nets.text_tower import TextNet, describe
from sg3cli.training.data.label_table import read_labels
from sg3cli.training.directions.encode_images import read_aligned
from sg3cli.training.people128.pair_data import PictureSet, first_held_out_person, split_groups
from sg3cli.training.text.facts import facts_of
from sg3cli.training.text.fit import FitConfig, fit_text
from sg3cli.training.text.phrases import STATES
from sg3cli.weights.bundle import Bundle

FEWEST = 64  # pictures
AT_ONCE, SAVED = 32, 4  # pictures described at once; such batches between two saves
TURNED = ("yaw",)  # labels that change sign in a mirror
VIEWS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x,
    lambda x: x.flip(3),
    lambda x: F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear", align_corners=False),  # a soft drawing
)
MIRRORED = 1  # number of the view


@dataclass(frozen=True)
class Source:
    """Pictures of one kind: `load(rows)` gives `[n,3,SIZE,SIZE]` in [-1,1]; `facts {label: [N]}`, NaN where unknown."""

    facts: dict[str, np.ndarray]
    load: Callable[[np.ndarray], Tensor]
    digest: str

    def __len__(self) -> int:
        return len(next(iter(self.facts.values())))


@dataclass(frozen=True)
class TextRunConfig:
    """`pictures`: at most so many of each source, chosen by the seed."""

    pictures: int = 6000
    fit: FitConfig = field(default_factory=FitConfig)


def open_sources(paths: Sequence[Path], config: TextRunConfig) -> list[Source]:
    """Folders and tables. Raises `InputError` or `UsageError` that names what is wrong with one.

    Sets of photographs share the numbers of their people: those that the largest holds out, all do.
    """
    sets = [PictureSet(path) for path in paths if path.is_dir()]
    photos = [pictures for pictures in sets if pictures.group is None]
    first = first_held_out_person(max(photos, key=len).identity) if photos else 0
    return [open_source(path, config, first) for path in paths]


def open_source(path: Path, config: TextRunConfig, first_held_out: int = 0) -> Source:
    """One of them; `first_held_out` is the number from which on photographed people are left out."""
    source = _of_set(path, first_held_out) if path.is_dir() else _of_table(path)
    if len(source) <= config.pictures:
        return source
    rows = np.sort(np.random.default_rng(config.fit.seed).permutation(len(source))[: config.pictures])
    facts = {label: values[rows] for label, values in source.facts.items()}
    return Source(facts, lambda some: source.load(rows[some]), source.digest)


def _of_set(folder: Path, first_held_out: int) -> Source:
    pictures = PictureSet(folder)
    table = np.load(folder / "labels.npz", allow_pickle=False)
    styles = tuple(str(name) for name in table["hair_styles"]) if "hair_styles" in table else ()
    if pictures.group is not None:
        kept = np.isin(pictures.group, split_groups(pictures)[0])
    else:
        kept = pictures.identity < first_held_out
    rows = np.flatnonzero(kept)
    facts = {label: values[rows] for label, values in facts_of(pictures, styles).items()}
    return Source(facts, lambda some: pictures.tensor(rows[some], SIZE), digest_of(folder / "labels.npz"))


def _of_table(path: Path) -> Source:
    table = read_labels(path)
    if not table.files:
        raise UsageError(f"{path} names no pictures", "a table for texts has a column `file`")
    known = sorted({state.label for state in STATES})
    strange = [name for name in table.names if name not in known]
    if strange:
        raise UsageError(f"{path}: no words are known for the label {strange[0]}", f"labels: {', '.join(known)}")
    facts = {name: table.scores[:, k] for k, name in enumerate(table.names)}

    def load(rows: np.ndarray) -> Tensor:
        return torch.from_numpy(np.stack([read_aligned(table.files[row], SIZE) for row in rows]))

    return Source(facts, load, digest_of(path))


def train_text(
    bundle: Bundle,
    out: Path,
    sources: Sequence[Source],
    net: EfficientNetLite,
    config: TextRunConfig,
    console: Console,
) -> TextNet:
    """Make the text model and write it. A killed run goes on with the pictures it had seen. Raises `InputError`."""
    count = sum(map(len, sources))
    if count < FEWEST:
        raise InputError(
            f"{count} pictures are too few for a text model", f"give {FEWEST} at least, thousands are good"
        )
    key = [[source.digest, len(source)] for source in sources]
    chunks = Chunks(
        out.with_suffix(".parts"), hashlib.sha256(json.dumps([key, config.fit.seed]).encode()).hexdigest()[:32]
    )
    rows = console.progress(described(sources, net, chunks.rows), -(-count // AT_ONCE), "text: pictures", chunks.rows)
    for some in in_chunks(rows, SAVED):
        chunks.append({f"{k}": part for k, part in enumerate(some)}, len(some))
    parts = [chunk[name] for chunk in chunks for name in sorted(chunk, key=int)]
    features = torch.cat([torch.from_numpy(np.concatenate([part[k] for part in parts])) for k in range(len(VIEWS))])
    made = fit_text(features, joined_facts(sources), config.fit, console.notice, kinds_of(sources))
    meta = {"generator": bundle.origin.digest, "pictures": count, "fit": asdict(config.fit)}
    save_text(out, made, meta, dtype=torch.float16)
    chunks.clear()
    return made


@torch.no_grad()
def described(sources: Sequence[Source], net: EfficientNetLite, done: int) -> Iterator[np.ndarray]:
    """Yield `[views,n,DIMENSION]` float16 of `AT_ONCE` pictures after the other, from batch number `done` on."""
    places = [(source, row) for source in sources for row in range(len(source))]
    for start in range(done * AT_ONCE, len(places), AT_ONCE):
        some = places[start : start + AT_ONCE]
        loaded = [source.load(np.array([row for own, row in some if own is source])) for source in sources
                  if any(own is source for own, _ in some)]  # fmt: skip
        x = torch.cat(loaded)
        yield np.stack([describe(net, view(x)).half().numpy() for view in VIEWS])


def joined_facts(sources: Sequence[Source]) -> dict[str, np.ndarray]:
    """The labels of all pictures in all views, NaN where a source does not have one."""
    labels = sorted({label for source in sources for label in source.facts})
    views = []
    for view in range(len(VIEWS)):
        parts = {
            label: [source.facts.get(label, np.full(len(source), np.nan)) for source in sources] for label in labels
        }
        sign = {label: -1.0 if view == MIRRORED and label in TURNED else 1.0 for label in labels}
        views.append({label: sign[label] * np.concatenate(parts[label]) for label in labels})
    return {label: np.concatenate([view[label] for view in views]) for label in labels}


def kinds_of(sources: Sequence[Source]) -> np.ndarray:
    """The number of each picture's source, in all views."""
    return np.tile(np.concatenate([np.full(len(source), k) for k, source in enumerate(sources)]), len(VIEWS))
