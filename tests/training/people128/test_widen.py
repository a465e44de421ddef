"""A widened generator draws what the narrow one draws, and its copies can go ways of their own."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_generator
from torch import Tensor

from sg3cli.errors import ModelError
from sg3cli.nets.generator import Generator
from sg3cli.training.people128 import widen

BASE, MOST = 256, 16  # of the tiny generator


def _codes(G: Generator, seed: int) -> Tensor:
    ws: Tensor = G.mapping(torch.randn(12, G.config.z_dim, generator=torch.Generator().manual_seed(seed)))
    return ws


def _off(G: Generator, wide: Generator) -> float:
    """Mean difference of the two on codes that were not looked at, in standard deviations of the drawing."""
    ws = _codes(G, 2)
    with torch.no_grad():
        y = G.synthesis(ws)
        return float((wide.synthesis(ws) - y).abs().mean() / y.std())


@pytest.mark.parametrize(("base", "most"), [(512, 16), (400, 16), (BASE, MOST)])
def test_the_drawing_stays(monkeypatch: pytest.MonkeyPatch, base: int, most: int) -> None:
    """Also where some channels are copied more often than others, and on codes that it was not fitted at. (The tiny
    network's random styles are as far apart as can be: a trained one's drawing stays within half a hundredth.)"""
    monkeypatch.setattr(widen, "NOISE", 0.0)
    G = tiny_generator()
    wide = widen.widened(G, base, most, _codes(G, 1))
    assert _off(G, wide) < (1e-5 if base == BASE else 0.1)
    assert wide.config.channel_base == base


def test_copies_differ_a_little() -> None:
    G = tiny_generator()
    wide = widen.widened(G, 512, MOST, _codes(G, 1))
    assert 0.003 < _off(G, wide) < 0.3
    last = wide.synthesis.layers()[-2].weight
    half = G.synthesis.layers()[-2].weight.shape[0]
    assert not torch.allclose(last[0], last[half])


def test_a_generator_does_not_become_narrower() -> None:
    G = tiny_generator()
    with pytest.raises(ModelError, match="cannot be widened"):
        widen.widened(G, 128, MOST, _codes(G, 1))
    with pytest.raises(ModelError, match="another input"):
        widen.widened(G, 4096, 32, _codes(G, 1))
