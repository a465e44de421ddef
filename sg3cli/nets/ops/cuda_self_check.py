"""Compare the CUDA kernel with the torch reference before it is trusted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from sg3cli.nets.ops import cuda_launch
from sg3cli.nets.ops.lrelu_spec import LreluSpec
from sg3cli.nets.ops.self_check import TOLERANCE, reference, relative


def check_cuda(device: torch.device, dtype: torch.dtype, *kind: Any) -> str | None:
    """Values and gradients of one kind of layer (the arguments of `_cuda_error`) on a device; None, or what is wrong.

    The reference is computed on the CPU: a GPU's convolutions may round to fewer bits. A sample within rounding of a
    kink may fall on its other side; not twice in a row.
    """
    with ThreadPoolExecutor(1) as thread:
        for seed in range(2):
            error = thread.submit(_cuda_error, device, dtype, seed, *kind).result()
            if error <= max(TOLERANCE, torch.finfo(dtype).eps):
                return None
    up, down, _, _, full, *_ = kind
    return f"up {up}, down {down}, {'full' if full else 'separable'}, {dtype}: relative error {error:.1e}"


def _cuda_error(
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    up: int,
    down: int,
    up_taps: int,
    down_taps: int,
    full: bool,
    pad_x: int,
    pad_y: int,
    flip: bool,
) -> float:
    """Largest relative error with random filters; `pad_x` and `pad_y` are paddings up to a multiple of four."""
    generator = torch.Generator().manual_seed(seed)
    fu = _random_filter(generator, up_taps)
    fd = _random_filter(generator, down_taps, *([down_taps] if full else []))
    x, b = (torch.randn(shape, generator=generator).to(dtype) for shape in ([2, 2, 37, 43], [2]))
    case = LreluSpec(fu, fd, up, down, (pad_x + 8, 9, pad_y + 4, 7), clamp=0.5, flip=flip)
    expected, dy = reference(x.float(), b.float(), case, generator)
    x, b, fu, fd, dy = (t.to(device) for t in (x, b, fu, fd, dy.to(dtype)))
    numbers = case.numbers
    plain, _ = cuda_launch.run_forward(x, fu, fd, b, *numbers, False)
    y, mask = cuda_launch.run_forward(x, fu, fd, b, *numbers, True)
    dx = cuda_launch.run_backward(dy, mask, fu, fd, 37, 43, *numbers[:5], flip)
    errors = [relative(actual.float().cpu(), wanted) for actual, wanted in zip((y, dx), expected, strict=False)]
    return max(*errors, relative(plain.float().cpu(), expected[0]))


def _random_filter(generator: torch.Generator, *shape: int) -> Tensor:
    """Taps without any symmetry, so that mistakes of direction and phase show."""
    f = torch.rand(shape, generator=generator) + 0.1
    return f / f.sum()
