"""Convolutions through the compiled CPU kernel: 1 x 1 (StyleGAN3-R is made of these); 3 x 3 without a derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sg3cli.nets.ops import cpu_kernel


def covers(x: Tensor, w: Tensor) -> bool:
    """Whether the kernel is there and does this: neither is empty, both are float32 on a CPU."""
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 and t.numel() for t in (x, w))
    return plain and cpu_kernel.available()


def pointwise(w: Tensor, x: Tensor) -> Tensor:
    """`w` [N, O, I] times `x` [N, I, P] -> [N, O, P], differentiable in both."""
    y: Tensor = _multiply(w, x)
    return y


def pointwise_into(w: Tensor, x: Tensor, y: Tensor) -> None:
    """The same without a derivative, into `y` [N, O, P], which may not overlap `x`."""
    w, x = w.contiguous(), x.contiguous()
    size = (x.shape[1], w.shape[1], x.shape[2])
    lib, threads = cpu_kernel.loaded(), torch.get_num_threads()
    for matrix, pixels, out in zip(w, x, y, strict=True):
        if lib.sg3_pointwise(matrix.data_ptr(), pixels.data_ptr(), out.data_ptr(), *size, threads):
            raise MemoryError("pointwise: out of memory")


def conv3_into(w: Tensor, x: Tensor, y: Tensor, padding: int) -> None:
    """3 x 3 convolution of `x` [N, I, H, W] with `w` [O, I, 3, 3] into `y` [N, O, H', W'], no derivative."""
    w, x = w.contiguous(), x.contiguous()
    size = (x.shape[1], w.shape[0], x.shape[2], x.shape[3], padding)
    lib, threads = cpu_kernel.loaded(), torch.get_num_threads()
    for image, out in zip(x, y, strict=True):
        if lib.sg3_conv3(w.data_ptr(), image.data_ptr(), out.data_ptr(), *size, threads):
            raise MemoryError("conv3: out of memory")


@torch.library.custom_op("sg3cli::pointwise", mutates_args=())
def _multiply(w: Tensor, x: Tensor) -> Tensor:
    y = x.new_empty(x.shape[0], w.shape[1], x.shape[2])
    pointwise_into(w, x, y)
    return y


@_multiply.register_fake
def _shape(w: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], w.shape[1], x.shape[2])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    w, x = inputs
    ctx.save_for_backward(w if x.requires_grad else None, x if w.requires_grad else None)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
    w, x = ctx.saved_tensors
    dw = None if x is None else torch.bmm(dy, x.transpose(1, 2))
    dx = None if w is None else pointwise(w.transpose(1, 2), dy)
    return dw, dx


torch.library.register_autograd("sg3cli::pointwise", _gradients, setup_context=_keep)
