"""What a latent mapper computes, by hand: its norm, its layers, its factor, and which rows belong to which network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sg3cli.nets.latent_mapper import LatentMapper, MapperConfig, level_rows


def by_hand(x: np.ndarray, layers: list[tuple[np.ndarray, np.ndarray]], axis: int) -> np.ndarray:
    """One network on the rows `x [n,w_dim]` of a code: the published arithmetic in float64."""
    x = x / np.sqrt((x**2).mean(axis, keepdims=True) + 1e-8)
    for weight, bias in layers:
        x = x @ (weight * 0.01 / np.sqrt(weight.shape[1])).T + 0.01 * bias
        x = np.where(x > 0, x, 0.2 * x) * np.sqrt(2)
    return x


def filled(config: MapperConfig) -> LatentMapper:
    """A mapper whose every weight and bias counts."""
    noise = torch.Generator().manual_seed(5)
    net = LatentMapper(config)
    for parameter in net.parameters():
        parameter.data = 100 * torch.randn(parameter.shape, generator=noise)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("norm", ["channels", "levels"])
def test_each_level_sees_its_rows_and_moves_them_by_the_factor(norm: str) -> None:
    net = filled(MapperConfig(6, 4, ((1, 3), (4, 6)), factor=0.3, norm=norm))
    ws = np.random.default_rng(0).normal(size=(2, 6, 4))
    step = net(torch.from_numpy(ws).float()).numpy()
    wanted = np.zeros_like(ws)
    for level, (first, end) in enumerate(net.config.levels):
        layers = [(m.weight.double().numpy(), m.bias.double().numpy()) for m in net.nets[level]]
        for n in range(2):
            wanted[n, first:end] = 0.3 * by_hand(ws[n, first:end], layers, 0 if norm == "levels" else 1)
    assert np.abs(wanted[:, [1, 2, 4, 5]]).min() > 1e-5
    assert np.allclose(step, wanted, atol=1e-5)


def test_the_levels_are_the_published_ones_for_sixteen_rows_and_their_shares_for_others() -> None:
    assert level_rows(16) == {"coarse": (0, 5), "medium": (5, 8), "fine": (8, 16)}
    assert level_rows(10, first=1) == {"coarse": (1, 3), "medium": (3, 5), "fine": (5, 10)}
    with pytest.raises(ValueError, match="too few"):
        level_rows(3)


def test_a_fresh_mapper_takes_no_step_and_can_learn_one() -> None:
    net = LatentMapper(MapperConfig(4, 8, ((0, 2), (2, 4))))
    step = net(torch.randn(3, 4, 8))
    assert not step.any()
    step.sum().backward()
    assert all(level[-1].weight.grad.abs().sum() > 0 for level in net.nets)


@pytest.mark.parametrize("levels", [((0, 2), (1, 4)), ((0, 5),), ((2, 2),), ((-1, 2),)])
def test_rows_that_overlap_or_are_not_there_are_refused(levels: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="rows"):
        MapperConfig(4, 8, levels)
