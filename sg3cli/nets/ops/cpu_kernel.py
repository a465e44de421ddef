"""Filtered leaky ReLU through the compiled CPU kernel: a custom operator with a first derivative."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from sg3cli.nets.ops import cpu_library
from sg3cli.nets.ops.cpu_binding import describe, run_backward, run_forward
from sg3cli.nets.ops.lrelu_spec import LreluSpec
from sg3cli.nets.ops.tracing import constant_when_traced


@constant_when_traced
def available() -> bool:
    """True if the kernel is loaded; builds it at the first call."""
    return cpu_library.library() is not None


def covers(x: Tensor, case: LreluSpec) -> bool:
    """True if the kernel can do this case: float32 on a CPU; separable filters, or a mirrored 12 x 12 down filter."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not case.suits_kernels(x):
        return False
    if case.fd is None or not case.full:
        return True
    if case.down != 2 or tuple(case.fd.shape) != (12, 12):
        return False
    # A compiler's tracer has no values: the operator itself looks again.
    return torch.compiler.is_compiling() or bool(loaded().sg3_mirrored(case.fd.contiguous().data_ptr()))


def loaded() -> ctypes.CDLL:
    """The library; `RuntimeError` where `available` is false."""
    lib = cpu_library.library()
    if lib is None:
        raise RuntimeError("the compiled CPU kernel is not available")
    return lib


@torch.library.custom_op("sg3cli::filtered_lrelu", mutates_args=())
def _forward_op(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    pad: list[int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip: bool,
    sign_mask: bool,
) -> tuple[Tensor, Tensor]:
    lib, (n, c, h, w) = loaded(), x.shape
    p = describe(lib, (n, c, h, w), LreluSpec.of(fu, fd, up, down, pad, gain, slope, clamp, flip))
    return run_forward(lib, p, x, b, sign_mask)


@torch.library.custom_op("sg3cli::filtered_lrelu_backward", mutates_args=())
def _backward_op(
    dy: Tensor,
    marks: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    h: int,
    w: int,
    up: int,
    down: int,
    pad: list[int],
    gain: float,
    slope: float,
    flip: bool,
) -> tuple[Tensor, Tensor]:
    lib, shape = loaded(), (dy.shape[0], dy.shape[1], h, w)
    p = describe(lib, shape, LreluSpec.of(fu, fd, up, down, pad, gain, slope, None, flip))
    return run_backward(lib, p, dy, marks)


@_forward_op.register_fake
def _forward_shapes(
    x: Tensor, fu: Tensor | None, fd: Tensor | None, b: Tensor | None, *numbers: Any
) -> tuple[Tensor, Tensor]:
    (n, c, h, w), case, sign_mask = x.shape, LreluSpec.of(fu, fd, *numbers[:-1]), numbers[-1]
    grid_h, grid_w, out_h, out_w = case.sizes(h, w)
    lanes = loaded().sg3_lanes()
    vectors = ((grid_w + case.down - 1) // case.down + lanes - 1) // lanes
    marks = n * c * grid_h * case.down * vectors * lanes // 4 if sign_mask else 0
    return x.new_empty([n, c, out_h, out_w]), x.new_empty([marks], dtype=torch.uint8)


@_backward_op.register_fake
def _backward_shapes(
    dy: Tensor, marks: Tensor, fu: Tensor | None, fd: Tensor | None, h: int, w: int, *_: Any
) -> tuple[Tensor, Tensor]:
    return dy.new_empty([dy.shape[0], dy.shape[1], h, w]), dy.new_empty([dy.shape[1]])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Save the marks; nothing else of the forward pass is needed."""
    x, fu, fd, b, up, down, pad, gain, slope, _, flip, _ = inputs
    ctx.save_for_backward(output[1], fu, fd)
    ctx.set_materialize_grads(False)
    ctx.case = (x.shape[2], x.shape[3], up, down, pad, gain, slope, flip)
    ctx.has_bias = b is not None


def _gradients(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 12
    marks, fu, fd = ctx.saved_tensors
    dx, db = _backward_op(dy, marks, fu, fd, *ctx.case)
    return (dx, None, None, db if ctx.has_bias else None) + (None,) * 8


def _no_second_derivative(ctx: Any, *_: Tensor | None) -> None:
    raise RuntimeError("the compiled filtered_lrelu has no second derivative: use impl='torch'")


torch.library.register_autograd("sg3cli::filtered_lrelu", _gradients, setup_context=_keep)
torch.library.register_autograd("sg3cli::filtered_lrelu_backward", _no_second_derivative)


def forward_into(x: Tensor, b: Tensor | None, case: LreluSpec, out: Tensor) -> None:
    """The operator without a derivative, into `out` [N, C, H', W'], which may not overlap `x`."""
    lib, (n, c, h, w) = loaded(), x.shape
    run_forward(lib, describe(lib, (n, c, h, w), case), x, b, False, out)


def filtered_lrelu_kernel(x: Tensor, b: Tensor | None, case: LreluSpec) -> Tensor:
    """The operator on `x` [N, C, H, W] with bias `b` [C], for a case that `covers` accepts."""
    sign_mask = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    y: Tensor = _forward_op(x, case.fu, case.fd, b, *case.numbers, sign_mask)[0]
    return y
