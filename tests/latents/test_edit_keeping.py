"""Tuning that leaves edits alone: what the term measures, and that it holds a direction while a picture is learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tiny import tiny_generator

from sg3cli.latents.edit_keeping import EditKeeper
from sg3cli.latents.pivotal_tuning import PivotalTuner, Targets
from sg3cli.metrics.perceptual import StructuralLoss
from sg3cli.nets.generator import Generator
from sg3cli.settings import FinetuneConfig

EYE = np.eye(3, dtype=np.float32)[None]
DIRECTION = np.random.default_rng(5).standard_normal((1, 8, 32)).astype(np.float32)


def _change(G: Generator, ws: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        changed: torch.Tensor = G.synthesis(ws + torch.from_numpy(DIRECTION)) - G.synthesis(ws)
    return changed


def _tuned(keep: float) -> Generator:
    G = tiny_generator()
    images = np.random.default_rng(1).integers(0, 255, (1, 32, 32, 3)).astype(np.uint8)
    config = FinetuneConfig(steps=40, lr=2e-2, keep=keep, perceptual=0.0, patience=1000)
    ws = np.zeros((1, 8, 32), np.float32)
    tuner = PivotalTuner(G, ws, EYE, Targets(images, np.array([0])), config, StructuralLoss(), DIRECTION)
    list(tuner.run())
    return tuner.G


def test_an_untuned_generator_keeps_everything_and_an_error_is_measured() -> None:
    G, other = tiny_generator(), tiny_generator(seed=3)
    ws, turns = torch.randn(2, 8, 32), torch.from_numpy(EYE).expand(2, 3, 3)
    keeper = EditKeeper(G, DIRECTION)
    with torch.no_grad():
        assert float(keeper.loss(G, ws, turns, None, G.synthesis(ws), (0, 1))) < 1e-5
        assert float(keeper.loss(other, ws, turns, None, other.synthesis(ws), (0, 1))) > 1e-2
        first, again, later = (
            float(keeper.loss(other, ws, turns, None, other.synthesis(ws), seed)) for seed in ((0, 1), (0, 1), (0, 2))
        )
    assert first == again != later


def test_a_direction_does_after_tuning_what_it_did_before() -> None:
    ws = torch.zeros(1, 8, 32)
    before = _change(tiny_generator(), ws)
    free, kept = (float((_change(_tuned(keep), ws) - before).square().mean()) for keep in (0.0, 3.0))
    assert kept < 0.5 * free


def test_without_directions_or_weight_nothing_is_kept() -> None:
    G, targets = tiny_generator(), Targets(np.zeros((1, 32, 32, 3), np.uint8), np.array([0]))
    ws, config = np.zeros((1, 8, 32), np.float32), FinetuneConfig(steps=1)
    assert PivotalTuner(G, ws, EYE, targets, config, StructuralLoss()).keeper is None
    assert PivotalTuner(G, ws, EYE, targets, replace(config, keep=0.0), StructuralLoss(), DIRECTION).keeper is None
    assert PivotalTuner(G, ws, EYE, targets, config, StructuralLoss(), DIRECTION).keeper is not None
