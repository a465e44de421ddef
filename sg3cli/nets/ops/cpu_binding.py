"""The interface of the compiled CPU kernel: its functions, and one call described and run."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from sg3cli.nets.ops.lrelu_spec import LreluSpec

_Taps = ctypes.c_float * 24
_Matrix = (ctypes.c_float * 6) * 6


class Problem(ctypes.Structure):
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
    if lib.sg3_problem_size() != ctypes.sizeof(Problem):
        raise OSError("the library has another interface")
    return lib


def describe(lib: ctypes.CDLL, shape: tuple[int, int, int, int], case: LreluSpec) -> Problem:
    """Describe one call to the kernel; `shape` is that of the input [N, C, H, W]."""
    n, c, h, w = shape
    up_taps, down_taps = case.taps
    offset_x, offset_y = up_taps - 1 - case.pad[0], up_taps - 1 - case.pad[2]
    p = Problem(n * c, c, h, w, *case.sizes(h, w), case.up, case.down, case.full, offset_x, offset_y)
    p.slope, p.clamp = case.slope, float("inf") if case.clamp is None else case.clamp
    fu, fd = (None if f is None else f.contiguous() for f in (case.fu, case.fd))
    filters = (pointer(fu), up_taps, pointer(fd), down_taps)
    if lib.sg3_set_filters(ctypes.byref(p), *filters, case.flip, case.gain):
        raise ValueError("filtered_lrelu: the compiled kernel needs a full filter that equals its mirror images")
    return p


def pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def run_forward(
    lib: ctypes.CDLL, p: Problem, x: Tensor, b: Tensor | None, sign_mask: bool, out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Output [N, C, H', W'], in `out` if that is given, and marks [bytes] uint8 (empty unless `sign_mask`)."""
    x = x.contiguous()
    y = x.new_empty([x.shape[0], x.shape[1], p.out_h, p.out_w]) if out is None else out
    marks = x.new_empty([lib.sg3_mark_bytes(ctypes.byref(p)) if sign_mask else 0], dtype=torch.uint8)
    bias = None if b is None else b.to(torch.float32).contiguous()
    pointers = (x.data_ptr(), pointer(bias), y.data_ptr(), marks.data_ptr() if sign_mask else None)
    if lib.sg3_forward(ctypes.byref(p), *pointers, torch.get_num_threads()):
        raise MemoryError("filtered_lrelu: out of memory")
    return y, marks


def run_backward(lib: ctypes.CDLL, p: Problem, dy: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the input [N, C, H, W] and of the bias [C]."""
    dy = dy.contiguous()
    dx = dy.new_empty([dy.shape[0], dy.shape[1], p.in_h, p.in_w])
    sums = dy.new_empty([dy.shape[0], dy.shape[1]])
    pointers = (dy.data_ptr(), marks.data_ptr(), dx.data_ptr(), sums.data_ptr())
    if lib.sg3_backward(ctypes.byref(p), *pointers, torch.get_num_threads()):
        raise MemoryError("filtered_lrelu: out of memory")
    return dx, sums.sum(0)
