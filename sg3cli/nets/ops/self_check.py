"""Compare a freshly loaded kernel with the torch reference before it is trusted."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from sg3cli.nets.ops import cpu_kernel
from sg3cli.nets.ops.filters import design_lowpass_filter
from sg3cli.nets.ops.upfirdn import upfirdn2d

TOLERANCE = 1e-5  # of the largest value; a correct kernel stays below 1e-6


def self_check(lib: ctypes.CDLL) -> str | None:
    """Values and gradients of the official layer kinds on small images; None, or what is wrong.

    In a thread of its own: gradient modes and saved-tensor hooks belong to the calling thread, and a check whose
    gradients are recomputed by the caller's `checkpoint` would wait for the kernel that it is about to check.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_check, lib).result()


def _check(lib: ctypes.CDLL) -> str | None:
    for up, radial in ((2, False), (2, True), (4, False), (4, True)):
        error = _error(lib, up, radial)
        if not error <= TOLERANCE:  # also for NaN
            return f"up {up}, {'radial' if radial else 'separable'}: relative error {error:.1e}"
    error = _pointwise_error(lib)
    return None if error <= TOLERANCE else f"1 x 1 convolution: relative error {error:.1e}"


def _pointwise_error(lib: ctypes.CDLL) -> float:
    """Sizes that fill neither the last group of outputs nor the last panel of pixels."""
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn([13, 7], generator=generator), torch.randn([7, 121], generator=generator)
    y = x.new_empty(13, 121)
    if lib.sg3_pointwise(w.data_ptr(), x.data_ptr(), y.data_ptr(), 7, 13, 121, torch.get_num_threads()):
        return float("inf")
    return _relative(y, w @ x)


def _error(lib: ctypes.CDLL, up: int, radial: bool) -> float:
    """Largest error of output and gradients, relative to the largest value of each."""
    generator = torch.Generator().manual_seed(up)
    fu = design_lowpass_filter(6 * up, 10, 12, 32 * up)
    fd = design_lowpass_filter(12, 10, 12, 64, radial=radial)
    assert fu is not None and fd is not None
    x = torch.randn([1, 2, 19, 23], generator=generator)
    b = torch.randn([2], generator=generator)
    pad, gain, slope, clamp = (7, 8, 6, 9), 2**0.5, 0.2, 1.0
    leaf, bias = x.clone().requires_grad_(), b.clone().requires_grad_()
    expected = upfirdn2d(leaf + bias[:, None, None], fu, up=up, padding=pad, gain=up**2)
    expected = torch.nn.functional.leaky_relu(expected, slope).mul(gain).clamp(-clamp, clamp)
    expected = upfirdn2d(expected, fd, down=2)
    dy = torch.randn(expected.shape, generator=generator)
    gradients = torch.autograd.grad(expected, (leaf, bias), dy)
    p = cpu_kernel.describe(lib, (1, 2, 19, 23), fu, fd, up, 2, pad, gain, slope, clamp, False)
    y, marks = cpu_kernel.run_forward(lib, p, x, b, mark=True)
    actual = (y, *cpu_kernel.run_backward(lib, p, dy, marks))
    return max(_relative(a, e) for a, e in zip(actual, (expected.detach(), *gradients), strict=True))


def _relative(actual: Tensor, expected: Tensor) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    return float((actual - expected).abs().max() / expected.abs().max())
