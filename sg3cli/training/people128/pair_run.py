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
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch

from sg3cli.files import atomic_path
from sg3cli.nets.efficientnet_lite import PerceptualDistance
from sg3cli.training.people128.autoencoder import bf16_in_hardware
from sg3cli.training.people128.pair_data import (
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
from sg3cli.training.people128.spare_cores import SpareCores
from sg3cli.weights.efficientnet import load_efficientnet_lite

Say = Callable[[str], None]
LOG_EVERY = 10  # steps


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
    held_out_groups: int = 86
    batch: BatchConfig = field(default_factory=BatchConfig)
    trainer: PairConfig = field(default_factory=PairConfig)


class PairRun:
    """Data, trainer and folder of one run."""

    def __init__(self, config: RunConfig, say: Say) -> None:
        self.config, self.say = config, say
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
        self.seconds, self.stopping = 0.0, False
        self._restore()

    def run(self, steps: int | None = None) -> PairNet:
        """Train to the end of the minutes (or for `steps` more); the averaged networks."""
        total, sums, counted = 60 * self.config.minutes, dict[str, float](), dict[str, int]()
        saved, sheet = self.seconds, self.seconds // (60 * self.config.sheet_minutes)
        last, cores = None if steps is None else self.trainer.now + steps, SpareCores(self.config.threads)
        for batch in self.source.stream(self.trainer.now):
            if self.stopping or self.seconds >= total or self.trainer.now == last:
                break
            began = time.monotonic()
            sums["threads"], counted["threads"] = sums.get("threads", 0) + cores.adapt(), counted.get("threads", 0) + 1
            for name, value in self.trainer.step(batch, self.seconds / total).items():
                sums[name], counted[name] = sums.get(name, 0.0) + value, counted.get(name, 0) + 1
            self.seconds += time.monotonic() - began
            if self.trainer.now % LOG_EVERY == 0:
                self._log({name: value / counted[name] for name, value in sums.items()})
                sums, counted = {}, {}
            if self.seconds - saved >= 60 * self.config.save_minutes:
                self.save()
                saved = self.seconds
            if self.seconds // (60 * self.config.sheet_minutes) > sheet:
                self.sheets()
                sheet = self.seconds // (60 * self.config.sheet_minutes)
        self.save()
        if not self.stopping:
            self.sheets()
        return self.trainer.ema

    def stop(self) -> None:
        """Save after the present step and end."""
        self.stopping = True

    def save(self) -> None:
        """The state, and the averaged networks."""
        with atomic_path(self.config.work / "state.pt") as temporary:
            torch.save(self.trainer.state() | {"seconds": self.seconds}, temporary)
        meta = {"step": self.trainer.now, "minutes": round(self.seconds / 60, 1)}
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

    def _log(self, means: dict[str, float]) -> None:
        row = {"step": self.trainer.now, "minutes": round(self.seconds / 60, 2)}
        row |= {name: round(value, 4) for name, value in means.items()}
        with (self.config.work / "log.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(row) + "\n")
        if self.trainer.now % (10 * LOG_EVERY) == 0:
            self.say(json.dumps(row))

    def _restore(self) -> None:
        path = self.config.work / "state.pt"
        if path.is_file():
            state = torch.load(path, map_location=self.config.device, weights_only=True)
            self.trainer.restore(state)
            self.seconds = float(state["seconds"])
            self.say(f"continued at step {self.trainer.now}, {self.seconds / 60:.1f} minutes")


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
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    for options in (BatchConfig(), PairConfig()):
        for entry in fields(options):
            if entry.type in ("int", "float") and entry.name not in ("seed", "size"):
                default = getattr(options, entry.name)
                flag = "--" + entry.name.replace("_", "-")
                parser.add_argument(flag, type=type(default), default=default, help=f"default {default}")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    bf16 = given.precision == "bf16" or (given.precision == "auto" and (given.device != "cpu" or bf16_in_hardware()))
    values = vars(given) | {"bf16": bf16}
    batch = BatchConfig(**{f.name: values[f.name] for f in fields(BatchConfig) if f.name in values})
    trainer = PairConfig(**{f.name: values[f.name] for f in fields(PairConfig) if f.name in values})
    names = ("start", "backbone", "work", "minutes", "save_minutes", "sheet_minutes", "device", "threads")
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

    def say(text: str) -> None:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        sys.stdout.flush()

    run = PairRun(_parse(), say)
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    run.run()


if __name__ == "__main__":
    main()
