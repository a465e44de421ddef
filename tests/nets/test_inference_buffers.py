"""Large layers without gradients work in two blocks and give the images that they give without."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_config, tiny_generator

from sg3cli.nets import inference_buffers
from sg3cli.nets.inference_buffers import Blocks
from sg3cli.nets.ops import modulated_conv

KINDS: dict[str, dict[str, object]] = {"R": {}, "T": {"conv_kernel": 3, "use_radial_filters": False}}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", ["R", "T"])
def test_images_are_the_same(monkeypatch: pytest.MonkeyPatch, kind: str, batch: int, precision: str) -> None:
    G = tiny_generator(**KINDS[kind])
    ws = torch.randn(batch, G.num_ws, G.w_dim)
    taken: list[str] = []
    take = Blocks._take
    monkeypatch.setattr(Blocks, "_take", lambda self, name, *rest: taken.append(name) or take(self, name, *rest))
    with torch.inference_mode():
        G.synthesis.set_precision(precision)
        expected = G.synthesis(ws)
        assert not taken
        monkeypatch.setattr(inference_buffers, "LARGE", 0)
        monkeypatch.setattr(modulated_conv, "STRIP", 1 << 10)
        actual = G.synthesis(ws)
    assert taken.count("convolved") == taken.count("result") == len(G.synthesis.layer_names) - 1  # all but ToRGB
    if precision == "fp32":
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    else:  # rounded elsewhere: blocks scale the weights
        assert (actual - expected).square().mean().sqrt() < 0.02 * expected.std()


def test_blocks_are_made_once_and_fit_every_layer() -> None:
    specs = tiny_config().layers()
    work = Blocks(specs)
    places = set()
    for spec in specs[:-1]:
        size = spec.in_size + spec.conv_kernel - 1
        places |= {("c", work.convolved(2, spec, size, size).data_ptr())}
        places |= {("r", work.result(2, spec, spec.out_size, spec.out_size).data_ptr())}
    assert len(places) == 2
    wide = work.result(2, specs[0], 999, 999)  # a canvas that was widened beyond the plan
    assert wide.shape == (2, specs[0].out_channels, 999, 999)


@pytest.mark.parametrize("kind", ["R", "T"])
def test_bf16_is_near(kind: str) -> None:
    G = tiny_generator(**KINDS[kind])
    ws = torch.randn(2, G.num_ws, G.w_dim)
    with torch.inference_mode():
        exact = G.synthesis(ws)
        G.synthesis.set_precision("bf16")
        near = G.synthesis(ws)
        G.synthesis.set_precision("fp32")
        again = G.synthesis(ws)
    assert torch.equal(again, exact) and not torch.equal(near, exact)
    assert (near - exact).square().mean().sqrt() < 0.02 * exact.std()
