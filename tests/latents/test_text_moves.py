"""What a model can do: its directions and its own components, each drawn to both sides."""

from __future__ import annotations

import numpy as np
import torch
from text_reader import ColourModel
from tiny import random_direction, tiny_generator

from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import statistics
from sg3cli.latents.text_moves import known_moves, move_effects
from sg3cli.nets.code_flow import CodeFlow, CodeFlowConfig
from sg3cli.weights.direction_file import Direction


def test_moves_are_the_directions_in_s_and_the_largest_components() -> None:
    G = tiny_generator()
    vector = random_direction(0).numpy()
    own = np.zeros((1, sum(G.config.style_sizes.values())), np.float32)
    own[0, 30] = 2.0
    moves = known_moves(G, {"age": Direction("age", vector), "style": Direction("style", own, None, {"space": "s"})})
    assert list(moves)[:3] == ["age", "style", "component 1"] and np.array_equal(moves["style"], own[0])
    ws = Sampler(G, GenerateConfig()).codes([0])
    moved = ws.copy()
    moved[:, 1:] += vector[1:]
    before, after = (torch.cat(list(G.synthesis.style_space(torch.from_numpy(w)).values()), 1) for w in (ws, moved))
    assert np.allclose(moves["age"], (after - before)[0].numpy(), atol=1e-5) and not moves["age"][:4].any()
    covariance = statistics(G, "s", covariance=True).covariance[4:, 4:]
    first, second = moves["component 1"][4:], moves["component 2"][4:]
    assert np.isclose(first @ first, np.linalg.eigvalsh(covariance)[-1], rtol=1e-3) and first @ first > second @ second
    assert not moves["component 1"][:4].any()


def test_the_components_are_those_of_people_where_a_flow_knows_them() -> None:
    G = tiny_generator()
    torch.manual_seed(4)
    flow = CodeFlow(CodeFlowConfig(("age",), G.num_ws, G.w_dim, components=6, width=8, blocks=1))
    flow.vectors.copy_(torch.linalg.qr(torch.randn((G.num_ws - 1) * G.w_dim, 6))[0].T)
    flow.deviations.copy_(torch.linspace(3, 1, 6))
    moves = known_moves(G, {}, flow)
    assert list(moves) == [f"component {k + 1}" for k in range(6)]
    ws = torch.zeros(2, G.num_ws, G.w_dim)
    ws[1] = flow.components(6)[1]
    styles = torch.cat(list(G.synthesis.style_space(ws).values()), 1)
    assert np.allclose(moves["component 2"], (styles[1] - styles[0]).numpy(), atol=1e-5)
    away = flow.strangers(4000, torch.arange(32.0), 0.5)
    assert torch.equal(away[:, 0], torch.arange(32.0).expand(4000, -1))
    torch.testing.assert_close(flow.coordinates(away).std(0), torch.full((6,), 0.5), rtol=0.05, atol=0)


def test_an_effect_is_half_of_what_lies_between_both_sides() -> None:
    G, model = tiny_generator(), ColourModel()
    ws = Sampler(G, GenerateConfig(truncation=0.5)).codes(range(3))
    move = next(iter(known_moves(G, {}).values()))
    (found,) = move_effects(G, ws, move[None], model, batch=2)
    ends = []
    for sign in (1, -1):
        styles = {name: s.clone() for name, s in G.synthesis.style_space(torch.from_numpy(ws)).items()}
        parts = np.split(sign * move, np.cumsum([s.shape[1] for s in styles.values()])[:-1])
        shifted = {name: s + torch.from_numpy(part) for (name, s), part in zip(styles.items(), parts, strict=True)}
        ends.append(model.images(G.synthesis.from_styles(shifted).clamp(-1, 1)))
    assert np.allclose(found, (ends[0] - ends[1]).mean(0) / 2, atol=1e-4) and np.abs(found).max() > 1e-3
