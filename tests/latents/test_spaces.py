"""Z, W, W+ and S: conversions as algebra, both ways, and against the reference's numbers."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import torch
from running import GOLDEN
from tiny import random_direction, tiny_generator

from sg3cli.errors import UsageError
from sg3cli.latents.codes import Codes
from sg3cli.latents.rendering import draw
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import S, WPlus, Z, affine_maps, statistics, to_s_direction, to_w_direction
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig


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


@pytest.mark.parametrize("tag", ["sg3t", "sg3r"])
def test_styles_and_an_edit_of_them_are_those_of_the_reference(tag: str) -> None:
    """Golden part A: StyleSpace of two codes, and the images after 3 is added to some channels and 0.1 to a shift."""
    init = json.loads(gzip.decompress((GOLDEN / f"A_{tag}.json.gz").read_bytes()))["init_kwargs"]
    G = Generator(GeneratorConfig.from_official(init)).requires_grad_(False)
    weights, io = (dict(np.load(GOLDEN / f"A_{tag}_{part}.npz")) for part in ("weights", "io"))
    G.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    styles = WPlus(torch.from_numpy(io["ws_psi0p7"])).to_s(G)
    shift, at = np.zeros(tuple(styles.values.shape), np.float32), 0
    for name, size in G.config.style_sizes.items():
        expected = io[f"S:{name}"]
        found = styles.values[:, at : at + size].numpy()
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
        shift[:, at : at + 8] += 3 if name == str(io["edited_layer"]) else 0
        at += size
    shift[:, 2] += 0.1
    for images in (S(styles.values + torch.from_numpy(shift)).images(G), draw(G, Codes(io["ws_psi0p7"], shift))):
        key, expected = next((key, value) for key, value in io.items() if key.startswith("img_edited_S"))
        step = int(key.partition("@")[2] or 1)
        found = images[..., ::step, ::step].numpy()[: len(expected), : expected.shape[1]]
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    found, residual = S(styles.values + torch.from_numpy(shift)).to_w_plus(G)
    assert torch.isfinite(found.values).all() and (residual >= 0).all()


def test_seeds_in_each_space() -> None:
    """Z and W agree; W+ mixes codes, the first its seed's; S draws each style around the mean code's."""
    G = tiny_generator()
    draws = {space: Sampler(G, GenerateConfig(space=space)) for space in ("z", "w", "w+", "s")}
    codes = {space: sampler.at(sampler.points([4, 5])) for space, sampler in draws.items()}
    assert codes["z"].ws == pytest.approx(codes["w"].ws, abs=1e-6)
    rows = codes["w+"].ws
    noise = np.random.RandomState(5).randn(8, 32)
    for j in (0, 3, 7):
        z = torch.from_numpy(noise[j : j + 1]).float()
        assert rows[1, j] == pytest.approx(G.mapping(z)[0, 0].numpy(), abs=1e-6)
    assert codes["s"].ws == pytest.approx(np.broadcast_to(G.mapping.w_avg.numpy(), (2, 8, 32)))
    many = draws["s"].at(draws["s"].points(range(400))).shift
    assert many is not None and not many[:, :4].any()
    known = statistics(G, "s")
    assert many.std(0)[4:] == pytest.approx(known.std[4:], rel=0.2)
    half = Sampler(G, GenerateConfig(space="s", truncation=0.5, cutoff=3))
    truncated = half.at(half.points([4])).shift
    assert truncated is not None and codes["s"].shift is not None
    share = truncated[0, 4:] / codes["s"].shift[0, 4:]
    assert share[:32] == pytest.approx(np.full(32, 0.5), rel=1e-4)  # L0 and L1 are fed by codes 1 and 2
    assert share[32:] == pytest.approx(np.ones(len(share) - 32), rel=1e-4)


def test_a_walk_in_z_is_not_the_one_in_w() -> None:
    """They meet at the seeds; halfway the code of the noise between is not the code between."""
    G = tiny_generator()
    frames = {space: list(Sampler(G, GenerateConfig(space=space)).walk([0, 1], 4)) for space in ("z", "w")}
    differences = [np.abs(a.astype(int) - b).max() for a, b in zip(frames["z"], frames["w"], strict=True)]
    assert differences[0] <= 1 and differences[2] <= 1 and max(differences[1], differences[3]) > 2
