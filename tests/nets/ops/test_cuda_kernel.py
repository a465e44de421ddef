"""The CUDA kernel against the torch path: emulated on the CPU, compiled by NVRTC where it is, on a GPU with -m gpu."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cuda_emulator import COMPILER, Emulator
from torch import Tensor

from sg3cli.nets import ops
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.nets.ops import cuda_kernel, cuda_launch, cuda_self_check, nvrtc
from sg3cli.nets.ops.cuda_launch import Pass
from sg3cli.nets.ops.lrelu_spec import LreluSpec

# up, down, taps of both filters, full, residue of the padding, flipped: the layers of configurations T and R first.
KINDS = [
    (2, 2, 12, 12, False, 1, 1, False),
    (4, 2, 24, 12, False, 2, 2, False),
    (2, 2, 12, 12, True, 3, 3, False),
    (4, 2, 24, 12, True, 2, 2, False),
    (4, 4, 22, 21, False, 3, 0, True),  # and some that no layer has
    (1, 2, 1, 11, True, 0, 3, True),
    (2, 1, 9, 1, False, 0, 1, False),
]
TYPES = [torch.float32, torch.float16, torch.bfloat16]
CPU = torch.device("cpu")
TOLERANCE = 5e-6  # of the largest value


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    return Emulator(tmp_path_factory.mktemp("emulator"))


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch, compiled: Emulator) -> Iterator[Emulator]:
    """The operator runs on tensors of the CPU, in tiles so small that small images have seams."""
    if COMPILER is None:
        pytest.skip("no g++ to emulate a GPU with")
    monkeypatch.setattr(cuda_launch, "launch", compiled.launch)
    monkeypatch.setattr(cuda_launch, "TILES", (8,))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the images are too small to share
    yield compiled
    torch.set_num_threads(threads)


@pytest.fixture
def doubted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is trusted yet, and nothing is switched on."""
    monkeypatch.delenv("SG3_KERNEL", raising=False)
    monkeypatch.delenv("SG3_CUDA_KERNEL", raising=False)
    monkeypatch.setattr(cuda_kernel, "_refused", False)
    cuda_kernel._trusted.cache_clear()
    yield
    cuda_kernel._trusted.cache_clear()


def relative(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return float((actual - expected).detach().abs().max() / expected.detach().abs().max())


def through_cuda(x: Tensor, fu: Tensor | None, fd: Tensor | None, b: Tensor | None, *numbers: Any) -> Tensor:
    """The kernel with the arguments of `filtered_lrelu`."""
    return cuda_kernel.filtered_lrelu_cuda(x, b, LreluSpec(fu, fd, *numbers))


def covered(x: Tensor, fu: Tensor | None, fd: Tensor | None, b: Tensor | None, *numbers: Any) -> bool:
    return cuda_kernel.covers(x, b, LreluSpec(fu, fd, *numbers))


def filters(full: bool = True) -> tuple[Tensor, Tensor]:
    """Filters of a layer that doubles the rate, as designed."""
    fu = ops.design_lowpass_filter(12, 4, 4, 32)
    fd = ops.design_lowpass_filter(12, 5, 4, 32, radial=full)
    assert fu is not None and fd is not None
    return fu, fd


def outcomes(x: Tensor, fu: Tensor, fd: Tensor, b: Tensor | None, pad: tuple[int, ...]) -> list[tuple[Tensor, ...]]:
    """Output and gradients through the torch path, then through the kernel; a clamp that is active."""
    case, results = (2, 2, pad, 2**0.5, 0.2, 0.7, False), []
    for run in (lambda *given: ops.filtered_lrelu(*given, impl="torch"), through_cuda):
        leaf = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        inputs = [leaf] if b is None else [leaf, b.detach().clone().requires_grad_()]
        y = run(leaf, fu, fd, None if b is None else inputs[1], *case)
        slope = torch.randn(y.shape, generator=torch.Generator().manual_seed(3)).to(y.device)
        results.append((y, *torch.autograd.grad(y, inputs, slope)))
    return results


# ---- emulated


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_of_layer(emulated: Emulator, kind: tuple) -> None:
    assert cuda_self_check.check_cuda(CPU, torch.float32, *kind) is None


@pytest.mark.parametrize("dtype", TYPES[1:])
def test_half_precision(emulated: Emulator, dtype: torch.dtype) -> None:
    assert cuda_self_check.check_cuda(CPU, dtype, *KINDS[2]) is None


@pytest.mark.parametrize("dtype", TYPES)
def test_every_value_survives_the_conversion(emulated: Emulator, dtype: torch.dtype) -> None:
    """Through a layer that changes nothing: subnormal, largest, rounded to even, infinite and not a number."""
    info, one = torch.finfo(dtype), torch.ones(1)
    special = [0.0, 1.0, info.max, info.tiny, info.tiny / 2, info.smallest_normal * info.eps, torch.inf, torch.nan]
    x = torch.tensor(special + [-v for v in special]).to(dtype).view(1, 1, 4, 4)
    y = through_cuda(x, one, None, None, 1, 1, (0,) * 4, 1.0, 1.0, None, False)
    assert torch.equal(y.nan_to_num(7.0), x.nan_to_num(7.0))
    if dtype != torch.float32:  # nine times such numbers: exact before they are rounded, and every second one a tie
        x = torch.arange(16, dtype=torch.float32).mul(info.eps).add(1).view(1, 1, 4, 4).to(dtype)
        y = through_cuda(x, 3 * one, None, None, 1, 1, (0,) * 4, 1.0, 1.0, None, False)
        assert torch.equal(y, (x.float() * 9).to(dtype))


@pytest.mark.parametrize(
    "size, pad", [((11, 14), (11, 10, 9, 8)), ((21, 19), (-3, -1, 7, -5)), ((1, 30), (9, 8, 11, 12))]
)
def test_gradients_at_any_size_and_padding(emulated: Emulator, size: tuple[int, int], pad: tuple[int, ...]) -> None:
    x, b = torch.randn(2, 3, *size), torch.randn(3)
    for expected, actual in zip(*outcomes(x, *filters(), b, pad), strict=True):
        assert relative(actual, expected) < TOLERANCE


def test_layouts_and_missing_bias(emulated: Emulator) -> None:
    fu, fd = filters(full=False)
    x = torch.randn(2, 4, 12, 13).to(memory_format=torch.channels_last)
    for expected, actual in zip(*outcomes(x, fu, fd, None, (11, 10, 11, 10)), strict=True):
        assert relative(actual, expected) < TOLERANCE
    leaf = x.detach().requires_grad_()
    y = through_cuda(leaf, fu, fd, None, 2, 2, (11, 10, 11, 10), 1.4, 0.2, None, False)
    (strided,) = torch.autograd.grad(y.sum(), leaf)  # the incoming gradient is one expanded number
    reference = ops.filtered_lrelu(leaf, fu, fd, None, 2, 2, (11, 10, 11, 10), 1.4, impl="torch")
    assert relative(strided, torch.autograd.grad(reference.sum(), leaf)[0]) < TOLERANCE


def test_tiles_as_large_as_on_a_device(emulated: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_launch, "TILES", (32, 24, 16))
    assert cuda_self_check.check_cuda(CPU, torch.float32, *KINDS[3]) is None


def test_nan_is_not_hidden_and_stays_where_it_is(emulated: Emulator) -> None:
    x = torch.zeros(1, 1, 40, 40)
    x[0, 0, 20, 20] = torch.nan
    y = through_cuda(x, *filters(), None, 2, 2, (11, 10, 11, 10), 1.0, 0.2, 1.0, False)
    assert y[0, 0, 20, 20].isnan() and not y[0, 0, 0, 0].isnan()


def test_a_mask_is_kept_only_for_a_gradient(emulated: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    modes, launch = [], cuda_launch.launch
    monkeypatch.setattr(cuda_launch, "launch", lambda work, *rest: modes.append(work.mode) or launch(work, *rest))
    x, case = torch.randn(1, 1, 9, 9), (None, 2, 2, (11, 10, 11, 10), 1.0, 0.2, None, False)
    y = through_cuda(x, *filters(), *case)
    leaf = x.clone().requires_grad_()
    with torch.no_grad():
        assert torch.equal(through_cuda(leaf, *filters(), *case), y)
    marked = through_cuda(leaf, *filters(), *case)
    assert torch.equal(marked, y) and modes == [0, 0, 1]
    (gradient,) = torch.autograd.grad(marked.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(gradient.sum(), leaf)


def test_the_operator_keeps_torchs_rules(emulated: Emulator) -> None:
    """Schema, fake kernel, autograd registration."""
    x = torch.randn(1, 3, 9, 9, requires_grad=True)
    full = (x, *filters(), torch.randn(3), 2, 2, [11, 10, 11, 10], 1.4, 0.2, None, False, True)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.sg3cli.filtered_lrelu_cuda, full, test_utils=tests)


# ---- what it is compiled for, and with what


def passes(config: GeneratorConfig) -> Iterator[Pass]:
    """All passes of a generator's layers, float32."""
    for spec in config.layers():
        if spec.up_taps > 1 or spec.down_taps > 1:
            phase = (spec.up_taps - 1 - spec.padding[0]) % spec.up
            back = (spec.padding[0] + 1 - spec.up_taps) % spec.down
            taps, full = (spec.up_taps, spec.down_taps), spec.down_radial
            for mode in (cuda_launch.ACTIVATE, cuda_launch.MARK):
                yield Pass(spec.up, spec.down, *taps, False, full, False, True, phase, phase, mode, 0)
            yield Pass(spec.down, spec.up, *taps[::-1], full, False, True, False, back, back, 2, 0)


OFFICIAL = {
    p
    for make in (GeneratorConfig.stylegan3_t, GeneratorConfig.stylegan3_r)
    for n in (256, 512, 1024)
    for p in passes(make(n))
}


def test_the_tiles_of_the_official_layers_fit_into_a_block() -> None:
    assert len(OFFICIAL) == 12  # so many compilations at most, for a type
    for work in OFFICIAL:
        assert work.tile >= 16 and work._shared_bytes(work.tile) <= 48 * 1024


@pytest.mark.skipif(torch.version.cuda is None, reason="this build of torch brings no NVRTC")
@pytest.mark.parametrize("work", sorted(OFFICIAL, key=str)[::3], ids=str)
def test_nvrtc_takes_the_source(work: Pass) -> None:
    options = [f"-D{name}={value}" for name, value in work.macros().items()]
    assert len(nvrtc.compile_cubin(cuda_launch.SOURCE.read_text(), options, (9, 0))) > 1000
    assert b".target" in nvrtc.compile_cubin(cuda_launch.SOURCE.read_text(), options, (99, 0))  # a GPU of the future
    with pytest.raises(nvrtc.CudaError, match="refused"):
        nvrtc.compile_cubin("int f( {", [], (9, 0))


def test_without_nvrtc_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(nvrtc.CudaError, match="no CUDA"):
        nvrtc.library.__wrapped__()
    monkeypatch.setattr(torch.version, "cuda", "99.0")
    monkeypatch.setattr(nvrtc, "_candidates", lambda major: [f"libnvrtc.so.{major}", "libc.so.6"])
    with pytest.raises(nvrtc.CudaError, match="not found"):
        nvrtc.library.__wrapped__()


# ---- switched on or off


def test_off_unless_asked_for(doubted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not cuda_kernel.switched_on(False)
    assert cuda_kernel.switched_on(True)  # impl="kernel"
    monkeypatch.setenv("SG3_CUDA_KERNEL", "1")
    assert cuda_kernel.switched_on(False)
    monkeypatch.setenv("SG3_KERNEL", "off")
    assert not cuda_kernel.switched_on(True)
    x = torch.randn(1, 1, 9, 9)
    assert not cuda_kernel.usable(x, None, LreluSpec(*filters(), 2, 2, (11, 10, 11, 10), 1.0), True)  # not on a CPU


def test_a_kind_that_fails_its_check_costs_one_notice(
    doubted: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checked: list[tuple] = []
    answers = iter([None, "relative error 1.0e-01"])
    monkeypatch.setattr(cuda_kernel, "check_cuda", lambda *kind: checked.append(kind) or next(answers))
    with caplog.at_level(logging.WARNING, logger="sg3cli.ops"):
        assert all(cuda_kernel._trusted(0, torch.float32, *KINDS[0]) for _ in range(3))
        assert cuda_kernel.switched_on(True) and cuda_kernel.in_use()
        assert not any(cuda_kernel._trusted(0, torch.float32, *KINDS[1]) for _ in range(3))
    assert len(checked) == 2 and len(caplog.records) == 1 and "relative error" in caplog.text
    assert not cuda_kernel.switched_on(True) and not cuda_kernel.in_use()  # nothing else is tried


def test_a_check_that_cannot_be_made_costs_one_notice(
    doubted: None, emulated: Emulator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise nvrtc.CudaError("NVRTC refused the source")

    monkeypatch.setattr(cuda_launch, "launch", refuse)
    monkeypatch.setattr(torch, "device", lambda *_: CPU)
    assert not cuda_kernel._trusted(0, torch.float32, *KINDS[0])
    assert len(caplog.records) == 1 and "NVRTC refused" in caplog.text


def test_the_check_finds_a_wrong_result(emulated: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = cuda_launch.launch

    def slightly_wrong(work: Pass, problem: cuda_launch.Problem, *rest: object) -> None:
        problem.slope += 1e-3
        launch(work, problem, *rest)

    monkeypatch.setattr(cuda_launch, "launch", slightly_wrong)
    assert "up 2, down 2, separable" in str(cuda_self_check.check_cuda(CPU, torch.float32, *KINDS[0]))


def test_what_it_does_not_cover() -> None:
    x, f, b = torch.randn(1, 2, 20, 20), filters()[0], torch.randn(2)
    pad = (9, 8, 9, 8)
    lopsided, oblong = torch.outer(f, f), torch.ones(12, 11)
    assert covered(x, f, lopsided, b, 2, 2, pad, 1.0)  # a full filter need not be mirrored
    assert covered(x.half(), f, f, b.half(), 2, 2, pad, 1.0)
    for case in (
        (x.double(), f, f, None, 2, 2, pad, 1.0),
        (x, f, oblong, None, 2, 2, pad, 1.0),
        (x, lopsided, f, None, 2, 2, pad, 1.0),
        (x, f, f, None, 3, 2, pad, 1.0),
        (x, f, f, None, 1, 2, pad, 1.0),  # too many taps
        (x, None, None, None, 1, 1, pad, 1.0),
        (x.half(), f, f, b, 2, 2, pad, 1.0),  # torch would answer in float32
        (x, f, f, None, 2, 2, (-20, -20, 0, 0), 1.0),
    ):
        assert not covered(*case)


# ---- on a device


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda", torch.cuda.current_device())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_on_a_device(device: torch.device, kind: tuple, dtype: torch.dtype) -> None:
    assert cuda_self_check.check_cuda(device, dtype, *kind) is None


@pytest.mark.gpu
def test_gradients_of_a_layer_on_a_device(device: torch.device) -> None:
    torch.backends.cudnn.allow_tf32 = False
    x, b = torch.randn(2, 5, 70, 83, device=device), torch.randn(5, device=device)
    fu, fd = (f.to(device) for f in filters())
    for expected, actual in zip(*outcomes(x, fu, fd, b, (11, 10, 3, 7)), strict=True):
        assert relative(actual, expected) < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [GeneratorConfig.stylegan3_t, GeneratorConfig.stylegan3_r])
def test_a_generator_on_a_device(
    device: torch.device, doubted: None, monkeypatch: pytest.MonkeyPatch, shape: type, caplog: pytest.LogCaptureFixture
) -> None:
    """Switched on, a whole generator computes the same images and gradients, and no notice is given."""
    G = Generator(shape(64, channel_base=1024)).to(device).requires_grad_(False)
    ws, results = torch.randn(2, G.num_ws, G.w_dim, device=device, requires_grad=True), []
    monkeypatch.setenv("SG3_CUDA_KERNEL", "1")
    for impl in ("torch", "auto"):
        G.synthesis.impl = impl
        image = G.synthesis(ws)
        results.append((image, *torch.autograd.grad(image.square().sum(), ws)))
    assert not caplog.records and cuda_kernel.in_use()
    for expected, actual in zip(*results, strict=True):
        assert relative(actual, expected) < 1e-3
