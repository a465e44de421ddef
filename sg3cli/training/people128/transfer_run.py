"""A training run of the transfer network in one folder, in the background if need be.

`python -m sg3cli.training.people128.transfer_run --help`. The folder holds `state.pt` (the run continues exactly),
`transfer.safetensors` (the averaged network), `log.jsonl` and `sheets/`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from sg3cli.files import atomic_path
from sg3cli.nets.checkpoint import save_transfer
from sg3cli.nets.efficientnet_lite import PerceptualDistance
from sg3cli.nets.transfer_net import TransferNet
from sg3cli.training.people128.autoencoder import bf16_in_hardware
from sg3cli.training.people128.pair_data import (
    Pairs,
    PictureSet,
    first_held_out_person,
    make_pairs,
    photo_rows,
    split_groups,
)
from sg3cli.training.people128.pair_net import PairNet, load_start
from sg3cli.training.people128.pair_sheets import write_sheet
from sg3cli.training.people128.spare_cores import SpareCores
from sg3cli.training.people128.transfer_data import ExampleConfig, ExampleSource, draw_pairs
from sg3cli.training.people128.transfer_sheets import held_examples, photo_examples, transfer_sheet
from sg3cli.training.people128.transfer_trainer import TransferTrainer, TransferTraining
from sg3cli.weights.efficientnet import load_efficientnet_lite

LOG_EVERY = 10  # steps


@dataclass(frozen=True)
class TransferRunConfig:
    """Where a run reads and writes, and how long it is."""

    edits: Path
    photos: Path
    start: Path
    backbone: Path
    work: Path
    minutes: float = 60.0
    save_minutes: float = 5.0
    sheet_minutes: float = 15.0
    threads: int = 2
    held_out_groups: int = 24
    examples: ExampleConfig = field(default_factory=ExampleConfig)
    training: TransferTraining = field(default_factory=TransferTraining)


class TransferRun:
    """Data, trainer and folder of one run."""

    def __init__(self, config: TransferRunConfig, say: Callable[[str], None]) -> None:
        self.config, self.say = config, say
        config.work.mkdir(parents=True, exist_ok=True)
        model = load_start(config.start, 0).eval().requires_grad_(False)
        pictures, photos = PictureSet(config.edits), PictureSet(config.photos)
        train, held = split_groups(pictures, config.held_out_groups)
        pairs = make_pairs(pictures, train)
        rows = photo_rows(photos, first_held_out_person(photos.identity))[0]
        drawings = draw_pairs(model, pictures, pairs, config.work / "pairs.npz")
        photo_drawings = draw_pairs(model, photos, plain_pairs(model, rows), config.work / "photos.npz")
        self.source = ExampleSource(pictures, pairs, drawings, photos, rows, photo_drawings.plain, config.examples)
        self.held = held_examples(model, pictures, make_pairs(pictures, held))
        self.photos = photo_examples(model, photos, photo_rows(photos, first_held_out_person(photos.identity))[1])
        perceptual = PerceptualDistance(load_efficientnet_lite(config.backbone))
        torch.manual_seed(config.examples.seed)
        self.trainer = TransferTrainer(TransferNet(), perceptual, config.training)
        self.seconds, self.stopping = 0.0, False
        self._restore()

    def run(self, steps: int | None = None) -> TransferNet:
        """Train to the end of the minutes (or for `steps` more); the averaged network."""
        total, sums, counted = 60 * self.config.minutes, dict[str, float](), 0
        saved, sheet = self.seconds, self.seconds // (60 * self.config.sheet_minutes)
        last, cores = None if steps is None else self.trainer.now + steps, SpareCores(self.config.threads)
        for example in self.source.stream(self.trainer.now):
            if self.stopping or self.seconds >= total or self.trainer.now == last:
                break
            began = time.monotonic()
            cores.adapt()
            for name, value in self.trainer.step(example, self.seconds / total).items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            self.seconds += time.monotonic() - began
            if self.trainer.now % LOG_EVERY == 0:
                self._log({name: value / counted for name, value in sums.items()})
                sums, counted = {}, 0
            if self.seconds - saved >= 60 * self.config.save_minutes:
                self.save()
                saved = self.seconds
            if self.seconds // (60 * self.config.sheet_minutes) > sheet:
                self.sheets()
                sheet = self.seconds // (60 * self.config.sheet_minutes)
        self.save()
        self.sheets()
        return self.trainer.ema

    def stop(self) -> None:
        """Save after the present step and end."""
        self.stopping = True

    def save(self) -> None:
        """The state, and the averaged network."""
        with atomic_path(self.config.work / "state.pt") as temporary:
            torch.save(self.trainer.state() | {"seconds": self.seconds}, temporary)
        meta = {"step": self.trainer.now, "minutes": round(self.seconds / 60, 1)}
        save_transfer(self.config.work / "transfer.safetensors", self.trainer.ema, meta)

    def sheets(self) -> None:
        """Held-out pairs and photographs through the averaged network."""
        folder = self.config.work / "sheets"
        for name, examples in (("pairs", self.held), ("photos", self.photos)):
            write_sheet(folder / f"{name}_{self.trainer.now:06d}.png", transfer_sheet(self.trainer.ema, examples))

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
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.trainer.restore(state)
            self.seconds = float(state["seconds"])
            self.say(f"continued at step {self.trainer.now}, {self.seconds / 60:.1f} minutes")


def plain_pairs(model: PairNet, rows: np.ndarray) -> Pairs:
    """Each picture with itself: nothing changes."""
    delta = np.zeros((len(rows), len(model.directions)), np.float32)
    return Pairs(np.stack([rows, rows], 1), delta, np.ones(len(rows), np.float32))


def parse(arguments: list[str] | None = None) -> TransferRunConfig:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the network that brings an edit over to the source.")
    parser.add_argument("--edits", type=Path, required=True, help="pairs of 256 px: synthface edits --size 256")
    parser.add_argument("--photos", type=Path, required=True, help="set of photographs")
    parser.add_argument("--start", type=Path, required=True, help="model that draws: generator, encoder, directions")
    parser.add_argument("--backbone", type=Path, required=True, help=".pth or wheel of EfficientNet-Lite0")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--save-minutes", type=float, default=5.0)
    parser.add_argument("--sheet-minutes", type=float, default=15.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--held-out-groups", type=int, default=24)
    parser.add_argument("--count", type=int, default=6, help="examples of a step")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    values = {name: value for name, value in vars(given).items() if name != "count"}
    return TransferRunConfig(
        **values, examples=ExampleConfig(count=given.count), training=TransferTraining(bf16=bf16_in_hardware())
    )


def main() -> None:
    """Entry of `python -m`."""

    def say(text: str) -> None:
        sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        sys.stdout.flush()

    run = TransferRun(parse(), say)
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    run.run()


if __name__ == "__main__":
    main()
