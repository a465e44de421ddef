"""Discriminator: official names, and the properties its training relies on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.discriminator import Discriminator, DiscriminatorConfig, EqualConv, minibatch_std

BLOCK = [
    "resample_filter",
    *(f"{conv}.{part}" for conv in ("conv0", "conv1") for part in ("weight", "bias", "resample_filter")),
    "skip.weight",
    "skip.resample_filter",
]
FROMRGB = ["fromrgb.weight", "fromrgb.bias", "fromrgb.resample_filter"]
EPILOGUE = [
    *(f"b4.conv.{part}" for part in ("weight", "bias", "resample_filter")),
    *(f"b4.{layer}.{part}" for layer in ("fc", "out") for part in ("weight", "bias")),
]


def tiny(resolution: int = 32) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(DiscriminatorConfig(img_resolution=resolution, channel_base=256, channel_max=16))


def images(n: int, resolution: int = 32) -> Tensor:
    return torch.randn(n, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))


def test_names_and_shapes_are_official() -> None:
    state = tiny().state_dict()
    names = [f"b{r}.{k}" for r in (32, 16, 8) for k in BLOCK]
    names[1:1] = [f"b32.{k}" for k in FROMRGB]
    assert list(state) == names + EPILOGUE
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    assert shapes["b32.fromrgb.weight"] == (8, 3, 1, 1)
    assert shapes["b32.conv1.weight"] == (16, 8, 3, 3) and shapes["b32.skip.weight"] == (16, 8, 1, 1)
    assert shapes["b4.conv.weight"] == (16, 17, 3, 3) and shapes["b4.fc.weight"] == (16, 256)


@pytest.mark.parametrize("resolution", (8, 64, 128))
def test_any_resolution(resolution: int) -> None:
    logits = tiny(resolution)(images(3, resolution))
    assert logits.shape == (3, 1) and logits.isfinite().all()
    with pytest.raises(ValueError, match="power of two"):
        DiscriminatorConfig(img_resolution=resolution + 1)


@pytest.mark.parametrize("kernel", (1, 3))
def test_downsampling_is_centred(kernel: int) -> None:
    """A mirrored image gives the mirrored features: the filter has no half-pixel shift."""
    conv = EqualConv(2, 2, kernel, down=2, activate=False, bias=False)
    with torch.no_grad():
        conv.weight.copy_((conv.weight + conv.weight.flip(3)) / 2)
        x = torch.randn(1, 2, 16, 16)
        y = conv(x)
        assert y.shape == (1, 2, 8, 8)
        assert torch.allclose(conv(x.flip(3)), y.flip(3), atol=1e-5)
        constant = conv(torch.ones(1, 2, 16, 16))[0, :, 4, 4]
        assert torch.allclose(constant, conv.weight.sum(dim=(1, 2, 3)) * conv.weight_gain, atol=1e-5)


def test_signals_keep_their_scale() -> None:
    """Equalised weights and gains: at initialisation, features in the middle have a mean square near 1."""
    D = Discriminator(DiscriminatorConfig(img_resolution=64, channel_base=4096, channel_max=64))
    seen: list[float] = []
    for name in D.block_names:
        getattr(D, name).register_forward_hook(lambda m, a, out: seen.append(float(out.detach().square().mean())))
    D(F.interpolate(images(8, 4), size=64, mode="bilinear"))  # smooth, so that the low-pass filters take little
    assert len(seen) == 4 and all(0.1 < s < 10 for s in seen)


def test_minibatch_std() -> None:
    x = torch.zeros(6, 4, 2, 2)
    x[3:] = 2  # groups are (0, 3), (1, 4), (2, 5)
    std = minibatch_std(x, group_size=2, num_channels=1)
    assert std.shape == (6, 1, 2, 2)
    assert torch.allclose(std, torch.ones_like(std), atol=1e-3)
    assert minibatch_std(x, group_size=4, num_channels=2).shape == (6, 2, 2, 2)  # gcd(6, 4) = 2 in a group
    assert minibatch_std(x[:1], group_size=4, num_channels=1).max() <= 2e-4


def test_gradient_penalty_has_gradients() -> None:
    """R1 needs the gradient of the gradient."""
    D, x = tiny(), images(4).requires_grad_()
    (grad,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    grad.square().sum().backward()
    got = [k for k, p in D.named_parameters() if p.grad is not None and p.grad.any()]
    assert set(got) >= {k for k, _ in D.named_parameters() if k.endswith("weight")}
