"""The compiled convolutions against a product of matrices, and against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3cli.nets.ops import cpu_convolution, cpu_kernel, modulated_conv, modulated_conv2d
from sg3cli.nets.ops.cpu_convolution import conv3_into, covers, pointwise

pytestmark = pytest.mark.skipif(not cpu_kernel.available(), reason="no compiled kernel")
sizes = st.integers(1, 70)


@given(n=st.integers(1, 3), inputs=sizes, outputs=sizes, pixels=st.integers(1, 400), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_values_of_any_size(n: int, inputs: int, outputs: int, pixels: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    w, x = torch.randn(n, outputs, inputs, generator=g), torch.randn(n, inputs, pixels, generator=g)
    torch.testing.assert_close(pointwise(w, x), w @ x, rtol=1e-5, atol=1e-4)


def test_many_chunks_and_strided_arguments() -> None:
    """More pixels than one thread packs at once, and tensors that are not laid out as the kernel reads them."""
    g = torch.Generator().manual_seed(0)
    w, x = torch.randn(2, 300, 19, generator=g).transpose(1, 2), torch.randn(2, 5000, 300, generator=g).transpose(1, 2)
    torch.testing.assert_close(pointwise(w, x), w @ x, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_gradients(wanted: tuple[bool, bool]) -> None:
    g = torch.Generator().manual_seed(1)
    leaves = [
        torch.randn(s, generator=g).requires_grad_(r) for s, r in zip([(2, 5, 7), (2, 7, 61)], wanted, strict=True)
    ]
    inputs = [leaf for leaf in leaves if leaf.requires_grad]
    slope = torch.randn(2, 5, 61, generator=g)
    actual = torch.autograd.grad(pointwise(*leaves), inputs, slope)
    expected = torch.autograd.grad(leaves[0] @ leaves[1], inputs, slope)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-4)


def test_second_derivatives_and_fakes() -> None:
    w, x = torch.randn(1, 3, 4, requires_grad=True), torch.randn(1, 4, 5, requires_grad=True)
    torch.library.opcheck(torch.ops.sg3cli.pointwise, (w, x))
    (first,) = torch.autograd.grad(pointwise(w, x).square().sum(), w, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    (first,) = torch.autograd.grad((w @ x).square().sum(), w, create_graph=True)
    torch.testing.assert_close(second, torch.autograd.grad(first.sum(), x)[0], rtol=1e-4, atol=1e-4)


@given(
    inputs=st.integers(1, 20),
    outputs=st.integers(1, 20),
    height=st.integers(3, 12),
    width=st.integers(3, 210),
    padding=st.integers(0, 2),
)
@settings(max_examples=60, deadline=None)
def test_three_by_three_of_any_size(inputs: int, outputs: int, height: int, width: int, padding: int) -> None:
    """Tiles that are cut on the right and below; nothing is written outside of the output."""
    g = torch.Generator().manual_seed(inputs * outputs + height * width)
    x, w = torch.randn(2, inputs, height, width, generator=g), torch.randn(outputs, inputs, 3, 3, generator=g)
    expected = F.conv2d(x, w, padding=padding)
    room = torch.full([expected.numel() + 128], torch.pi)
    y = room[64:-64].view(expected.shape)
    conv3_into(w, x, y, padding)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-4)
    assert (room[:64] == torch.pi).all() and (room[-64:] == torch.pi).all()


def test_other_kinds_are_left_to_torch() -> None:
    w, x = torch.randn(1, 3, 4), torch.randn(1, 4, 5)
    assert covers(x, w)
    assert not covers(x.double(), w) and not covers(x[:, :, :0], w) and not covers(x.to("meta"), w)


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_is_the_same_without_it(demodulate: bool) -> None:
    g = torch.Generator().manual_seed(2)
    x, w, s = (torch.randn(size, generator=g).requires_grad_() for size in ((3, 6, 9, 8), (5, 6, 1, 1), (3, 6)))
    gain, slope = torch.tensor(0.7), torch.randn(3, 5, 9, 8, generator=g)
    results = []
    for impl in ("auto", "torch"):
        y = modulated_conv2d(x, w, s, demodulate, input_gain=gain, impl=impl)
        results.append((y, *torch.autograd.grad(y, (x, w, s), slope)))
    for a, e in zip(*results, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 3])
def test_the_torch_path_leaves_the_kernel_aside(monkeypatch: pytest.MonkeyPatch, k: int) -> None:
    """Also where a convolution is large and made in strips."""
    for name in ("pointwise", "pointwise_into", "conv3_into"):
        monkeypatch.setattr(cpu_convolution, name, lambda *_: pytest.fail("the kernel was used"))
    monkeypatch.setattr(modulated_conv, "LARGE", 0)
    x, w, s = torch.randn(2, 4, 7, 8), torch.randn(3, 4, k, k), torch.randn(2, 4)
    with torch.no_grad():
        y = modulated_conv2d(x, w, s, padding=k - 1, impl="torch")
    scaled = F.conv2d(x * s[:, :, None, None], w, padding=k - 1)
    ratio = y / scaled  # the demodulation is one number for each output
    assert torch.allclose(ratio, ratio.mean((2, 3), keepdim=True).expand_as(ratio), rtol=1e-3)
