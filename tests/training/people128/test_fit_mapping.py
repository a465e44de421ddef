"""The mapping that is fitted to codes."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_generator

from sg3cli.training.people128.fit_mapping import fit_mapping


def test_the_mapping_draws_from_the_distribution_of_the_codes() -> None:
    """Mean and covariance of drawn codes are those of the codes, which lie on both sides of the kinks."""
    rng = torch.Generator().manual_seed(0)
    G = tiny_generator()
    codes = torch.randn(4000, 5, generator=rng) @ torch.randn(5, G.w_dim, generator=rng)
    codes = codes + torch.randn(G.w_dim, generator=rng)
    assert fit_mapping(G, codes) == pytest.approx(1, abs=1e-4)
    drawn = G.mapping(torch.randn(20000, G.config.z_dim, generator=rng))[:, 3]
    assert torch.allclose(G.mapping.w_avg, codes.mean(0))
    assert torch.allclose(drawn.mean(0), codes.mean(0), atol=0.1)
    assert torch.allclose(torch.cov(drawn.T), torch.cov(codes.T), atol=0.5)  # its largest entry is about 10
    midway = G.mapping(torch.zeros(1, G.config.z_dim))[0, 0]
    assert torch.allclose(midway, codes.mean(0), atol=1e-3)


def test_a_mapping_of_another_depth_is_not_fitted() -> None:
    with pytest.raises(ValueError, match="8 layers"):
        fit_mapping(tiny_generator(mapping_layers=8), torch.randn(10, 32))
