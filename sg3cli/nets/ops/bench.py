"""Time every synthesis layer: compiled kernel, plain torch, and the floor that the arithmetic alone would take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.generator import Generator
from sg3cli.nets.ops import cpu_kernel
from sg3cli.nets.synthesis import SynthesisLayer


@dataclass(frozen=True)
class LayerTiming:
    """Best seconds for one layer and one batch; `kernel` is None where the machine has no compiled kernel."""

    name: str
    torch: float
    kernel: float | None
    floor: float
    gflop: float


def bench_layers(G: Generator, batch: int = 1, backward: bool = False, repeats: int = 3) -> Iterator[LayerTiming]:
    """Run every layer of `G` on random activations, forward or forward and backward."""
    rate = peak_rate(repeats)
    for layer in G.synthesis.layers():
        gflop = batch * layer_macs(layer) * (6 if backward else 2) / 1e9
        seconds = {impl: _time_layer(layer, batch, backward, repeats, impl) for impl in _implementations()}
        yield LayerTiming(layer.spec.name, seconds["torch"], seconds.get("auto"), gflop / rate, gflop)


def layer_macs(layer: SynthesisLayer) -> int:
    """Multiply-adds of one image at least: convolution, polyphase up-sampling, down-sampling at kept samples."""
    spec = layer.spec
    size = spec.in_size + spec.conv_kernel - 1
    grid = (spec.out_size - 1) * spec.down + spec.down_taps
    macs = spec.in_channels * spec.out_channels * spec.conv_kernel**2 * size**2
    if spec.up > 1:
        taps = spec.up_taps // spec.up
        macs += spec.out_channels * taps * grid * (size + grid)
    if spec.down > 1:
        square = spec.down_taps**2 if spec.down_radial else 0
        per_row = spec.down_taps * (grid + spec.out_size)
        macs += spec.out_channels * spec.out_size * (square * spec.out_size if square else per_row)
    return macs


def peak_rate(repeats: int = 3) -> float:
    """GFLOP/s of a large 3 x 3 convolution: the practical limit of this machine and number of threads."""
    x, w = torch.randn(1, 256, 64, 64), torch.randn(256, 256, 3, 3)
    with torch.no_grad():
        seconds = _best(lambda: F.conv2d(x, w), repeats)
    return 2 * 256 * 256 * 9 * 62 * 62 / seconds / 1e9


def _implementations() -> tuple[str, ...]:
    return ("torch", "auto") if cpu_kernel.available() else ("torch",)


def _time_layer(layer: SynthesisLayer, batch: int, backward: bool, repeats: int, impl: str) -> float:
    spec = layer.spec
    x = torch.randn(batch, spec.in_channels, spec.in_size, spec.in_size, requires_grad=backward)
    s = torch.randn(batch, spec.in_channels, requires_grad=backward)

    def run() -> Tensor | tuple[Tensor, ...]:
        y = layer(x, s, impl=impl)
        return torch.autograd.grad(y, (x, s, layer.weight, layer.bias), torch.ones_like(y)) if backward else y

    with torch.set_grad_enabled(backward):
        return _best(run, repeats)


def _best(run: Callable[[], object], repeats: int) -> float:
    """Best wall seconds of `repeats` runs after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)
