"""The account of what a backward pass keeps, held against what autograd really saves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.nets.memory import free_bytes, images_at_once, kept_bytes, layers_to_recompute

R_1024 = GeneratorConfig.stylegan3_r(1024)
SMALL = GeneratorConfig(img_resolution=64, w_dim=32, channel_base=2048, channel_max=32)


def saved_bytes(G: Generator, images: int) -> int:
    """Bytes of the distinct tensors that a forward pass saves, weights left out."""
    seen: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in [*G.parameters(), *G.buffers()]}

    def pack(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            seen[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        image = G.synthesis(torch.zeros(images, G.num_ws, G.w_dim))
    assert image.requires_grad  # and so nothing that was saved has been freed before it was counted
    return sum(seen.values())


@pytest.mark.parametrize("images", [1, 3])
def test_the_account_is_what_autograd_keeps(images: int) -> None:
    from sg3cli.nets.ops import cpu_kernel

    if not cpu_kernel.available():
        pytest.skip("the torch path keeps other things")
    G = Generator(SMALL)
    G.synthesis.input.requires_grad_(False)
    expected = sum(kept_bytes(spec, images) for spec in SMALL.layers())
    assert saved_bytes(G, images) == pytest.approx(expected, rel=0.25)


def test_batches_of_large_images_are_cut() -> None:
    assert images_at_once(R_1024, 4) == 1
    assert images_at_once(SMALL, 4) == 4
    assert images_at_once(SMALL, 4, limit=0) == 1


@given(st.integers(0, 40))
def test_layers_are_recomputed_as_far_as_memory_is_short(gigabytes: int) -> None:
    free = gigabytes << 30
    chosen = layers_to_recompute(R_1024, 1, free)
    assert chosen <= set(range(len(R_1024.layers())))
    more = layers_to_recompute(R_1024, 1, free + (1 << 30))
    assert more <= chosen  # with more memory never more work
    kept = sum(kept_bytes(spec, 1, i in chosen) for i, spec in enumerate(R_1024.layers()))
    assert kept <= free / 2 or len(chosen) == len(R_1024.layers())
    assert (not chosen) == (sum(kept_bytes(spec, 1) for spec in R_1024.layers()) <= free / 2)


def test_there_is_memory() -> None:
    assert free_bytes(torch.device("cpu")) > 1 << 28
