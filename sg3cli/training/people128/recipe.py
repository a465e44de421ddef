"""The whole recipe of an embedded model: attribute net, coarse init, generator with encoder, bundle.

Every part saves its state in the working folder and continues from there, so a run can be stopped at any time; the same
command goes on. `people-128` was made with these parts and, in the end, these settings; its
model.json says how its run differed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sg3cli.errors import ModelError
from sg3cli.files import atomic_path
from sg3cli.nets.attribute_net import AttributeNet, AttributeNetConfig, load_attribute_net, save_attribute_net
from sg3cli.nets.generator import Generator
from sg3cli.training.data.synthface import FaceSet, load_faces
from sg3cli.training.people128.autoencoder import (
    PEOPLE_128,
    Autoencoder,
    AutoencoderConfig,
    AutoencoderTrainer,
    bf16_in_hardware,
    label_matrix,
)
from sg3cli.training.people128.bundle import LABEL_MATRIX, load_label_matrix
from sg3cli.training.people128.coarse_init import run_coarse_init
from sg3cli.training.people128.conditions import Conditions, make_conditions
from sg3cli.training.people128.probe import train_attribute_net
from sg3cli.weights.bundle import load_model

State = dict[str, Tensor]
Say = Callable[[str], None]
SCORING_WIDTHS = (24, 56, 120, 208)


@dataclass(frozen=True)
class Recipe:
    """Steps of each part; the defaults are those of `people-128`."""

    attribute_net_steps: int = 1600  # of each of the two
    coarse_steps: int = 450  # of the coarse init
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    bf16: bool = True  # where the CPU multiplies bfloat16 itself
    save_every: int = 250  # steps
    resume: str | None = None  # name or folder of a model to go on from


# Going on from a trained model: gentler rates, more of the later ReStyle passes and of spoiled input, a discriminator
# from the start, and eyes and mouth count for more. v1 of `people-128` ended with these.
FINE = AutoencoderConfig(
    steps=1300, lr_generator=2.5e-3, lr_labels=4e-4, lr_encoder=1e-3, warmup=60, decay_from=0.4, second_pass_share=0.35,
    second_pass_from=0.0, third_pass_share=0.4, residual=0.05, residual_end=0.05,
    label_code_share=0.25, label_code_share_end=0.25,
    degraded=0.4, adversarial=0.01, adversarial_from=0.0, landmark_weight=4.0,
)  # fmt: skip


class RecipeRun:
    """A working folder with a data set; the methods named after a network give what is there or train it."""

    def __init__(self, data: Path, work: Path, recipe: Recipe, say: Say) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.recipe, self.say = work, recipe, say
        faces = load_faces(data, work / "decoded.npy")
        self.conditions = make_conditions(faces)
        self.train, self.test = faces.split()
        seen = faces.identity <= self.train.identity.max()
        self.train_conditions = replace(self.conditions, vectors=self.conditions.vectors[seen])

    def attribute_net(self) -> AttributeNet:
        """The attribute net whose features shape the training."""
        return self._trained_net("probe", AttributeNetConfig(self.train.columns, self._people()), seed=0)

    def scoring_net(self) -> AttributeNet:
        """Another attribute net, of other width and seed, for the scores."""
        return self._trained_net(
            "judge", AttributeNetConfig(self.train.columns, self._people(), SCORING_WIDTHS), seed=1
        )

    def autoencoder(self) -> Autoencoder:
        """The averaged generator and encoder after the last step."""
        trainer = self._trainer()
        for log in _timed(trainer.run(), trainer.config.batch):
            if trainer.now % 50 == 0:
                self.say(f"step {trainer.now}: " + " ".join(f"{k} {v:.4f}" for k, v in log.items()))
            if trainer.now % self.recipe.save_every == 0 or trainer.now == trainer.config.steps:
                _save(self.work / "autoencoder.pt", trainer.state())
        return trainer.ema

    def record(self) -> dict[str, Any]:
        """What the bundle says about its training."""
        return {
            "command": "sg3 train bundle DATA --work WORK --out people-128"
            + (f" --resume {self.recipe.resume}" if self.recipe.resume else ""),
            "data": f"{len(self.train)} renders of {self._people()} synthetic people, {len(self.test)} held out",
            "recipe": json.loads(json.dumps(asdict(self.recipe))),
        }

    # ---- parts

    def _people(self) -> int:
        return int(self.train.identity.max()) + 1

    def _trained_net(self, name: str, config: AttributeNetConfig, seed: int) -> AttributeNet:
        path = self.work / f"{name}.safetensors"
        if not path.is_file():
            run = train_attribute_net(self.train, config, self.recipe.attribute_net_steps, seed=seed)
            for step, loss, attribute_net in run:
                if step % 100 == 99:
                    self.say(f"{name} {step + 1}/{self.recipe.attribute_net_steps}: loss {loss:.4f}")
                if step + 1 == self.recipe.attribute_net_steps:
                    save_attribute_net(path, attribute_net)
        return load_attribute_net(path)

    def _trainer(self) -> AutoencoderTrainer:
        config = self.recipe.autoencoder
        trainer = AutoencoderTrainer(self.train, self.train_conditions, self.attribute_net(), config)
        checkpoint = self.work / "autoencoder.pt"
        if checkpoint.is_file():
            trainer.restore(torch.load(checkpoint, weights_only=True))
            self.say(f"continued at step {trainer.now}")
        elif self.recipe.resume is not None:
            trainer.start_from(*parts_of(self.recipe.resume, trainer.net, list(self.train_conditions.names)))
        else:
            trainer.start_from(*self._coarse_init(self.train_conditions, self.train))
        if self.recipe.bf16 and bf16_in_hardware():
            trainer.use_bf16()
        return trainer

    def _coarse_init(self, conditions: Conditions, faces: FaceSet) -> tuple[dict[str, Tensor], Tensor]:
        path = self.work / "coarse.pt"
        if not path.is_file():
            torch.manual_seed(0)
            G, M = Generator(PEOPLE_128), label_matrix(PEOPLE_128.w_dim, len(conditions.names))
            steps = self.recipe.coarse_steps
            for step, loss in enumerate(run_coarse_init(G, M, faces, conditions, steps), start=1):
                if step % 50 == 0:
                    self.say(f"coarse {step}/{steps}: loss {loss:.4f}")
            _save(path, {"G": G.state_dict(), "M": M.detach()})
        state = torch.load(path, weights_only=True)
        return state["G"], state["M"]


def parts_of(model: str, net: Autoencoder, labels: list[str]) -> tuple[State, Tensor, State]:
    """Generator, label matrix and encoder of a model that `train bundle` made of the same shapes and labels.

    Raises `ModelError`.
    """
    bundle = load_model(model)
    M, names = load_label_matrix(bundle.path / LABEL_MATRIX)
    if names != labels:
        only = sorted(set(names) ^ set(labels))
        raise ModelError(f"{model} was trained on other labels: {', '.join(only[:5])}", "train it on the same data set")
    G, encoder = bundle.generator(), bundle.encoder()
    for part, mine, its in (("generator", net.G, G), ("encoder", net.encoder, encoder)):
        if mine.config != its.config:
            raise ModelError(f"the {part} of {model} has another shape than {part}s that are trained here", "")
    return G.state_dict(), M, encoder.state_dict()


def _timed(logs: Iterator[dict[str, float]], batch: int) -> Iterator[dict[str, float]]:
    """Add images per second to each log."""
    began, count = time.monotonic(), 0
    for log in logs:
        count += batch
        yield log | {"img_per_s": count / (time.monotonic() - began)}


def _save(path: Path, state: dict[str, Any]) -> None:
    """Our own state between two runs of ours; written beside and renamed."""
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
