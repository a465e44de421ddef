"""Filtered leaky ReLU: the alias-free non-linearity of StyleGAN3.

Karras et al., Alias-Free Generative Adversarial Networks (2021), Section 3.2: the leaky ReLU is applied on a
temporarily up-sampled grid between two low-pass filters, so that the frequencies it creates do not alias.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sg3cli.nets.ops import cpu_kernel, cuda_kernel
from sg3cli.nets.ops.lrelu_spec import LreluSpec
from sg3cli.nets.ops.upfirdn import parse_padding, upfirdn2d

# The torch path works through the channels in chunks of at most this many up-sampled samples.
CHUNK_SAMPLES = 1 << 22


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int | Sequence[int] = (0, 0, 0, 0),
    gain: float = 2**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "auto",
) -> Tensor:
    """Bias, up-sample, leaky ReLU, clamp, down-sample: `x` [N, C, H, W] -> [N, C, H', W'].

    `fu`, `fd` are [taps] (separable), [h, w] or None (identity); `b` [C]; `padding` (x0, x1, y0, y1) in samples
    of the up-sampled grid, negative values crop. `impl`: see `filter_case`.
    """
    case = LreluSpec(fu, fd, up, down, parse_padding(padding), gain, slope, clamp, flip_filter)
    return filter_case(x, b, case, impl)


def filter_case(x: Tensor, b: Tensor | None, case: LreluSpec, impl: str = "auto", out: Tensor | None = None) -> Tensor:
    """`filtered_lrelu` of a case. `impl` is "torch", "kernel" or "auto", which takes a kernel where it can: the CPU's,
    and the CUDA one if `SG3_CUDA_KERNEL=1` asks for it. `out` receives the result; no gradient flows then.
    """
    if impl not in ("auto", "torch", "kernel"):
        raise ValueError(f"impl must be auto, torch or kernel, not {impl!r}")
    if impl != "torch" and cpu_kernel.available() and cpu_kernel.covers(x, case):
        if out is None:
            return cpu_kernel.filtered_lrelu_kernel(x, b, case)
        cpu_kernel.forward_into(x, b, case, out)
        return out
    if impl != "torch" and cuda_kernel.usable(x, b, case, impl == "kernel"):
        return cuda_kernel.filtered_lrelu_cuda(x, b, case)
    if impl == "kernel":
        raise NotImplementedError("filtered_lrelu: no compiled kernel, or a case that it does not cover")
    y = _torch_path(x, b, case)
    return y if out is None else out.copy_(y)


def _torch_path(x: Tensor, b: Tensor | None, case: LreluSpec) -> Tensor:
    """The reference, in chunks of channels that are recomputed in the backward pass to keep memory small."""

    def run(chunk: Tensor, bias: Tensor | None) -> Tensor:
        if bias is not None:
            chunk = chunk + bias[:, None, None]
        chunk = upfirdn2d(chunk, case.fu, up=case.up, padding=case.pad, gain=case.up**2, flip_filter=case.flip)
        chunk = F.leaky_relu(chunk, case.slope) * case.gain
        if case.clamp is not None:
            chunk = chunk.clamp(-case.clamp, case.clamp)
        return upfirdn2d(chunk, case.fd, down=case.down, flip_filter=case.flip)

    n, channels, h, w = x.shape
    size = max(1, CHUNK_SAMPLES // max(1, n * h * w * case.up * case.up))
    if size >= channels:
        return run(x, b)
    biases = [None] * -(-channels // size) if b is None else list(torch.split(b, size))
    parts = zip(torch.split(x, size, dim=1), biases, strict=True)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(run, part, bias, use_reentrant=False) for part, bias in parts], dim=1)
    return torch.cat([run(part, bias) for part, bias in parts], dim=1)
