"""Time a generator, whole and by layer, against the floor that its arithmetic alone would take on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig, LayerSpec
from sg3cli.nets.ops import cpu_kernel, cuda_kernel
from sg3cli.nets.synthesis import SynthesisLayer

BUDGET = 60.0  # seconds after which a case is not run again


@dataclass(frozen=True)
class Timing:
    """Wall and processor seconds of the best of `runs` runs."""

    seconds: float
    cpu_seconds: float
    runs: int


@dataclass(frozen=True)
class LayerTiming:
    """Best seconds for one layer and one batch; None for an implementation that was not timed or is not here."""

    name: str
    torch: float | None
    kernel: float | None
    floor: float
    gflop: float


def bench_synthesis(G: Generator, batch: int = 1, backward: bool = False, repeats: int = 3) -> Timing:
    """Random codes to images; with `backward` also the gradients of the codes and of all weights."""
    device = next(G.parameters()).device
    ws = torch.randn(batch, G.num_ws, G.w_dim, device=device)
    if not backward:
        with torch.inference_mode():
            return best_run(lambda: G.synthesis(ws), repeats)
    inputs = [ws.requires_grad_(), *G.synthesis.requires_grad_().parameters()]
    slope = torch.randn(batch, G.config.img_channels, G.img_resolution, G.img_resolution, device=device)
    with torch.enable_grad():
        return best_run(lambda: torch.autograd.grad(G.synthesis(ws), inputs, slope), repeats)


def bench_layers(
    G: Generator,
    batch: int = 1,
    backward: bool = False,
    repeats: int = 3,
    torch_path: bool = True,
    rate: float | None = None,
) -> Iterator[LayerTiming]:
    """Run every layer of `G` on random activations, forward or forward and backward; `rate` is the `peak_rate`."""
    device = next(G.parameters()).device
    rate = rate or peak_rate(repeats, device)
    kernel = cpu_kernel.available() if device.type == "cpu" else cuda_kernel.switched_on()
    impls = [*(["torch"] if torch_path else []), *(["auto"] if kernel else [])]
    for layer in G.synthesis.layers():
        gflop = _gflop(layer_macs(layer.spec), batch, backward)
        seconds = {impl: _time_layer(layer, batch, backward, repeats, impl) for impl in impls}
        yield LayerTiming(layer.spec.name, seconds.get("torch"), seconds.get("auto"), gflop / rate, gflop)


def synthesis_gflop(config: GeneratorConfig, batch: int, backward: bool) -> float:
    """Operations of all layers and of the mix of the Fourier features, at least."""
    layers = config.layers()
    mix = layers[0].in_channels ** 2 * layers[0].in_size ** 2
    return _gflop(mix + sum(map(layer_macs, layers)), batch, backward)


def _gflop(macs: int, batch: int, backward: bool) -> float:
    """A multiply-add is two operations; the gradients of inputs and weights cost as much again, each."""
    return batch * macs * (6 if backward else 2) / 1e9


def layer_macs(spec: LayerSpec) -> int:
    """Multiply-adds of one image at least: convolution, polyphase up-sampling, down-sampling at kept samples.

    Every tap counts: a kernel that adds mirrored samples before it multiplies needs fewer and may beat the floor.
    """
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


def peak_rate(repeats: int = 3, device: torch.device | str = "cpu") -> float:
    """GFLOP/s of a large 3 x 3 convolution: the practical limit of this machine and number of threads, or of a GPU."""
    x, w = torch.randn(1, 512, 84, 84, device=device), torch.randn(512, 512, 3, 3, device=device)
    with torch.inference_mode():
        seconds = best_run(lambda: F.conv2d(x, w), repeats).seconds
    return 2 * 512 * 512 * 9 * 82 * 82 / seconds / 1e9


def _time_layer(layer: SynthesisLayer, batch: int, backward: bool, repeats: int, impl: str) -> float:
    spec, device = layer.spec, layer.weight.device
    x = torch.randn(batch, spec.in_channels, spec.in_size, spec.in_size, device=device, requires_grad=backward)
    s = torch.randn(batch, spec.in_channels, device=device, requires_grad=backward)

    def run() -> Tensor | tuple[Tensor, ...]:
        y = layer(x, s, impl=impl)
        return torch.autograd.grad(y, (x, s, layer.weight, layer.bias), torch.ones_like(y)) if backward else y

    if backward:
        layer.requires_grad_()
    with torch.set_grad_enabled(backward):
        return best_run(run, repeats).seconds


def best_run(run: Callable[[], object], repeats: int) -> Timing:
    """The best of `repeats` runs after one that warms up, or fewer when they take more than `BUDGET` seconds.

    If the warm-up alone takes so long, it is the run that counts.
    """
    began = time.perf_counter()
    warm_up = _timed(run)
    timings: list[tuple[float, float]] = []
    while len(timings) < repeats and time.perf_counter() - began < BUDGET:
        timings.append(_timed(run))
    seconds, cpu_seconds = min(timings, default=warm_up)
    return Timing(seconds, cpu_seconds, max(len(timings), 1))


def _timed(run: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds of one run, until a GPU has done what it was told as well."""
    _settle()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    _settle()
    return time.perf_counter() - wall, time.process_time() - cpu


def _settle() -> None:
    """Wait for the GPU, if one is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
