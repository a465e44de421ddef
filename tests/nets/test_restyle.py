"""The ReStyle loop against the reference implementation's, and its promises."""

from __future__ import annotations

import json

import fill_rule
import numpy as np
import pytest
import torch
from running import GOLDEN
from tiny import tiny_encoder, tiny_generator
from torch import Tensor

from sg3cli.nets.encoder import Encoder
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.nets.restyle import average_image, restyle, restyle_codes, restyle_steps

ROWS = [0, 7, 15]

with np.load(GOLDEN / "D_restyle_loop.npz") as data:
    TRUTH = {k: torch.from_numpy(data[k]) for k in data}


def assert_close(actual: Tensor, name: str, tolerance: float) -> None:
    """Against the golden array `name`; images are stored every third pixel."""
    expected = TRUTH.get(name)
    if expected is None:
        expected, actual = TRUTH[f"{name}@3"], actual[..., ::3, ::3]
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= tolerance, f"{name}: relative error {error:.2e}"


@pytest.fixture(scope="module", params=["torch", "auto"])  # auto is the compiled kernel where one is available
def decoder(request: pytest.FixtureRequest) -> Generator:
    settings = json.loads((GOLDEN / "D_restyle.json").read_text())
    G = Generator(GeneratorConfig.from_official(settings["decoder_init_kwargs"])).eval().requires_grad_(False)
    with np.load(GOLDEN / "D_restyle_decoder_weights.npz") as weights:
        state = {k: torch.from_numpy(weights[k]) for k in weights}
    missing, unexpected = G.load_state_dict(state, strict=False)
    assert not unexpected and all(k.startswith("mapping.fc") for k in missing)
    G.synthesis.impl = request.param
    return G


@pytest.fixture(scope="module")
def e4e() -> Encoder:
    return fill_rule.full_encoder("irse")


def test_average_image(decoder: Generator) -> None:
    stored_every_fourth = average_image(decoder, 256)[0, :, ::4, ::4]
    for tag in ("e4e", "psp"):
        assert_close(stored_every_fourth, f"{tag}:avg_image", 1e-5)


def test_every_step(decoder: Generator, e4e: Encoder) -> None:
    x = fill_rule.image("restyle_image_e4e", (1, 3, 256, 256))
    ws = torch.cat(list(restyle_steps(e4e, decoder, x, steps=3)))
    assert_close(ws[:, ROWS], "e4e:latents_rows0_7_15", 1e-5)
    assert_close(decoder.synthesis(ws), "e4e:images", 1e-4)
    moved = decoder.synthesis(ws[-1:], transform=TRUTH["transform"])[0]
    assert_close(moved, "e4e:final_unaligned_image", 1e-4)


def test_transform_moves_only_the_result(decoder: Generator, e4e: Encoder) -> None:
    x = fill_rule.image("restyle_image_psp", (1, 3, 256, 256))
    ws, img = restyle(fill_rule.as_psp(e4e), decoder, x, transform=TRUTH["transform"])
    assert_close(ws[0, ROWS], "psp:latents_with_transform_rows0_7_15", 1e-5)
    assert_close(img[0], "psp:final_unaligned_image", 1e-4)


def test_feedback_is_upright_whatever_the_buffer_says() -> None:
    G, encoder = tiny_generator(), tiny_encoder()
    x = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    before = restyle_codes(encoder, G, x)
    G.synthesis.input.transform.copy_(torch.tensor([[0.0, 1, 0.1], [-1, 0, 0.2], [0, 0, 1]]))
    assert torch.equal(restyle_codes(encoder, G, x), before)


def test_steps_add_up_and_a_given_average_changes_nothing() -> None:
    """Each step is the encoder's update on top of the one before; samples do not see each other."""
    G, encoder = tiny_generator(), tiny_encoder()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    first, second = restyle_steps(encoder, G, x, steps=2)
    avg = average_image(G, 32)
    start = G.mapping.w_avg.expand(2, G.num_ws, -1)
    assert torch.equal(first, start + encoder(torch.cat([x, avg.expand(2, -1, -1, -1)], dim=1)))
    rendered = G.synthesis(first)
    assert torch.equal(second, first + encoder(torch.cat([x, rendered], dim=1)))
    assert torch.equal(restyle_codes(encoder, G, x, steps=2, avg_image=avg), second)
    alone = restyle_codes(encoder, G, x[1:], steps=2)
    assert torch.allclose(alone, second[1:], atol=1e-5)
