"""The compiled filtered leaky ReLU against the torch path: values, gradients, layouts, threads, tracing."""

from __future__ import annotations

import sys

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sg3cli.nets import ops
from sg3cli.nets.ops import cpu_kernel
from sg3cli.nets.ops.lrelu_spec import LreluSpec

pytestmark = pytest.mark.skipif(not cpu_kernel.available(), reason="no compiled kernel here")

TOLERANCE = 5e-6  # of the largest value


@pytest.fixture(autouse=True)
def one_thread():
    """The images are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def relative(actual: Tensor, expected: Tensor, usual: float = 1e-20) -> float:
    """The largest error over the largest value, or over how large it `usual`ly is."""
    assert actual.shape == expected.shape
    return float((actual - expected).detach().abs().max() / expected.detach().abs().max().clamp_min(usual))


def usual_sum(terms: Tensor) -> float:
    """How large the sum of terms [N,C,H,W] over all but C is if they have random signs; one may come out near 0."""
    return float(terms.detach().square().sum((0, 2, 3)).sqrt().max())


def taps(generator: torch.Generator, count: int) -> Tensor:
    """An asymmetric filter: mistakes of direction and phase show."""
    f = torch.rand([count], generator=generator) + 0.1
    return f / f.sum()


def radial(seed: int) -> Tensor:
    return ops.design_lowpass_filter(12, 4 + seed % 5, 8, 32, radial=True)


def both(x: Tensor, b: Tensor | None, *args, **kwargs) -> list[tuple[Tensor, ...]]:
    """Output and gradients through the torch path, then through the kernel."""
    results = []
    for impl in ("torch", "kernel"):
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        bias = None if b is None else b.detach().clone().requires_grad_()
        y = ops.filtered_lrelu(leaf, args[0], args[1], bias, *args[2:], **kwargs, impl=impl)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
        inputs = (leaf,) if bias is None else (leaf, bias)
        results.append((y, *torch.autograd.grad(y, inputs, dy)))
    return results


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@example(4, 4, False, (27, 27), (0, 0, 0, 0), 0.4, False, 88100)  # a sample at a kink
@given(
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.tuples(st.integers(1, 30), st.integers(1, 30)),
    st.tuples(*[st.integers(-20, 30)] * 4),
    st.sampled_from([None, 0.4, 256.0]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_matches_torch(up, down, full, size, pad, clamp, flip, seed) -> None:
    g = torch.Generator().manual_seed(seed)
    count = [int(torch.randint(1, 6 * n + 1, [], generator=g)) for n in (up, down)]
    full = full and down == 2
    fu, fd = taps(g, count[0]), radial(seed) if full else taps(g, count[1])
    x, b = torch.randn([2, 2, *size], generator=g), torch.randn([2], generator=g)
    assume(min(LreluSpec(fu, fd, up, down, pad).sizes(*size)) > 0)
    assume(all(min(p0, 0) + min(p1, 0) + up * n > 0 for p0, p1, n in zip(pad[::2], pad[1::2], size[::-1], strict=True)))
    torch_path, kernel = both(x, b, fu, fd, up, down, pad, 1.3, 0.2, clamp, flip)
    for expected, actual in zip(torch_path[:2], kernel[:2], strict=True):
        # The two sum in another order: a sample within rounding of a kink may fall on the other side of it.
        assert relative(actual, expected) < TOLERANCE or kink_is_near(actual, expected)
    usual = max(usual_sum(torch_path[1]), 1e-20)  # the bias's gradient is a sum: one such sample changes it
    assert relative(kernel[2], kernel[1].double().sum((0, 2, 3)).float(), usual) < TOLERANCE
    if relative(kernel[1], torch_path[1]) < TOLERANCE:
        assert relative(kernel[2], torch_path[2], usual) < TOLERANCE


def kink_is_near(actual: Tensor, expected: Tensor) -> bool:
    """Differences from a flipped kink are rare and confined to the samples that one filter reaches."""
    wrong = (actual - expected).abs() > TOLERANCE * expected.abs().max()
    return float(wrong.float().mean()) < 0.02


@pytest.mark.parametrize("up,fd", [(2, radial(0)), (2, taps(torch.Generator().manual_seed(1), 12)), (4, radial(1))])
def test_layer_sized(up: int, fd: Tensor) -> None:
    """Several bands of rows, odd widths, more channels than one."""
    x, b = torch.randn(1, 3, 70, 83), torch.randn(3)
    fu = ops.design_lowpass_filter(6 * up, 4, 4, 16 * up)
    for expected, actual in zip(*both(x, b, fu, fd, up, 2, (11, 10, 3, 7), clamp=1.5), strict=True):
        assert relative(actual, expected) < TOLERANCE


def test_layouts_and_missing_bias() -> None:
    fu, fd = taps(torch.Generator().manual_seed(1), 12), radial(0)
    x = torch.randn(2, 4, 20, 22).to(memory_format=torch.channels_last)
    for expected, actual in zip(*both(x, None, fu, fd, 2, 2, (11, 10, 11, 10)), strict=True):
        assert relative(actual, expected) < TOLERANCE
    leaf = x.detach().requires_grad_()
    y = ops.filtered_lrelu(leaf, fu, fd, None, 2, 2, (11, 10, 11, 10), impl="kernel")
    (strided,) = torch.autograd.grad(y.sum(), leaf)  # the incoming gradient is one expanded number
    reference = ops.filtered_lrelu(leaf, fu, fd, None, 2, 2, (11, 10, 11, 10), impl="torch")
    assert relative(strided, torch.autograd.grad(reference.sum(), leaf)[0]) < TOLERANCE


def test_same_bits_for_any_number_of_threads() -> None:
    fu, fd, x = taps(torch.Generator().manual_seed(1), 24), radial(0), torch.randn(2, 5, 30, 31)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(both(x, torch.ones(5), fu, fd, 4, 2, (-2, -5, -2, -5))[1])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nan_is_not_hidden() -> None:
    x = torch.zeros(1, 1, 40, 40)
    x[0, 0, 20, 20] = torch.nan
    f = radial(0)
    y = ops.filtered_lrelu(x, f[0] / f[0].sum(), f, None, 2, 2, (11, 10, 11, 10), clamp=1, impl="kernel")
    assert y[0, 0, 20, 20].isnan()
    assert not y[0, 0, 0, 0].isnan()


def test_what_it_does_not_cover_goes_to_torch() -> None:
    x, f = torch.randn(1, 2, 20, 20), taps(torch.Generator().manual_seed(1), 12)
    lopsided = torch.outer(f, f)
    for case in ((x.double(), f, f, 2), (x, f, lopsided, 2), (x, lopsided, f, 2), (x, f, f, 3), (x, None, None, 1)):
        value, fu, fd, up = case
        arguments = (value, fu, fd, None, up, 1 if fd is None else 2, (9, 8, 9, 8))
        with pytest.raises(NotImplementedError):
            ops.filtered_lrelu(*arguments, impl="kernel")
        assert torch.equal(ops.filtered_lrelu(*arguments), ops.filtered_lrelu(*arguments, impl="torch"))


def test_second_derivative() -> None:
    f, x = radial(0), torch.randn(1, 1, 5, 6, dtype=torch.double, requires_grad=True)
    fu = taps(torch.Generator().manual_seed(1), 12)

    def run(x: Tensor) -> Tensor:
        return ops.filtered_lrelu(x, fu, f, None, 2, 2, (11, 10, 11, 10)).square()

    assert torch.autograd.gradcheck(run, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, x, fast_mode=True)
    single = x.detach().float().requires_grad_()
    (gradient,) = torch.autograd.grad(run(single).sum(), single, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(gradient.sum(), single)


def test_torch_path_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    fu, fd, b = taps(torch.Generator().manual_seed(1), 12), radial(0), torch.randn(5, requires_grad=True)
    x = torch.randn(2, 5, 12, 12, requires_grad=True)

    def run() -> tuple[Tensor, ...]:
        y = ops.filtered_lrelu(x, fu, fd, b, 2, 2, (11, 10, 11, 10), impl="torch")
        return y, *torch.autograd.grad(y.square().sum(), (x, b))

    whole = run()
    monkeypatch.setattr(sys.modules["sg3cli.nets.ops.filtered_lrelu"], "CHUNK_SAMPLES", 2 * 12 * 12 * 4 * 2)
    for expected, actual in zip(whole, run(), strict=True):
        assert relative(actual, expected) < 1e-6


def test_traced_without_a_break() -> None:
    fu, fd, b = taps(torch.Generator().manual_seed(1), 12), radial(0), torch.randn(3)

    def run(x: Tensor) -> Tensor:
        return ops.filtered_lrelu(x * 2, fu, fd, b, 2, 2, (11, 10, 11, 10)).sin()

    x = torch.randn(1, 3, 9, 9)
    assert torch.equal(torch.compile(run, fullgraph=True, backend="eager")(x), run(x))
    full = (x.requires_grad_(), fu, fd, b, 2, 2, [11, 10, 11, 10], 1.4, 0.2, None, False, True)
    torch.library.opcheck(torch.ops.sg3cli.filtered_lrelu, full)


def test_bench_counts_and_times_each_layer() -> None:
    from sg3cli.benchmark.layers import bench_layers
    from sg3cli.nets.generator import Generator
    from sg3cli.nets.generator_config import GeneratorConfig

    config = GeneratorConfig(z_dim=32, img_resolution=32, channel_base=512, channel_max=16, num_layers=4, w_dim=32)
    G = Generator(config)
    timings = list(bench_layers(G, backward=True, repeats=1))
    assert [t.name for t in timings] == list(G.layer_names)
    assert all(t.kernel and t.torch > 0 and t.floor > 0 for t in timings)
