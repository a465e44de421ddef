"""A flow that is fitted brings an attribute to a value, leaves the others and who it is, and says which rows did it."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_generator
from torch import Tensor

from sg3cli.nets.code_flow import REACH, CodeFlow
from sg3cli.training.flow.belonging import read_drawn, reads_shown, settle
from sg3cli.training.flow.context import CONTEXT, context_of
from sg3cli.training.flow.fit import FitConfig, fit_flow
from sg3cli.training.flow.spread import Known, spread

COUNT = 800
LABELS = ("age", "smile")


def people(seed: int, count: int = COUNT) -> tuple[Tensor, Tensor]:
    """Codes [N,3,4] and their attributes: age is in row 1 alone, smile in row 2; row 2's last entry is who it is."""
    rng = torch.Generator().manual_seed(seed)
    age, smile, who = torch.randn(3, count, generator=rng)
    ws = 0.05 * torch.randn(count, 3, 4, generator=rng)
    ws[:, 1, 0] += age
    ws[:, 1, 1] += 0.5 * age**2 * age.sign()  # not in a straight line
    ws[:, 2, 0] += smile
    ws[:, 2, 3] += who
    return ws, torch.stack([40 + 15 * age, 0.5 * smile], 1)


@pytest.fixture(scope="module")
def flow() -> CodeFlow:
    ws, read = people(0)
    return fit_flow(ws, read, LABELS, FitConfig(steps=400, width=64, blocks=2, lr=3e-3), ("age",))


def test_a_value_is_reached_on_codes_that_were_not_seen(flow: CodeFlow) -> None:
    ws, read = people(1, 64)
    for years in (25.0, 40.0, 55.0):
        moved = flow.moved(ws, "age", torch.full((64,), years), torch.ones(64))
        reached = 40 + 15 * moved[:, 1, 0]
        assert float((reached - years).abs().mean()) < 4
        assert float((moved[:, 2] - ws[:, 2]).abs().mean()) < 0.12  # the smile and who it is
    assert float((read[:, 0] - 55).abs().mean()) > 15


def test_attributes_are_read_off_codes(flow: CodeFlow) -> None:
    ws, read = people(2, 64)
    assert float((flow.read(ws) - read).abs().mean(0)[0]) < 4
    assert float((flow.read(ws) - read).abs().mean(0)[1]) < 0.1


def test_the_same_seed_gives_the_same_flow(flow: CodeFlow) -> None:
    ws, read = people(0, 100)
    few = FitConfig(steps=4, width=16, blocks=1)
    one, other = (fit_flow(ws, read, LABELS, few) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_rows_belong_by_what_is_read_of_drawings(flow: CodeFlow) -> None:
    """The first of eight rows of a real generator that change how bright the drawing is, and by how much."""
    G = tiny_generator()
    z = torch.randn(96, G.config.z_dim, generator=torch.Generator().manual_seed(1))
    ws = G.mapping(z)
    ws[:, 5:] = ws[:1, 5:]  # these rows are the same for all, so they cannot have to do with anything

    def read(x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3)), x[:, 0].mean((1, 2)) - x[:, 2].mean((1, 2))], 1)

    made = fit_flow(ws, read_drawn(ws, G, read), ("bright", "red"), FitConfig(steps=150, width=64, blocks=1, lr=3e-3))
    settle(made, ws[:8], G, read)
    assert not made.rows[:, 0].any() and not made.rows[:, 5:].any() and (made.rows.sum(1) > 0).all()
    assert (made.reached.diff(dim=1) > 0).all()
    low, high = (made.label_mean[0] + sign * made.label_std[0] for sign in (-1, 1))
    ends = [made.moved(ws[:16], "bright", end.expand(16), torch.ones(16)) for end in (low, high)]
    dark, bright = (read_drawn(codes, G, read)[:, 0].mean() for codes in ends)
    assert dark < read_drawn(ws[:16], G, read)[:, 0].mean() < bright
    assert made.asked[0, -1] == REACH


def test_what_is_reached_is_read_in_the_hue_of_the_face() -> None:
    """An attribute that does not concern hue comes to nothing where a reader looks at hue alone."""
    G = tiny_generator()
    ws = G.mapping(torch.randn(5, G.config.z_dim, generator=torch.Generator().manual_seed(3)))
    edited = ws + 0.5

    def red(images: Tensor) -> Tensor:
        levels = (images.mean((2, 3)) + 1) / 2
        return levels[:, :1] / levels.sum(1, keepdim=True)

    free, kept = (reads_shown(G, ws, red, aspects)(edited) for aspects in ((), ("hue",)))
    before = read_drawn(ws, G, red)
    assert torch.equal(free, read_drawn(edited, G, red))
    assert float((kept - before).abs().mean()) < 0.5 * float((free - before).abs().mean())


def test_codes_are_spread_along_directions_and_told_what_that_does() -> None:
    G = tiny_generator()
    ws = G.mapping(torch.randn(12, G.config.z_dim, generator=torch.Generator().manual_seed(2)))
    labels = torch.linspace(0, 1, 12)[:, None]

    def read(x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None]

    known = [Known(torch.zeros(8, 32), -1, 1), Known(torch.randn(8, 32), 0.5, 2)]
    more, told = spread(ws, labels, known, G, read, seed=0, times=3)
    assert torch.equal(more[:12], ws) and torch.equal(told[:12], labels)
    change = (more[12:] - ws.repeat(3, 1, 1)).flatten(1)
    strengths = (change @ known[1].vector.flatten()) / known[1].vector.square().sum()
    torch.testing.assert_close(change, strengths[:, None] * known[1].vector.flatten(), atol=1e-5, rtol=0)
    assert ((strengths.abs() < 1e-6) | ((strengths >= 0.5) & (strengths <= 2))).all() and (strengths > 0.5).any()
    wanted = labels.repeat(3, 1) + read_drawn(more[12:], G, read) - read_drawn(ws, G, read).repeat(3, 1)
    torch.testing.assert_close(told[12:], wanted)
    assert spread(ws, labels, [], G, read, seed=0)[0] is ws


def test_people_are_held_out_with_all_that_was_made_of_them() -> None:
    ws, read = people(0, 120)
    said: list[str] = []
    few = FitConfig(steps=2, width=16, blocks=1, held_out=0.5)
    whose = torch.arange(60).repeat(2)
    one = fit_flow(ws, read, LABELS, few, say=said.append, whose=whose)
    other = fit_flow(ws, read, LABELS, few, whose=torch.arange(120))
    assert said and not torch.equal(one.velocity.linear.weight, other.velocity.linear.weight)


def test_what_is_told_alone_stays_as_it_was() -> None:
    """All of the young have a bright wall; told of it, the flow makes somebody younger and leaves the wall."""
    ws, read = people(0)
    wall = -(read[:, 0] - 40) / 15 + 0.5 * torch.randn(len(ws), generator=torch.Generator().manual_seed(5))
    ws[:, 2, 2] += wall
    few = FitConfig(steps=300, width=64, blocks=2, lr=3e-3)
    change = {}
    for told in (True, False):
        names, all_read = ((*LABELS, "wall"), torch.cat([read, wall[:, None]], 1)) if told else (LABELS, read)
        made = fit_flow(ws, all_read, names, few, held=int(told))
        assert made.config.targets == LABELS
        moved = made.moved(ws[:64], "age", torch.full((64,), 25.0), torch.ones(64))
        change[told] = float((moved - ws[:64])[:, 2, 2].abs().mean())
        assert float((40 + 15 * moved[:, 1, 0] - 25).abs().mean()) < 5
    assert change[True] < 0.4 * change[False]


def test_the_context_is_the_colour_of_corners_and_face() -> None:
    x = torch.zeros(1, 3, 64, 64)
    x[:, 0, :24] = 1
    x[:, 2, 28:48, 24:40] = -1
    found = dict(zip(CONTEXT, context_of(x)[0].tolist(), strict=True))
    assert found["background_red"] == 1 and found["background_blue"] == 0
    assert found["face_blue"] < -0.5 and found["face_red"] == 0
