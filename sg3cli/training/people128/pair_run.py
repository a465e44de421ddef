"""A training run of `pair_trainer` in a folder: `python -m sg3cli.training.people128.pair_run --help`.

WORK/state.pt      everything the next step depends on, written every few minutes beside and renamed
WORK/ema/          averaged generator, encoder and directions, as a start for another run or for `pair_scores`
WORK/log.jsonl     means over a few steps, one JSON object a line
WORK/sheets/       pictures of held-out photographs and pairs

The same command goes on where a killed run stopped. The learning rate follows the minutes spent, which are counted over
all continuations, so `--minutes` is the length of the whole run.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from sg3cli.nets.efficientnet_lite import PerceptualDistance
from sg3cli.training.people128.autoencoder import bf16_in_hardware
from sg3cli.training.people128.background_run import BackgroundRun, Say, say, stopped_by_sigterm
from sg3cli.training.people128.pair_data import (
    Batch,
    BatchConfig,
    BatchSource,
    PictureSet,
    first_held_out_person,
    make_pairs,
    photo_rows,
    split_groups,
)
from sg3cli.training.people128.pair_net import PairNet, load_start, save_start
from sg3cli.training.people128.pair_sheets import choose_pairs, choose_photos, pair_sheet, photo_sheet, write_sheet
from sg3cli.training.people128.pair_trainer import PairConfig, PairTrainer
from sg3cli.weights.efficientnet import load_efficientnet_lite


@dataclass(frozen=True)
class RunConfig:
    """Where a run reads and writes, and how long it is."""

    edits: tuple[Path, ...]
    shares: tuple[float, ...]  # of the pairs, for each set of `edits`
    photos: tuple[Path, ...]
    start: Path
    backbone: Path
    work: Path
    minutes: float = 120.0
    save_minutes: float = 5.0
    sheet_minutes: float = 20.0
    device: str = "cpu"
    threads: int = 2
    workers: int = 1  # threads that make batches; a GPU waits for one
    held_out_groups: int = 86
    batch: BatchConfig = field(default_factory=BatchConfig)
    trainer: PairConfig = field(default_factory=PairConfig)


class PairRun(BackgroundRun):
    """Data, trainer and folder of one run."""

    def __init__(self, config: RunConfig, say: Say) -> None:
        self.config = config
        config.work.mkdir(parents=True, exist_ok=True)
        edits = [PictureSet(folder) for folder in config.edits]
        photos = [PictureSet(folder) for folder in config.photos]
        splits = [split_groups(s, config.held_out_groups if k == 0 else 0) for k, s in enumerate(edits)]
        first = first_held_out_person(photos[0].identity)
        train = [make_pairs(s, split[0]) for s, split in zip(edits, splits, strict=True)]
        self.source = BatchSource(
            list(zip(edits, train, config.shares, strict=True)),
            [(s, photo_rows(s, first)[0]) for s in photos],
            config.batch,
        )
        self.held_pairs = (edits[0], make_pairs(edits[0], splits[0][1]))
        self.held_photos = (photos[0], photo_rows(photos[0], first)[1])
        perceptual = PerceptualDistance(load_efficientnet_lite(config.backbone))
        net = load_start(config.start, config.trainer.detail)
        self.trainer = PairTrainer(net, perceptual, config.trainer, config.device)
        super().__init__(config, self.trainer, say, config.device)

    def run(self, steps: int | None = None) -> PairNet:
        """Train to the end of the minutes (or for `steps` more); the averaged networks."""
        self.train(steps)
        return self.trainer.ema

    def batches(self, first: int) -> Iterator[Batch]:
        """Pairs and photographs from step `first` on."""
        return self.source.stream(first, self.config.workers)

    def keep(self, meta: dict[str, Any]) -> None:
        """The averaged networks."""
        save_start(self.config.work / "ema", self.trainer.ema, meta)

    def sheets(self) -> None:
        """Draw held-out photographs and pairs with the averaged networks."""
        net, size, device = self.trainer.ema, self.config.batch.size, self.config.device
        folder, stamp = self.config.work / "sheets", f"{self.trainer.now:06d}"
        photos, rows = self.held_photos
        x = photos.tensor(choose_photos(photos, rows, 8), size).to(device)
        write_sheet(folder / f"photos_{stamp}.png", photo_sheet(net, x))
        renders, pairs = self.held_pairs
        chosen = choose_pairs(pairs)
        a, b = (renders.tensor(pairs.rows[chosen, side], size).to(device) for side in (0, 1))
        delta = torch.from_numpy(pairs.delta[chosen]).to(device)
        write_sheet(folder / f"pairs_{stamp}.png", pair_sheet(net, a, b, delta))


def _parse(arguments: list[str] | None = None) -> RunConfig:
    parser = argparse.ArgumentParser(description="Train generator, encoder and directions on pairs and photographs.")
    parser.add_argument("--edits", type=Path, action="append", required=True, help="set of pairs; may be repeated")
    parser.add_argument("--share", type=float, action="append", help="of the pairs, for each --edits; default equal")
    parser.add_argument("--photos", type=Path, action="append", required=True, help="set of photographs; repeatable")
    parser.add_argument("--start", type=Path, required=True, help="folder with generator, encoder, directions")
    parser.add_argument("--backbone", type=Path, required=True, help=".pth or wheel of EfficientNet-Lite0")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--sheet-minutes", type=float, default=20.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="threads that make batches")
    parser.add_argument("--precision", choices=("auto", "fp32", "tf32", "bf16"), default="auto")
    for options in (BatchConfig(), PairConfig()):
        for entry in fields(options):
            if entry.type in ("int", "float") and entry.name not in ("seed", "size"):
                default = getattr(options, entry.name)
                flag = "--" + entry.name.replace("_", "-")
                parser.add_argument(flag, type=type(default), default=default, help=f"default {default}")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    torch.set_float32_matmul_precision("high" if given.precision == "tf32" else "highest")
    bf16 = given.precision == "bf16" or (given.precision == "auto" and (given.device != "cpu" or bf16_in_hardware()))
    values = vars(given) | {"bf16": bf16}
    batch = BatchConfig(**{f.name: values[f.name] for f in fields(BatchConfig) if f.name in values})
    trainer = PairConfig(**{f.name: values[f.name] for f in fields(PairConfig) if f.name in values})
    names = ("start", "backbone", "work", "minutes", "save_minutes", "sheet_minutes", "device", "threads", "workers")
    shares = given.share or [1.0] * len(given.edits)
    if len(shares) != len(given.edits):
        parser.error("give --share as often as --edits, or not at all")
    return RunConfig(
        tuple(given.edits),
        tuple(shares),
        tuple(given.photos),
        **{n: values[n] for n in names},
        batch=batch,
        trainer=trainer,
    )


def main() -> None:
    """Entry of `python -m`."""
    run = PairRun(_parse(), say)
    stopped_by_sigterm(run)
    run.run()


if __name__ == "__main__":
    main()
