"""Filtered leaky ReLU through a CUDA kernel that NVRTC compiles at first use: a custom operator like the CPU's.

Off unless `SG3_CUDA_KERNEL=1` (or `impl="kernel"`) asks for it; `SG3_KERNEL=off` forbids it too. Every kind of layer is
compared with the torch path before it is trusted; whatever goes wrong costs one notice, and torch does all the work.
"""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

import torch
from torch import Tensor

from sg3cli.nets.ops.cuda_launch import TYPES, run_backward, run_forward
from sg3cli.nets.ops.cuda_self_check import check_cuda
from sg3cli.nets.ops.lrelu_spec import LreluSpec
from sg3cli.nets.ops.nvrtc import CudaError
from sg3cli.nets.ops.tracing import constant_when_traced

log = logging.getLogger("sg3cli.ops")

_refused = False


def usable(x: Tensor, b: Tensor | None, case: LreluSpec, asked: bool = False) -> bool:
    """True if the kernel is switched on or `asked` for, covers the case and has shown that it computes it right."""
    if x.device.type != "cuda" or not switched_on(asked) or not covers(x, b, case):
        return False
    kind = (case.up, case.down, *case.taps, case.full, case.pad[0] % 4, case.pad[2] % 4, case.flip)
    return _trusted(x.device.index, x.dtype, *kind)


def covers(x: Tensor, b: Tensor | None, case: LreluSpec) -> bool:
    """True if the kernel can do this case: one of the TYPES; separable filters, or a square down filter."""
    if x.dtype not in TYPES or (b is not None and b.dtype != x.dtype) or not case.suits_kernels(x):
        return False
    return case.fd is None or not case.full or case.fd.shape[0] == case.fd.shape[1]


@constant_when_traced
def switched_on(asked: bool = False) -> bool:
    """True if the environment asks for the kernel, or the caller does and that does not forbid it."""
    if _refused or os.environ.get("SG3_KERNEL", "").lower() in ("off", "0"):
        return False
    return asked or os.environ.get("SG3_CUDA_KERNEL", "").lower() in ("on", "1")


@constant_when_traced
@functools.cache
def _trusted(device: int, dtype: torch.dtype, *kind: Any) -> bool:
    """True if a kind of layer (see `check_cuda`) passes its self check; otherwise no other is tried, with a notice."""
    global _refused
    try:
        error = check_cuda(torch.device("cuda", device), dtype, *kind)
    except (CudaError, OSError, RuntimeError) as e:
        error = str(e)
    if error is not None:
        log.warning("the CUDA kernel is not available, using plain torch (slower): %s", error)
        _refused = True
    return error is None


def in_use() -> bool:
    """True if this process computes with the kernel: some kind of layer has passed its check, and none has failed."""
    return not _refused and _trusted.cache_info().currsize > 0


_forward_op = torch.library.custom_op("sg3cli::filtered_lrelu_cuda", run_forward, mutates_args=())
_backward_op = torch.library.custom_op("sg3cli::filtered_lrelu_cuda_backward", run_backward, mutates_args=())


@_forward_op.register_fake
def _forward_shapes(
    x: Tensor, fu: Tensor | None, fd: Tensor | None, b: Tensor | None, *numbers: Any
) -> tuple[Tensor, Tensor]:
    (n, c, h, w), sign_mask = x.shape, numbers[-1]
    grid_h, grid_w, out_h, out_w = LreluSpec.of(fu, fd, *numbers[:-1]).sizes(h, w)
    mask = x.new_empty([n * c, -(-grid_h // 4), grid_w] if sign_mask else [0], dtype=torch.uint8)
    return x.new_empty([n, c, out_h, out_w]), mask


@_backward_op.register_fake
def _backward_shapes(dy: Tensor, mask: Tensor, fu: Tensor | None, fd: Tensor | None, h: int, w: int, *_: Any) -> Tensor:
    return dy.new_empty([dy.shape[0], dy.shape[1], h, w])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Save the mask; nothing else of the forward pass is needed."""
    x, fu, fd, b, up, down, pad, gain, slope, _, flip, _ = inputs
    ctx.save_for_backward(output[1], fu, fd)
    ctx.set_materialize_grads(False)
    ctx.case = (x.shape[2], x.shape[3], up, down, pad, gain, slope, flip)
    ctx.bias_type = None if b is None else b.dtype


def _gradients(ctx: Any, dy: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 12
    mask, fu, fd = ctx.saved_tensors
    dx = _backward_op(dy, mask, fu, fd, *ctx.case)
    db = None if ctx.bias_type is None else dx.sum([0, 2, 3], dtype=torch.float32).to(ctx.bias_type)
    return (dx, None, None, db) + (None,) * 8


def _no_second_derivative(ctx: Any, *_: Tensor | None) -> None:
    raise RuntimeError("the compiled filtered_lrelu has no second derivative: use impl='torch'")


torch.library.register_autograd("sg3cli::filtered_lrelu_cuda", _gradients, setup_context=_keep)
torch.library.register_autograd("sg3cli::filtered_lrelu_cuda_backward", _no_second_derivative)


def filtered_lrelu_cuda(x: Tensor, b: Tensor | None, case: LreluSpec) -> Tensor:
    """The operator on `x` [N, C, H, W] with bias `b` [C], for a case that is `usable`; half and bfloat16 as well."""
    sign_mask = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    y: Tensor = _forward_op(x, case.fu, case.fd, b, *case.numbers, sign_mask)[0]
    return y
