"""Compare a fresh kernel with the torch reference before it is trusted."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from sg3cli.nets.ops import cpu_binding
from sg3cli.nets.ops.filters import design_lowpass_filter
from sg3cli.nets.ops.lrelu_spec import LreluSpec
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
    error = _convolution_error(lib)
    return None if error <= TOLERANCE else f"convolution: relative error {error:.1e}"


def _convolution_error(lib: ctypes.CDLL) -> float:
    """Sizes that fill neither the last group of outputs nor the last panel of pixels."""
    generator = torch.Generator().manual_seed(0)
    w, x = torch.randn([13, 7], generator=generator), torch.randn([7, 121], generator=generator)
    y = x.new_empty(13, 121)
    if lib.sg3_pointwise(w.data_ptr(), x.data_ptr(), y.data_ptr(), 7, 13, 121, torch.get_num_threads()):
        return float("inf")
    square, image = torch.randn([13, 7, 3, 3], generator=generator), torch.randn([7, 6, 101], generator=generator)
    z = x.new_empty(13, 8, 103)
    if lib.sg3_conv3(square.data_ptr(), image.data_ptr(), z.data_ptr(), 7, 13, 6, 101, 2, torch.get_num_threads()):
        return float("inf")
    return max(relative(y, w @ x), relative(z, torch.nn.functional.conv2d(image[None], square, padding=2)[0]))


def _error(lib: ctypes.CDLL, up: int, radial: bool) -> float:
    """Largest error of output and gradients, relative to the largest value of each."""
    generator = torch.Generator().manual_seed(up)
    fu = design_lowpass_filter(6 * up, 10, 12, 32 * up)
    fd = design_lowpass_filter(12, 10, 12, 64, radial=radial)
    x, b = torch.randn([1, 2, 19, 23], generator=generator), torch.randn([2], generator=generator)
    case = LreluSpec(fu, fd, up, 2, (7, 8, 6, 9), clamp=1.0)
    expected, dy = reference(x, b, case, generator)
    p = cpu_binding.describe(lib, (1, 2, 19, 23), case)
    y, marks = cpu_binding.run_forward(lib, p, x, b, sign_mask=True)
    actual = (y, *cpu_binding.run_backward(lib, p, dy, marks))
    return max(map(relative, actual, expected))


def reference(x: Tensor, b: Tensor, case: LreluSpec, generator: torch.Generator) -> tuple[tuple[Tensor, ...], Tensor]:
    """Output and gradients of input and bias through plain torch, and the random slope [N, C, H', W'] they are for."""
    assert case.clamp is not None
    leaf, bias = x.clone().requires_grad_(), b.clone().requires_grad_()
    y = leaf + bias[:, None, None]
    y = upfirdn2d(y, case.fu, up=case.up, padding=case.pad, gain=case.up**2, flip_filter=case.flip)
    y = torch.nn.functional.leaky_relu(y, case.slope).mul(case.gain).clamp(-case.clamp, case.clamp)
    y = upfirdn2d(y, case.fd, down=case.down, flip_filter=case.flip)
    dy = torch.randn(y.shape, generator=generator).to(torch.bfloat16).float()  # the same numbers in any type
    return (y.detach(), *torch.autograd.grad(y, (leaf, bias), dy)), dy


def relative(actual: Tensor, expected: Tensor) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    return float((actual - expected).abs().max() / expected.abs().max())
