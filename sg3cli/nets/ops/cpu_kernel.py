"""Filtered leaky ReLU through the compiled CPU kernel: a custom operator with a first derivative."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from sg3cli.nets.ops import build
from sg3cli.nets.ops.tracing import constant_when_traced

Padding = tuple[int, int, int, int]
FACTORS = (1, 2, 4)
TAPS_PER_PHASE = 6
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


def covers(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    up: int,
    down: int,
    pad: Padding,
    gain: float,
) -> bool:
    """True if the kernel can do this case: see FACTORS; separable filters, or a mirrored 12 x 12 down filter."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.ndim != 4 or x.numel() == 0 or gain <= 0:
        return False
    if up not in FACTORS or down not in FACTORS or (fu is None and fd is None):
        return False
    if not all(f is None or (f.dtype == torch.float32 and not f.requires_grad) for f in (fu, fd)):
        return False
    if taps(fu) > TAPS_PER_PHASE * up or (fu is not None and fu.ndim != 1):
        return False
    if taps(fd) > TAPS_PER_PHASE * down:
        return False
    if fd is not None and fd.ndim == 2:
        if down != 2 or tuple(fd.shape) != (12, 12):
            return False
        # A compiler's tracer has no values: the operator itself looks again.
        if not torch.compiler.is_compiling() and not loaded().sg3_mirrored(fd.contiguous().data_ptr()):
            return False
    return min(_sizes(x.shape[2], x.shape[3], taps(fu), taps(fd), up, down, pad)) > 0


def taps(f: Tensor | None) -> int:
    """Length of a filter along an axis."""
    return 1 if f is None else f.shape[0]


def _sizes(h: int, w: int, up_taps: int, down_taps: int, up: int, down: int, pad: Padding) -> tuple[int, int, int, int]:
    """Height and width of the up-sampled grid and of the output."""
    grid_w = w * up + pad[0] + pad[1] - up_taps + 1
    grid_h = h * up + pad[2] + pad[3] - up_taps + 1
    return grid_h, grid_w, (grid_h - down_taps) // down + 1, (grid_w - down_taps) // down + 1


def output_size(
    h: int, w: int, fu: Tensor | None, fd: Tensor | None, up: int, down: int, pad: Padding
) -> tuple[int, int]:
    """Height and width of the output for an input of h x w."""
    return _sizes(h, w, taps(fu), taps(fd), up, down, pad)[2:]


def describe(
    lib: ctypes.CDLL,
    shape: tuple[int, int, int, int],
    fu: Tensor | None,
    fd: Tensor | None,
    up: int,
    down: int,
    pad: Padding,
    gain: float,
    slope: float,
    clamp: float | None,
    flip: bool,
) -> _Problem:
    """Describe one call to the kernel; `shape` is that of the input [N, C, H, W]."""
    n, c, h, w = shape
    radial = fd is not None and fd.ndim == 2
    offset_x, offset_y = taps(fu) - 1 - pad[0], taps(fu) - 1 - pad[2]
    sizes = _sizes(h, w, taps(fu), taps(fd), up, down, pad)
    p = _Problem(n * c, c, h, w, *sizes, up, down, radial, offset_x, offset_y)
    p.slope, p.clamp = slope, float("inf") if clamp is None else clamp
    fu = None if fu is None else fu.contiguous()
    fd = None if fd is None else fd.contiguous()
    if lib.sg3_set_filters(ctypes.byref(p), _pointer(fu), taps(fu), _pointer(fd), taps(fd), flip, gain):
        raise ValueError("filtered_lrelu: the compiled kernel needs a full filter that equals its mirror images")
    return p


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def run_forward(lib: ctypes.CDLL, p: _Problem, x: Tensor, b: Tensor | None, mark: bool) -> tuple[Tensor, Tensor]:
    """Output [N, C, H', W'] and marks [bytes] uint8 (empty unless `mark`)."""
    x = x.contiguous()
    y = x.new_empty([x.shape[0], x.shape[1], p.out_h, p.out_w])
    marks = x.new_empty([lib.sg3_mark_bytes(ctypes.byref(p)) if mark else 0], dtype=torch.uint8)
    bias = None if b is None else b.to(torch.float32).contiguous()
    pointers = (x.data_ptr(), _pointer(bias), y.data_ptr(), marks.data_ptr() if mark else None)
    if lib.sg3_forward(ctypes.byref(p), *pointers, torch.get_num_threads()):
        raise MemoryError("filtered_lrelu: out of memory")
    return y, marks


def run_into(lib: ctypes.CDLL, p: _Problem, x: Tensor, b: Tensor | None, y: Tensor) -> None:
    """Write the output into `y` [N, C, H', W']; no marks."""
    x = x.contiguous()
    bias = None if b is None else b.to(torch.float32).contiguous()
    if lib.sg3_forward(ctypes.byref(p), x.data_ptr(), _pointer(bias), y.data_ptr(), None, torch.get_num_threads()):
        raise MemoryError("filtered_lrelu: out of memory")


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
    lib = build.library()
    if lib is None:
        raise RuntimeError("the compiled CPU kernel is not available")
    return lib


def _padding(pad: list[int]) -> Padding:
    x0, x1, y0, y1 = pad
    return x0, x1, y0, y1


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
    p = describe(lib, (n, c, h, w), fu, fd, up, down, _padding(pad), gain, slope, clamp, flip)
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
    p = describe(lib, shape, fu, fd, up, down, _padding(pad), gain, slope, None, flip)
    return run_backward(lib, p, dy, marks)


@_forward_op.register_fake
def _forward_shapes(
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
    n, c, h, w = x.shape
    grid_h, grid_w, out_h, out_w = _sizes(h, w, taps(fu), taps(fd), up, down, _padding(pad))
    lanes = loaded().sg3_lanes()
    vectors = ((grid_w + down - 1) // down + lanes - 1) // lanes
    marks = n * c * grid_h * down * vectors * lanes // 4 if mark else 0
    return x.new_empty([n, c, out_h, out_w]), x.new_empty([marks], dtype=torch.uint8)


@_backward_op.register_fake
def _backward_shapes(
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


def forward_into(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    pad: Padding,
    gain: float,
    slope: float,
    clamp: float | None,
    flip: bool,
    y: Tensor,
) -> None:
    """The operator without a derivative, into `y` [N, C, H', W'], which may not overlap `x`."""
    lib, (n, c, h, w) = loaded(), x.shape
    p = describe(lib, (n, c, h, w), fu, fd, up, down, pad, gain, slope, clamp, flip)
    run_into(lib, p, x, b, y)


def filtered_lrelu_kernel(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    pad: Padding,
    gain: float,
    slope: float,
    clamp: float | None,
    flip: bool,
) -> Tensor:
    """The operator for a case that `covers` accepts; arguments as in `filtered_lrelu`."""
    mark = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    return _forward_op(x, fu, fd, b, up, down, list(pad), gain, slope, clamp, flip, mark)[0]
