"""Filtered leaky ReLU through the compiled CPU kernel, as a custom operator with a first derivative."""

from __future__ import annotations

import ctypes
import weakref
from functools import lru_cache

import torch
from torch import Tensor

from sg3cli.nets.ops import build

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
        ("up_taps_x", _Taps),
        ("up_taps_y", _Taps),
        ("down_taps", _Taps),
        ("radial_down", _Matrix),
        ("radial_up", _Matrix),
        ("slope", ctypes.c_float),
        ("clamp", ctypes.c_float),
    )


def covers(x: Tensor, fu: Tensor | None, fd: Tensor | None, up: int, down: int, pad: Padding, gain: float) -> bool:
    """True if the kernel can do this case: see FACTORS; separable filters, or a mirrored 12 x 12 down filter."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or x.ndim != 4 or x.numel() == 0 or gain <= 0:
        return False
    if up not in FACTORS or down not in FACTORS or (fu is None and fd is None):
        return False
    if fu is not None and (fu.ndim != 1 or fu.shape[0] > TAPS_PER_PHASE * up or fu.requires_grad):
        return False
    if fd is not None:
        if fd.requires_grad:
            return False
        if fd.ndim == 2 and (down != 2 or tuple(fd.shape) != (12, 12) or not _is_mirrored(fd)):
            return False
        if fd.ndim == 1 and fd.shape[0] > TAPS_PER_PHASE * down:
            return False
    grid_h, grid_w, out_h, out_w = _sizes(x.shape[2], x.shape[3], _taps(fu), _taps(fd), up, down, pad)
    return min(grid_h, grid_w, out_h, out_w) > 0


_mirrored: dict[int, tuple[weakref.ref[Tensor], int, bool]] = {}


def _is_mirrored(f: Tensor) -> bool:
    """True if the full filter equals its mirror images, up to rounding; remembered for the tensor's version."""
    known = _mirrored.get(id(f))
    if known is not None and known[0]() is f and known[1] == f._version:
        return known[2]
    tolerance = 1e-6 * float(f.abs().max())
    mirrored = all(float((f - f.flip(d)).abs().max()) <= tolerance for d in (0, 1))
    _mirrored[id(f)] = (weakref.ref(f, lambda _, key=id(f): _mirrored.pop(key, None)), f._version, mirrored)
    return mirrored


def _taps(f: Tensor | None) -> int:
    return 1 if f is None else f.shape[0]


def _sizes(h: int, w: int, up_taps: int, down_taps: int, up: int, down: int, pad: Padding) -> tuple[int, ...]:
    """Height and width of the up-sampled grid and of the output."""
    grid_w = w * up + pad[0] + pad[1] - up_taps + 1
    grid_h = h * up + pad[2] + pad[3] - up_taps + 1
    return grid_h, grid_w, (grid_h - down_taps) // down + 1, (grid_w - down_taps) // down + 1


def _problem(
    shape: tuple[int, ...],
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
    up_taps = [1.0] if fu is None else fu.tolist()
    grid_h, grid_w, out_h, out_w = _sizes(h, w, len(up_taps), _taps(fd), up, down, pad)
    if flip:
        up_taps.reverse()
    radial = fd is not None and fd.ndim == 2
    p = _Problem(n * c, c, h, w, grid_h, grid_w, out_h, out_w, up, down, radial)
    p.offset_x, p.offset_y = len(up_taps) - 1 - pad[0], len(up_taps) - 1 - pad[2]
    p.up_taps_x = _Taps(*(t * gain * up**2 for t in up_taps))
    p.up_taps_y = _Taps(*up_taps)
    p.slope, p.clamp = slope, float("inf") if clamp is None else clamp
    if not radial:
        down_taps = [1.0] if fd is None else fd.tolist()
        p.down_taps = _Taps(*(down_taps if flip else reversed(down_taps)))
        return p
    assert fd is not None
    rows = fd.tolist()
    for r in range(6):
        for k in range(6):
            p.radial_down[k][r] = rows[r][k]
        for k in range(3):
            near, far = rows[r][2 * k], rows[r][10 - 2 * k]
            p.radial_up[k][r] = (near + far) / 2
            p.radial_up[3 + k][r] = (near - far) / 2
    return p


def bind(lib: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the functions of the library; AttributeError if it is not ours."""
    pointer = ctypes.c_void_p
    lib.sg3_problem_size.restype = ctypes.c_size_t
    lib.sg3_mark_bytes.restype = ctypes.c_size_t
    lib.sg3_mark_bytes.argtypes = [pointer]
    lib.sg3_forward.argtypes = [pointer, pointer, pointer, pointer, pointer, ctypes.c_int]
    lib.sg3_backward.argtypes = [pointer, pointer, pointer, pointer, pointer, ctypes.c_int]
    lib.sg3_set_parallel.argtypes = [pointer]
    if lib.sg3_problem_size() != ctypes.sizeof(_Problem):
        raise OSError("the library has another interface")
    return lib


def self_check(lib: ctypes.CDLL) -> str | None:
    """Compare the kernel with the torch reference on small cases; None, or what is wrong."""
    return None


def _lib() -> ctypes.CDLL:
    lib = build.library()
    if lib is None:
        raise RuntimeError("the compiled CPU kernel is not available")
    return lib


def run_forward(lib: ctypes.CDLL, p: _Problem, x: Tensor, b: Tensor | None, mark: bool) -> tuple[Tensor, Tensor]:
    """Output [N, C, H', W'] and marks [bytes] uint8 (empty unless `mark`)."""
    x = x.contiguous()
    y = x.new_empty([x.shape[0], x.shape[1], p.out_h, p.out_w])
    marks = torch.empty(lib.sg3_mark_bytes(ctypes.byref(p)) if mark else 0, dtype=torch.uint8)
    bias = None if b is None else b.to(torch.float32).contiguous()
    failed = lib.sg3_forward(
        ctypes.byref(p),
        x.data_ptr(),
        None if bias is None else bias.data_ptr(),
        y.data_ptr(),
        marks.data_ptr() if mark else None,
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError("filtered_lrelu: out of memory")
    return y, marks


def run_backward(lib: ctypes.CDLL, p: _Problem, dy: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the input [N, C, H, W] and of the bias [C]."""
    dy = dy.contiguous()
    dx = dy.new_empty([dy.shape[0], dy.shape[1], p.in_h, p.in_w])
    sums = dy.new_empty([dy.shape[0], dy.shape[1]])
    failed = lib.sg3_backward(
        ctypes.byref(p),
        dy.data_ptr(),
        marks.data_ptr(),
        dx.data_ptr(),
        sums.data_ptr(),
        torch.get_num_threads(),
    )
    if failed:
        raise MemoryError("filtered_lrelu: out of memory")
    return dx, sums.sum(0)


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
    p = _problem(tuple(x.shape), fu, fd, up, down, _padding(pad), gain, slope, clamp, flip)
    return run_forward(_lib(), p, x, b, mark)


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
    shape = (dy.shape[0], dy.shape[1], h, w)
    p = _problem(shape, fu, fd, up, down, _padding(pad), gain, slope, None, flip)
    return run_backward(_lib(), p, dy, marks)


def _padding(pad: list[int]) -> Padding:
    x0, x1, y0, y1 = pad
    return x0, x1, y0, y1


@_forward_op.register_fake
def _(x, fu, fd, b, up, down, pad, gain, slope, clamp, flip, mark):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    n, c, h, w = x.shape
    grid_h, grid_w, out_h, out_w = _sizes(h, w, _taps(fu), _taps(fd), up, down, _padding(pad))
    lanes = _lib().sg3_lanes()
    vectors = -(-(-(-grid_w // down)) // lanes)
    marks = n * c * grid_h * down * vectors * lanes // 4 if mark else 0
    return x.new_empty([n, c, out_h, out_w]), x.new_empty([marks], dtype=torch.uint8)


@_backward_op.register_fake
def _(dy, marks, fu, fd, h, w, up, down, pad, gain, slope, flip):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    return dy.new_empty([dy.shape[0], dy.shape[1], h, w]), dy.new_empty([dy.shape[1]])


def _setup(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    x, fu, fd, b, up, down, pad, gain, slope, _, flip, _ = inputs
    ctx.save_for_backward(output[1], fu, fd)
    ctx.set_materialize_grads(False)
    ctx.case = (x.shape[2], x.shape[3], up, down, pad, gain, slope, flip)
    ctx.has_bias = b is not None


def _gradients(ctx, dy, _):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    if dy is None:
        return (None,) * 12
    marks, fu, fd = ctx.saved_tensors
    dx, db = _backward_op(dy, marks, fu, fd, *ctx.case)
    return dx, None, None, db if ctx.has_bias else None, *(None,) * 8


def _no_second_derivative(ctx, *_) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    raise RuntimeError("the compiled filtered_lrelu has no second derivative: use impl='torch'")


torch.library.register_autograd("sg3cli::filtered_lrelu", _gradients, setup_context=_setup)
torch.library.register_autograd("sg3cli::filtered_lrelu_backward", _no_second_derivative)


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
