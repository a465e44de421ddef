"""Filtered leaky ReLU through the compiled CPU kernel: a custom operator with a first derivative."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from sg3cli.nets.ops import build
from sg3cli.nets.ops.case import Case
from sg3cli.nets.ops.tracing import constant_when_traced

_Taps = ctypes.c_float * 24
_Matrix = (ctypes.c_float * 6) * 6


class _Problem(ctypes.Structure):
    """Mirror of `Problem` in kernels/filtered_lrelu.cpp."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("planes", "channels", "in_h", "in_w", "grid_h", "grid_w")),
        *((name, ctypes.c_int) for name in ("out_h", "out_w", "up", "down", "radial", "offset_x", "offset_y")),
        *((name, _Taps) for name in ("up_taps_x", "up_taps_y", "down_taps")),
        *((name, _Matrix) for name in ("radial_down", "radial_up")),
        ("slope", ctypes.c_float),
        ("clamp", ctypes.c_float),
    )


def bind(lib: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the functions of the library; AttributeError or OSError if it is not ours."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    lib.sg3_problem_size.restype = ctypes.c_size_t
    lib.sg3_mark_bytes.restype = ctypes.c_size_t
    lib.sg3_mark_bytes.argtypes = [pointer]
    lib.sg3_mirrored.argtypes = [pointer]
    lib.sg3_set_filters.argtypes = [pointer, pointer, integer, pointer, integer, integer, ctypes.c_float]
    lib.sg3_forward.argtypes = [pointer, pointer, pointer, pointer, pointer, integer]
    lib.sg3_backward.argtypes = [pointer, pointer, pointer, pointer, pointer, integer]
    lib.sg3_pointwise.argtypes = [pointer, pointer, pointer, integer, integer, integer, integer]
    lib.sg3_conv3.argtypes = [pointer, pointer, pointer, integer, integer, integer, integer, integer, integer]
    lib.sg3_set_parallel.argtypes = [pointer]
    if lib.sg3_problem_size() != ctypes.sizeof(_Problem):
        raise OSError("the library has another interface")
    return lib


@constant_when_traced
def available() -> bool:
    """True if the kernel is loaded; builds it at the first call."""
    return build.library() is not None


def covers(x: Tensor, case: Case) -> bool:
    """True if the kernel can do this case: float32 on a CPU; separable filters, or a mirrored 12 x 12 down filter."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or not case.suits_kernels(x):
        return False
    if case.fd is None or not case.full:
        return True
    if case.down != 2 or tuple(case.fd.shape) != (12, 12):
        return False
    # A compiler's tracer has no values: the operator itself looks again.
    return torch.compiler.is_compiling() or bool(loaded().sg3_mirrored(case.fd.contiguous().data_ptr()))


def describe(lib: ctypes.CDLL, shape: tuple[int, int, int, int], case: Case) -> _Problem:
    """Describe one call to the kernel; `shape` is that of the input [N, C, H, W]."""
    n, c, h, w = shape
    up_taps, down_taps = case.taps
    offset_x, offset_y = up_taps - 1 - case.pad[0], up_taps - 1 - case.pad[2]
    p = _Problem(n * c, c, h, w, *case.sizes(h, w), case.up, case.down, case.full, offset_x, offset_y)
    p.slope, p.clamp = case.slope, float("inf") if case.clamp is None else case.clamp
    fu, fd = (None if f is None else f.contiguous() for f in (case.fu, case.fd))
    filters = (_pointer(fu), up_taps, _pointer(fd), down_taps)
    if lib.sg3_set_filters(ctypes.byref(p), *filters, case.flip, case.gain):
        raise ValueError("filtered_lrelu: the compiled kernel needs a full filter that equals its mirror images")
    return p


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def run_forward(
    lib: ctypes.CDLL, p: _Problem, x: Tensor, b: Tensor | None, mark: bool, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Output [N, C, H', W'], in `out` if that is given, and marks [bytes] uint8 (empty unless `mark`)."""
    x = x.contiguous()
    y = x.new_empty([x.shape[0], x.shape[1], p.out_h, p.out_w]) if out is None else out
    marks = x.new_empty([lib.sg3_mark_bytes(ctypes.byref(p)) if mark else 0], dtype=torch.uint8)
    bias = None if b is None else b.to(torch.float32).contiguous()
    pointers = (x.data_ptr(), _pointer(bias), y.data_ptr(), marks.data_ptr() if mark else None)
    if lib.sg3_forward(ctypes.byref(p), *pointers, torch.get_num_threads()):
        raise MemoryError("filtered_lrelu: out of memory")
    return y, marks


def run_backward(lib: ctypes.CDLL, p: _Problem, dy: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the input [N, C, H, W] and of the bias [C]."""
    dy = dy.contiguous()
    dx = dy.new_empty([dy.shape[0], dy.shape[1], p.in_h, p.in_w])
    sums = dy.new_empty([dy.shape[0], dy.shape[1]])
    pointers = (dy.data_ptr(), marks.data_ptr(), dx.data_ptr(), sums.data_ptr())
    if lib.sg3_backward(ctypes.byref(p), *pointers, torch.get_num_threads()):
        raise MemoryError("filtered_lrelu: out of memory")
    return dx, sums.sum(0)


def loaded() -> ctypes.CDLL:
    """The library; `RuntimeError` where `available` is false."""
    lib = build.library()
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
    mark: bool,
) -> tuple[Tensor, Tensor]:
    lib, (n, c, h, w) = loaded(), x.shape
    p = describe(lib, (n, c, h, w), Case.of(fu, fd, up, down, pad, gain, slope, clamp, flip))
    return run_forward(lib, p, x, b, mark)


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
    p = describe(lib, shape, Case.of(fu, fd, up, down, pad, gain, slope, None, flip))
    return run_backward(lib, p, dy, marks)


@_forward_op.register_fake
def _forward_shapes(
    x: Tensor, fu: Tensor | None, fd: Tensor | None, b: Tensor | None, *numbers: Any
) -> tuple[Tensor, Tensor]:
    (n, c, h, w), case, mark = x.shape, Case.of(fu, fd, *numbers[:-1]), numbers[-1]
    grid_h, grid_w, out_h, out_w = case.sizes(h, w)
    lanes = loaded().sg3_lanes()
    vectors = ((grid_w + case.down - 1) // case.down + lanes - 1) // lanes
    marks = n * c * grid_h * case.down * vectors * lanes // 4 if mark else 0
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


def forward_into(x: Tensor, b: Tensor | None, case: Case, out: Tensor) -> None:
    """The operator without a derivative, into `out` [N, C, H', W'], which may not overlap `x`."""
    lib, (n, c, h, w) = loaded(), x.shape
    run_forward(lib, describe(lib, (n, c, h, w), case), x, b, False, out)


def filtered_lrelu_kernel(x: Tensor, b: Tensor | None, case: Case) -> Tensor:
    """The operator on `x` [N, C, H, W] with bias `b` [C], for a case that `covers` accepts."""
    mark = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    return _forward_op(x, case.fu, case.fd, b, *case.numbers, mark)[0]
