"""A training run of the transfer network in one folder, in the background if need be.

`python -m sg3cli.training.people128.transfer_run --help`. The folder holds `state.pt` (the run continues exactly),
`transfer.safetensors` (the averaged network), `log.jsonl` and `sheets/`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.nets.checkpoint import save_transfer
from sg3cli.nets.efficientnet_lite import PerceptualDistance
from sg3cli.nets.transfer_net import TransferNet
from sg3cli.training.people128.autoencoder import bf16_in_hardware
from sg3cli.training.people128.background_run import BackgroundRun, Say, say, stopped_by_sigterm
from sg3cli.training.people128.pair_data import (
    Pairs,
    PictureSet,
    attribute_index,
    first_held_out_person,
    make_pairs,
    photo_rows,
    split_groups,
)
from sg3cli.training.people128.pair_sheets import write_sheet
from sg3cli.training.people128.transfer_data import Example, ExampleConfig, ExampleSource, PairSource, both_ways
from sg3cli.training.people128.transfer_drawings import Drawer, draw_pairs
from sg3cli.training.people128.transfer_sheets import chosen, examples_of, photo_edits, transfer_sheet
from sg3cli.training.people128.transfer_trainer import TransferTrainer, TransferTraining
from sg3cli.weights.bundle import load_model
from sg3cli.weights.efficientnet import load_efficientnet_lite

PHOTO_SHARE = 0.1  # of the examples: photographs under edits whose truth is not known
ANY_EDIT = (0.6, 2.0)  # strengths of these
NOT_FIELDS = ("count", "share", "drawn", "edits", "adversarial")  # arguments that are not those of `TransferRunConfig`


@dataclass(frozen=True)
class TransferRunConfig:
    """Where a run reads and writes, and how long it is. `edits`: sets of pairs of 256 px with the share of each, and
    the share of the drawn change that belongs to its truth."""

    edits: tuple[tuple[Path, float, float], ...]
    photos: Path
    model: str
    backbone: Path
    work: Path
    minutes: float = 60.0
    save_minutes: float = 5.0
    sheet_minutes: float = 15.0
    threads: int = 2
    held_out_groups: int = 24
    untaught: tuple[str, ...] = ()  # edits under which a network adds nothing to photographs; none: all but age
    examples: ExampleConfig = field(default_factory=ExampleConfig)
    training: TransferTraining = field(default_factory=TransferTraining)


class TransferRun(BackgroundRun):
    """Data, trainer and folder of one run."""

    def __init__(self, config: TransferRunConfig, say: Say) -> None:
        self.config = config
        config.work.mkdir(parents=True, exist_ok=True)
        self.drawer, self.mesh = drawer_of(config.model), DrawnMesh.load()
        held, sources = [], []
        for number, (folder, share, drawn) in enumerate(config.edits):
            pictures = PictureSet(folder)
            train, last = split_groups(pictures, config.held_out_groups)
            source = self._source(f"pairs{number}", pictures, self._known(make_pairs(pictures, train)), share)
            sources.append(source._replace(drawn=drawn))
            few = chosen(self._known(make_pairs(pictures, last)))
            held.append(self._examples(f"held{number}", pictures, few))
        photos = PictureSet(config.photos)
        seen, unseen = photo_rows(photos, first_held_out_person(photos.identity))
        others = any_edits(seen, self.drawer.knows, config.examples.seed, config.untaught)
        sources.append(self._source("photos", photos, others, PHOTO_SHARE)._replace(known=False))
        self.held = Example(*(torch.cat(parts) for parts in zip(*held, strict=True)))
        self.photos = self._examples("photo_edits", photos, photo_edits(photos, unseen))
        self.source = ExampleSource(sources, config.examples, self.mesh)
        perceptual = PerceptualDistance(load_efficientnet_lite(config.backbone))
        torch.manual_seed(config.examples.seed)
        self.trainer = TransferTrainer(TransferNet(), perceptual, config.training)
        super().__init__(config, self.trainer, say)

    def _known(self, pairs: Pairs) -> Pairs:
        """Both ways, those that change one thing that the model can change."""
        pairs = pairs.alone()
        keep = self.drawer.knows[np.abs(pairs.delta).argmax(1)]
        return both_ways(Pairs(pairs.rows[keep], pairs.delta[keep], pairs.share[keep]))

    def _source(self, name: str, pictures: PictureSet, pairs: Pairs, share: float) -> PairSource:
        drawings = draw_pairs(self.drawer, pictures, pairs, self.config.work / f"{name}.npz")
        return PairSource(pictures, pairs, drawings, share)

    def _examples(self, name: str, pictures: PictureSet, pairs: Pairs) -> Example:
        drawings = draw_pairs(self.drawer, pictures, pairs, self.config.work / f"{name}.npz")
        return examples_of(pictures, pairs, drawings, self.mesh)

    def run(self, steps: int | None = None) -> TransferNet:
        """Train to the end of the minutes (or for `steps` more); the averaged network."""
        self.train(steps)
        return self.trainer.ema

    def batches(self, first: int) -> Iterator[Example]:
        """Examples from step `first` on."""
        return self.source.stream(first)

    def keep(self, meta: dict[str, Any]) -> None:
        """The averaged network."""
        save_transfer(self.config.work / "transfer.safetensors", self.trainer.ema, meta)

    def sheets(self) -> None:
        """Held-out pairs and photographs through the averaged network."""
        folder = self.config.work / "sheets"
        for name, examples in (("pairs", self.held), ("photos", self.photos)):
            write_sheet(folder / f"{name}_{self.trainer.now:06d}.png", transfer_sheet(self.trainer.ema, examples))


def drawer_of(model: str) -> Drawer:
    """The generator, encoder and directions of a model, by its name or folder."""
    bundle = load_model(model)
    G, encoder = bundle.generator().eval(), bundle.encoder().eval()
    return Drawer.of_bundle(bundle, G.requires_grad_(False), encoder.requires_grad_(False))


def any_edits(rows: np.ndarray, knows: np.ndarray, seed: int, names: tuple[str, ...] = ()) -> Pairs:
    """Each picture with itself and one edit drawn at random: of `names`, or any other than age."""
    rng, delta = np.random.default_rng(seed), np.zeros((len(rows), len(knows)), np.float32)
    of = [name in names if names else name != "age" for name in attribute_index()]
    other = np.flatnonzero(knows & np.array(of))
    for row in delta:
        row[rng.choice(other)] = rng.uniform(*ANY_EDIT)
    return Pairs(np.stack([rows, rows], 1), delta, np.ones(len(rows), np.float32))


def parse(arguments: list[str] | None = None) -> TransferRunConfig:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the network that brings an edit over to the source.")
    sets = "pairs of 256 px, several if need be: synthface edits --size 256, photo_ageing"
    parser.add_argument("--edits", type=Path, action="append", required=True, help=sets)
    parser.add_argument("--share", type=float, action="append", help="of the examples, for each --edits")
    weaker = "of the drawn change, the share that belongs to the truth, for each --edits"
    parser.add_argument("--drawn", type=float, action="append", help=weaker)
    parser.add_argument("--photos", type=Path, required=True, help="set of photographs")
    few = "an edit under which nothing is added to photographs, several if need be; default: all but age"
    parser.add_argument("--untaught", action="append", choices=sorted(attribute_index()), default=[], help=few)
    parser.add_argument("--model", default="people-128", help="that draws: its name or folder")
    parser.add_argument("--backbone", type=Path, required=True, help=".pth or wheel of EfficientNet-Lite0")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--sheet-minutes", type=float, default=15.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--held-out-groups", type=int, default=24)
    parser.add_argument("--count", type=int, default=6, help="examples of a step")
    worth = "gradient of a discriminator over that of the perceptual distance; 0: none"
    parser.add_argument("--adversarial", type=float, default=0.5, help=worth)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    shares = given.share or [1.0] * len(given.edits)
    drawn = given.drawn or [1.0] * len(given.edits)
    if not len(shares) == len(drawn) == len(given.edits):
        parser.error("--share and --drawn are given once for each --edits, or not at all")
    values = {name: value for name, value in vars(given).items() if name not in NOT_FIELDS}
    edits = tuple(zip(given.edits, shares, drawn, strict=True))
    values["untaught"] = tuple(given.untaught)
    examples = ExampleConfig(count=given.count)
    training = TransferTraining(bf16=bf16_in_hardware(), adversarial=given.adversarial)
    return TransferRunConfig(**values, edits=edits, examples=examples, training=training)


def main() -> None:
    """Entry of `python -m`."""
    run = TransferRun(parse(), say)
    stopped_by_sigterm(run)
    run.run()


if __name__ == "__main__":
    main()
