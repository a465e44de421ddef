"""One correction for a person: closer in all frames by the same vector, resumable, and nothing worse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny_generator

from sg3cli.latents.codes import Codes
from sg3cli.latents.inversion import spread
from sg3cli.latents.likeness import FRAMES, Likeness
from sg3cli.latents.rendering import draw
from sg3cli.metrics.perceptual import StructuralLoss
from sg3cli.nets.generator import Generator


@pytest.fixture(scope="module")
def G() -> Generator:
    return tiny_generator()


@pytest.fixture(scope="module")
def missed(G: Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes `[5, num_ws, w_dim]` that lack the same, the images `[5, 32, 32, 3]` of the right ones, and the lack."""
    noise = torch.Generator().manual_seed(4)
    ws = G.mapping(torch.randn(6, G.config.z_dim, generator=noise)).numpy()
    here, lack = ws[0] + 0.2 * (ws[:5] - ws[0]), 0.5 * (ws[5] - ws[0])
    x = draw(G, Codes((here + lack).astype(np.float32)), None).permute(0, 2, 3, 1).numpy()
    return here.astype(np.float32), x, lack


def error(G: Generator, ws: np.ndarray, x: np.ndarray) -> float:
    return float(np.square(draw(G, Codes(ws), None).permute(0, 2, 3, 1).numpy() - x).mean())


@pytest.mark.parametrize("perceptual", [None, StructuralLoss()])
def test_one_vector_brings_frames_closer_that_it_has_not_seen(
    G: Generator, missed: tuple[np.ndarray, ...], perceptual: StructuralLoss | None
) -> None:
    ws, x, lack = missed
    finder = Likeness(G, perceptual, ws[:4], x[:4], 60)
    assert [*finder.run()][-1] == 60
    found, losses = finder.correction()
    assert found.shape == ws.shape[1:] and losses.shape == (4, 2)
    assert (losses[:, 1] < losses[:, 0]).all()
    assert error(G, (ws[4:] + found).astype(np.float32), x[4:]) < 0.4 * error(G, ws[4:], x[4:])
    assert float((found * lack).sum()) > 0
    assert not G.synthesis.checkpoint_layers and not any(p.requires_grad and p.grad is not None for p in G.parameters())


def test_it_goes_on_where_it_was_stopped(G: Generator, missed: tuple[np.ndarray, ...]) -> None:
    ws, x, _ = missed
    whole = Likeness(G, None, ws, x, 7)
    assert [*whole.run()] == [1, 2, 3, 4, 5, 6, 7]
    first = Likeness(G, None, ws, x, 7)
    for step in first.run():
        if step == 3:
            break
    second = Likeness(G, None, ws, x, 7)
    second.restore(first.state())
    assert [*second.run()] == [4, 5, 6, 7]
    assert (second.correction()[0] == whole.correction()[0]).all()


def test_what_is_already_right_stays(G: Generator, missed: tuple[np.ndarray, ...]) -> None:
    ws, _, _ = missed
    x = draw(G, Codes(ws), None).permute(0, 2, 3, 1).numpy()
    finder = Likeness(G, None, ws, x, 5)
    assert len([*finder.run()]) == 5
    found, losses = finder.correction()
    assert not found.any() and (losses[:, 0] == losses[:, 1]).all()


def test_frames_that_stand_for_a_clip() -> None:
    present = np.ones(100, bool)
    present[:10] = present[50:60] = False
    frames = spread(np.flatnonzero(present), FRAMES)
    assert len(frames) == FRAMES and frames[0] == 10 and frames[-1] == 99 and present[frames].all()
    assert (spread(np.flatnonzero([False, True, False]), FRAMES) == [1]).all()
