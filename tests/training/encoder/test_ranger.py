"""The optimiser: RAdam, centralised gradients, slow weights."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sg3cli.training.encoder.ranger import Ranger, centralise


def pulled(p: nn.Parameter, step: int) -> None:
    """A gradient that depends on weights and step."""
    p.grad = p.detach() * 0.3 + torch.sin(torch.arange(p.numel()).view_as(p) + step)


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_centralised_gradients_have_no_mean(out: int, height: int, width: int) -> None:
    gradient = torch.randn(out, 2, height, width) + 5
    kept = gradient.clone()
    centralise(gradient)
    assert torch.allclose(gradient.mean((1, 2, 3)), torch.zeros(out), atol=1e-5)
    spread = kept - gradient
    assert torch.allclose(spread, spread[:, :1, :1, :1].expand_as(spread), atol=1e-5)  # only the mean is gone


def test_vectors_are_not_centralised() -> None:
    gradient = torch.tensor([1.0, 2.0])
    centralise(gradient)
    assert gradient.tolist() == [1, 2]


def test_between_two_stops_it_is_radam() -> None:
    ours, theirs = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    ranger, radam = Ranger([ours], lr=0.1, k=1000), torch.optim.RAdam([theirs], 0.1, (0.95, 0.999), 1e-5)
    for step in range(20):
        pulled(ours, step), pulled(theirs, step)
        ranger.step(), radam.step()
    assert torch.equal(ours, theirs) and not torch.equal(ours, torch.ones(5))


def test_every_sixth_step_goes_half_of_the_way_from_where_it_last_stood() -> None:
    ours, theirs = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    ranger, radam = Ranger([ours], lr=0.1), torch.optim.RAdam([theirs], 0.1, (0.95, 0.999), 1e-5)
    stood = torch.ones(5)
    for step in range(18):
        pulled(ours, step), pulled(theirs, step)
        ranger.step(), radam.step()
        if step % 6 == 5:
            stood = stood + 0.5 * (theirs.detach() - stood)
            theirs.data.copy_(stood)
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_parameter_that_comes_late_is_met_where_it_is() -> None:
    first, late = nn.Parameter(torch.ones(3)), nn.Parameter(torch.full((3,), 7.0))
    ranger = Ranger([first, late], lr=1e-3, k=2)
    for step in range(3):
        pulled(first, step)
        ranger.step()
    assert late.tolist() == [7, 7, 7]
    for step in range(2):
        pulled(late, step)
        ranger.step()
    assert (late - 7).abs().max() < 0.1  # slow weights from 0 would have thrown it to 3.5


def test_its_state_is_whole() -> None:
    whole, half = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
    one, two = Ranger([whole], lr=0.1), Ranger([half], lr=0.1)
    for step in range(20):
        if step == 9:
            stored = io.BytesIO()
            torch.save({"optimiser": two.state_dict(), "weights": half.detach()}, stored)
            stored.seek(0)
            state = torch.load(stored, weights_only=True)
            half = nn.Parameter(state["weights"])
            two = Ranger([half], lr=0.1)
            two.load_state_dict(state["optimiser"])
        pulled(whole, step), pulled(half, step)
        one.step(), two.step()
    assert torch.equal(whole, half)


def test_it_minimises() -> None:
    p = nn.Parameter(torch.tensor([3.0, -2.0]))
    ranger = Ranger([p], lr=0.1)
    for _ in range(400):
        p.grad = 2 * p.detach()
        ranger.step()
    assert p.abs().max() < 0.05


def test_closures_are_refused() -> None:
    with pytest.raises(ValueError, match="closure"):
        Ranger([nn.Parameter(torch.ones(1))]).step(lambda: 0.0)
