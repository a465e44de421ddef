"""Operators against golden numbers: filter design, resampling, filtered leaky ReLU, modulated convolution."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from running import GOLDEN

from sg3cli.nets import ops
from sg3cli.nets.ops import modulated_conv

TOLERANCE = 2e-6  # of the largest value of an array


def golden(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Parameters and arrays of one golden file."""
    with np.load(GOLDEN / f"B_{name}.npz") as data:
        arrays = {k: torch.from_numpy(data[k]) for k in data}
    return json.loads((GOLDEN / f"B_{name}.json").read_text()), arrays


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max() / expected.double().abs().max().clamp_min(1e-30)
    assert error <= TOLERANCE, f"relative error {error:.2e}"


DESIGN, DESIGN_TAPS = golden("filter_design")
LRELU, LRELU_ARRAYS = golden("filtered_lrelu")
UPFIRDN, UPFIRDN_ARRAYS = golden("upfirdn2d")
CONV, CONV_ARRAYS = golden("modulated_conv")


@pytest.mark.parametrize("name", DESIGN)
def test_filter_design(name: str) -> None:
    p = dict(DESIGN[name])
    if p.pop("identity"):
        assert ops.design_lowpass_filter(**p) is None
    else:
        assert_close(ops.design_lowpass_filter(**p), DESIGN_TAPS[name])


@pytest.mark.parametrize("name", UPFIRDN)
def test_upfirdn2d(name: str) -> None:
    a = {k.split("/")[1]: v for k, v in UPFIRDN_ARRAYS.items() if k.startswith(name + "/")}
    x = a["x"].requires_grad_()
    y = ops.upfirdn2d(x, a["f"], **UPFIRDN[name])
    assert_close(y, a["y"])
    assert_close(torch.autograd.grad(y, x, a["dy"])[0], a["dx"])


def test_resampling_shortcuts() -> None:
    a = UPFIRDN_ARRAYS
    f = ops.setup_filter([1, 3, 3, 1])
    assert_close(f, a["setup_filter/out"])
    for name in ("upsample2d", "downsample2d", "filter2d"):
        assert_close(getattr(ops, name)(a[f"{name}/x"], f), a[f"{name}/y"])


@pytest.mark.parametrize("impl", ["torch", "auto"])
@pytest.mark.parametrize("name", LRELU)
def test_filtered_lrelu(name: str, impl: str) -> None:
    p = {k: v for k, v in LRELU[name].items() if not k.endswith("_shape")}
    a = {k.split("/")[1]: v for k, v in LRELU_ARRAYS.items() if k.startswith(name + "/")}
    x, b = a["x"].requires_grad_(), a["b"].requires_grad_()
    y = ops.filtered_lrelu(x, a.get("fu"), a.get("fd"), b, impl=impl, **p)
    assert_close(y, a["y_f64"])
    dx, db = torch.autograd.grad(y, (x, b), a["dy"])
    assert_close(dx, a["dx_f64"])
    assert_close(db, a["db"])


@pytest.mark.parametrize("batch", [2, 1])
@pytest.mark.parametrize("name", CONV)
def test_modulated_conv(name: str, batch: int) -> None:
    p = CONV[name]
    a = {k.split("/")[1]: v for k, v in CONV_ARRAYS.items() if k.startswith(name + "/")}
    if batch == 1:  # the same numbers through the one-sample form: a batch of one scales the style otherwise
        a = {k: v[:1] if k in ("x", "s") or (k == "input_gain" and v.ndim == 2) else v for k, v in a.items()}
    x, w, s = (a[k].requires_grad_() for k in ("x", "w", "s"))
    y = ops.modulated_conv2d(x, w, s, p["demodulate"], p["padding"], a.get("input_gain"))
    if batch == 1:
        assert_close(y, a["y"][:1])
        return
    assert_close(y, a["y"])
    for gradient, name_ in zip(torch.autograd.grad(y, (x, w, s), a["dy"]), ("dx", "dw", "ds"), strict=True):
        assert_close(gradient, a[name_])


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("k, padding", [(1, 0), (3, 2), (3, 0), (1, 1)])
def test_large_convolutions_are_the_same_in_little_memory(
    monkeypatch: pytest.MonkeyPatch, grad: bool, k: int, padding: int
) -> None:
    """Strips of three rows and a part of one; with gradients, also those."""
    g = torch.Generator().manual_seed(k + padding)
    x = torch.randn(2, 5, 16, 9, generator=g).requires_grad_(grad)
    w = torch.randn(4, 5, k, k, generator=g).requires_grad_(grad)
    expected = F.conv2d(x, w, padding=padding)
    monkeypatch.setattr(modulated_conv, "LARGE", 0)
    monkeypatch.setattr(modulated_conv, "STRIP", 4 * 2 * 5 * 9 * 3)
    y = modulated_conv.convolve(x, w, padding)
    assert y.shape == expected.shape and torch.allclose(y, expected, atol=1e-5)
    if grad:
        slope = torch.randn(y.shape, generator=g)
        pairs = zip(*(torch.autograd.grad(out, (x, w), slope) for out in (y, expected)), strict=True)
        assert all(torch.allclose(a, b, atol=1e-4) for a, b in pairs)


def test_a_crop_that_reaches_into_what_is_padded_on_the_other_side() -> None:
    """More is cut off on the left than the filtered image holds; the right is padded by more."""
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    y = ops.upfirdn2d(x, torch.ones(2), up=4, padding=(-9, 22, 4, 21))
    wide = ops.upfirdn2d(x, torch.ones(2), up=4, padding=(0, 22, 4, 21))
    assert torch.equal(y, wide[..., 9:])
