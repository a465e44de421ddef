"""Z, W, W+ and S: conversions as algebra, both ways, and against the reference's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import random_direction, tiny_generator

from sg3cli.errors import UsageError
from sg3cli.latents.codes import Codes
from sg3cli.latents.rendering import draw
from sg3cli.latents.spaces import S, Z, affine_maps, statistics, to_s_direction, to_w_direction
from sg3cli.nets.generator import Generator


@pytest.fixture(scope="module")
def G() -> Generator:
    """A tiny generator whose Fourier input follows its code, as a trained one's does."""
    made = tiny_generator()
    noise = torch.Generator().manual_seed(5)
    made.synthesis.input.affine.weight.copy_(torch.randn(4, 32, generator=noise))
    return made


@pytest.fixture(scope="module")
def z(G: Generator) -> Z:
    return Z(torch.randn(3, G.config.z_dim, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize(("psi", "cutoff"), [(1.0, None), (0.7, None), (0.5, 3)])
def test_the_way_through_all_spaces_is_the_direct_one(G: Generator, z: Z, psi: float, cutoff: int | None) -> None:
    with torch.no_grad():
        direct = G(z.values, psi=psi, cutoff=cutoff)
        stepwise = z.to_w_plus(G, psi, cutoff).to_s(G).images(G)
        assert (stepwise - direct).abs().max() < 1e-6 * direct.abs().max()
        if cutoff is None:
            through_w = z.to_w(G, psi).to_w_plus(G.num_ws).to_s(G).images(G)
            assert (through_w - direct).abs().max() < 1e-6 * direct.abs().max()


def test_transforms_and_wider_views_reach_the_styles_image(G: Generator, z: Z) -> None:
    codes = z.to_w_plus(G)
    turn = torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    for more in ({"transform": turn}, {"transform": turn, "expand": (4, 0, 2, 0)}):
        assert torch.equal(codes.to_s(G).images(G, **more), G.synthesis(codes.values, **more))


def test_styles_are_the_affine_maps_of_the_codes(G: Generator, z: Z) -> None:
    """The one exception is the input, whose rotation has length 1."""
    codes = z.to_w_plus(G, 0.7)
    parts = codes.to_s(G).by_layer(G)
    for j, (name, (matrix, bias)) in enumerate(affine_maps(G).items()):
        straight = codes.values[:, j] @ matrix.T + bias
        if name == "input":
            straight = straight / straight[:, :2].norm(dim=1, keepdim=True)
        assert torch.allclose(parts[name], straight, atol=1e-6), name
    assert list(parts) == ["input", *G.layer_names]
    assert {name: part.shape[1] for name, part in parts.items()} == G.config.style_sizes


def test_codes_come_back_from_their_styles(G: Generator, z: Z) -> None:
    """S -> W+ -> S loses nothing of what codes gave, and of the codes only what no style shows."""
    codes = z.to_w_plus(G, 0.8)
    styles = codes.to_s(G)
    found, residual = styles.to_w_plus(G)
    assert residual.max() < 1e-5
    assert torch.allclose(found.to_s(G).values, styles.values, atol=1e-4)
    same, nothing = styles.to_w_plus(G, near=codes)
    assert torch.allclose(same.values[:, 1:], codes.values[:, 1:], atol=1e-5) and nothing.max() < 1e-5
    for j, (matrix, _) in enumerate(affine_maps(G).values()):
        if len(matrix) >= G.w_dim and j:
            assert torch.allclose(found.values[:, j], codes.values[:, j], atol=1e-4)


def test_the_residual_is_what_no_code_can_give() -> None:
    """A wide layer has styles that no code gives: of a push against its map exactly that push is left."""
    G = tiny_generator(channel_max=48, channel_base=4096)
    styles = Z(torch.ones(1, 32)).to_w_plus(G).to_s(G)
    sizes = list(G.config.style_sizes.values())
    name = next(n for n, size in G.config.style_sizes.items() if size > G.w_dim)
    matrix = affine_maps(G)[name][0]
    push = torch.linalg.svd(matrix, full_matrices=True)[0][:, -1]  # orthogonal to all that the map gives
    start = sum(sizes[: list(G.config.style_sizes).index(name)])
    moved = styles.values.clone()
    moved[0, start : start + len(push)] += 2 * push
    found, residual = S(moved).to_w_plus(G)
    assert float(residual) == pytest.approx(2 / len(moved[0]) ** 0.5, rel=1e-3)
    stated = (found.to_s(G).values - moved).square().mean(dim=1).sqrt()
    assert torch.allclose(residual, stated)
    vector = np.zeros(len(moved[0]), np.float32)
    vector[start : start + len(push)] = push.numpy()
    rows, lost = to_w_direction(G, vector)
    assert lost == pytest.approx(1, abs=1e-4) and np.abs(rows).max() < 1e-4


def test_w_plus_to_w_is_the_mean_and_says_how_far_it_is(G: Generator, z: Z) -> None:
    codes = z.to_w(G).to_w_plus(G.num_ws)
    w, residual = codes.to_w()
    assert torch.allclose(w.values, z.to_w(G).values, atol=1e-6) and residual.max() < 1e-6
    codes.values[0, 3] += 2.0
    w, residual = codes.to_w()
    assert float((w.values[0] - z.to_w(G).values[0]).mean()) == pytest.approx(2 / 8, abs=1e-5)
    assert float(residual[0]) == pytest.approx(2 * (7 / 64) ** 0.5, abs=1e-4) and residual[1] < 1e-6


def test_a_direction_of_w_is_the_same_edit_in_s(G: Generator, z: Z) -> None:
    """On the layers that it names, and on no other."""
    vector, layers = random_direction(0).numpy(), np.array([2, 5])
    codes = z.to_w_plus(G).values
    moved = codes.clone()
    moved[:, layers] += 3 * torch.from_numpy(vector[layers])
    shift = np.repeat(3 * to_s_direction(G, vector, layers)[None], 3, axis=0)
    in_s = draw(G, Codes(codes.numpy(), shift))
    assert (in_s - G.synthesis(moved)).abs().max() < 1e-5
    assert (in_s - G.synthesis(codes)).abs().max() > 1e-2
    rows, lost = to_w_direction(G, shift[0])
    assert lost < 1e-4 and np.abs(rows[[0, 1, 3, 4, 6, 7]]).max() < 1e-5
    with pytest.raises(UsageError, match="layer 0"):
        to_s_direction(G, vector, np.array([0, 1]))


def test_statistics_are_those_of_the_spaces(G: Generator) -> None:
    noise = statistics(G, "z", 512, covariance=True)
    assert np.abs(noise.mean).max() < 0.25 and noise.std == pytest.approx(np.ones(32), abs=0.2)
    assert noise.covariance is not None and np.sqrt(np.diag(noise.covariance)) == pytest.approx(noise.std)
    rng = np.random.RandomState(0)
    z = Z(torch.from_numpy(rng.randn(512, 32)).float())  # the seeds that it takes, all at once
    w = z.to_w(G, 0.7)
    for space, values in (
        ("w", w.values),
        ("w+", w.to_w_plus(8).values.flatten(1)),
        ("s", w.to_w_plus(8).to_s(G).values),
    ):
        found = statistics(G, space, 512, psi=0.7)
        assert found.mean == pytest.approx(values.double().mean(0).numpy(), abs=1e-6), space
        assert found.std == pytest.approx(values.double().std(0, unbiased=False).numpy(), abs=1e-6), space
    centred = w.values.double() - w.values.double().mean(0)
    covariance = statistics(G, "w", 512, psi=0.7, covariance=True).covariance
    assert covariance == pytest.approx((centred.T @ centred / 512).numpy(), abs=1e-8)
    with pytest.raises(UsageError, match="v"):
        statistics(G, "v")
