"""An encoder's branch on a backbone's features: nothing at first, measured in how pictures differ, stored whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_encoder

from sg3cli.nets.checkpoint import load_encoder_file, save_encoder
from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.encoder import Encoder, with_features
from sg3cli.nets.feature_branch import DIMENSION, describe, fit_components, grow

COMPONENTS = 6


@pytest.fixture(scope="module")
def backbone() -> EfficientNetLite:
    torch.manual_seed(0)
    return EfficientNetLite().eval()


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(12, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def encoder(backbone: EfficientNetLite, pictures: torch.Tensor) -> Encoder:
    """Fitted to pictures and to what is a little darker than they."""
    wider = with_features(tiny_encoder(), COMPONENTS)
    assert wider.features is not None
    with torch.no_grad():
        targets, drawn = describe(backbone, pictures), describe(backbone, 0.7 * pictures - 0.1)
        held = fit_components(wider.features, backbone, targets, drawn)
    assert 0.3 < held <= 1.001
    return wider.eval()


def test_codes_are_the_same_until_it_has_learned(encoder: Encoder, pictures: torch.Tensor) -> None:
    x = torch.cat([pictures, 0.5 * pictures], 1)
    plain = tiny_encoder().eval()
    plain.load_state_dict({k: v for k, v in encoder.state_dict().items() if not k.startswith("features.")})
    assert torch.equal(encoder(x), plain(x))
    branch = encoder.features
    assert branch is not None
    branch.direct.weight.data.normal_(generator=torch.Generator().manual_seed(3))
    moved = (encoder(x) - plain(x)).detach()
    assert float(moved.abs().mean()) > 0.1
    same = torch.cat([pictures, pictures], 1)  # nothing to correct: the linear part is still
    torch.testing.assert_close(encoder(same), plain(same))


def test_projected_differences_are_as_large_as_one(
    encoder: Encoder, backbone: EfficientNetLite, pictures: torch.Tensor
) -> None:
    branch = encoder.features
    assert branch is not None
    with torch.no_grad():
        targets, drawn = describe(backbone, pictures), describe(backbone, 0.7 * pictures - 0.1)
    assert targets.shape == (12, DIMENSION)
    projected = (targets - drawn) @ branch.components
    torch.testing.assert_close(projected.square().mean(0), torch.ones(COMPONENTS), rtol=0.05, atol=0.05)
    torch.testing.assert_close(branch.mean, targets.mean(0))


def test_only_its_heads_learn(encoder: Encoder, pictures: torch.Tensor) -> None:
    branch = encoder.features
    assert branch is not None
    encoder.requires_grad_(True)
    branch.net.requires_grad_(False)
    branch.outer.weight.data.fill_(0.01)
    branch(torch.cat([pictures, -pictures], 1)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in branch.learned() if p is not branch.inner.bias)
    assert all(p.grad is None for p in branch.net.parameters())


def test_it_is_read_as_it_was_written(encoder: Encoder, pictures: torch.Tensor, tmp_path: Path) -> None:
    save_encoder(tmp_path / "encoder.safetensors", encoder)
    again, _ = load_encoder_file(tmp_path / "encoder.safetensors")
    assert again.config.features == COMPONENTS
    x = torch.cat([pictures, 0.5 * pictures], 1)
    assert torch.equal(again(x), encoder(x))


def test_a_wider_branch_says_the_same_and_hears_more(
    encoder: Encoder, backbone: EfficientNetLite, pictures: torch.Tensor
) -> None:
    old = encoder.features
    assert old is not None
    for parameter in old.learned():
        torch.nn.init.normal_(parameter, std=0.1)
    wider = with_features(encoder, COMPONENTS + 3, hidden=500).eval()
    branch = wider.features
    assert branch is not None and branch.inner.weight.shape == (500, 2 * (COMPONENTS + 3))
    with torch.no_grad():
        targets, drawn = describe(backbone, pictures), describe(backbone, 0.7 * pictures - 0.1)
        held = grow(branch, old, targets, drawn)
    x = torch.cat([pictures, 0.5 * pictures], 1)
    torch.testing.assert_close(wider(x), encoder.eval()(x), rtol=1e-4, atol=1e-4)
    known = old.components / (1 / (targets.std(0) + 1e-4))[:, None]
    new = branch.components[:, COMPONENTS:] / (1 / (targets.std(0) + 1e-4))[:, None]
    across = torch.nn.functional.normalize(known, dim=0).T @ torch.nn.functional.normalize(new, dim=0)
    assert float(across.abs().max()) < 1e-2  # they see what the old ones do not
    assert 0.3 < held <= 1.001
    branch.outer.weight.data[:, 400:] = 1.0  # a unit that was added
    assert float((wider(x) - encoder(x)).detach().abs().max()) > 0.1
