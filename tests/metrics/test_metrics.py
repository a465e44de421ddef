"""Metrics: zero at equality, worse with damage, known values by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3cli.errors import ModelError, UsageError
from sg3cli.metrics import perceptual as perceptual_module
from sg3cli.metrics.perceptual import StructuralLoss, make_perceptual
from sg3cli.metrics.reconstruction import psnr, reconstruction_report
from sg3cli.metrics.ssim import ms_ssim
from sg3cli.metrics.temporal import flicker, identity_consistency, jitter, outside_difference, seam_error
from sg3cli.weights import store


def image(size: int = 64, seed: int = 0) -> torch.Tensor:
    """A smooth image with edges, [1, 3, size, size] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(rng.uniform(4, 14, 2) @ [x.ravel(), y.ravel()] + rng.uniform(0, 6)) for _ in range(3)]
    image = np.stack(waves).reshape(3, size, size) * 0.6 + 0.3 * (x > 0.5)
    return torch.from_numpy(image[None].astype(np.float32)).clamp(-1, 1)


def blurred(x: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        x = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return x


def test_structural_loss_is_zero_at_equality_and_grows_with_blur_and_noise():
    loss, x = StructuralLoss(), image()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert loss(x, x).item() == 0
    blur = [loss(blurred(x, n), x).item() for n in (0, 1, 4, 12)]
    noisy = [loss(x + s * noise, x).item() for s in (0, 0.02, 0.1, 0.4)]
    assert blur == sorted(blur) and blur[1] > 1e-4
    assert noisy == sorted(noisy) and noisy[1] > 1e-3


def test_structural_loss_sees_blur_where_mse_sees_brightness():
    x = image()
    brighter, smeared = x + 0.1, blurred(x, 4)
    assert (smeared - x).square().mean() < (brighter - x).square().mean()
    assert StructuralLoss()(smeared, x) > StructuralLoss()(brighter, x)


@pytest.mark.parametrize("case", ["equal", "flat", "noise"])
def test_structural_gradient_is_finite(case):
    x = image() if case != "flat" else torch.zeros(1, 3, 64, 64)
    y = (x + (0.3 * torch.randn(x.shape) if case == "noise" else 0)).clone().requires_grad_(True)
    StructuralLoss()(y, x).sum().backward()
    assert torch.isfinite(y.grad).all()
    if case == "equal":
        assert y.grad.abs().max() < 1e-6


def test_structural_loss_is_per_image_and_needs_no_size():
    a, b = torch.cat([image(40, 1), image(40, 2)]), torch.cat([image(40, 3), image(40, 2)])
    both = StructuralLoss()(a, b)
    assert both.shape == (2,) and both[1] == 0
    assert torch.allclose(both[:1], StructuralLoss()(a[:1], b[:1]), atol=1e-6)


def test_perceptual_choice_and_its_errors(monkeypatch, tmp_path):
    monkeypatch.setattr(perceptual_module.torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("SG3_MODELS", str(tmp_path / "models"))
    assert make_perceptual("structural").name == "structural"
    assert make_perceptual("auto").name == "structural"  # the cache is empty, and nothing is downloaded
    with pytest.raises(ModelError, match="LPIPS"):
        make_perceptual("lpips")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="fancy"):
        make_perceptual("fancy")


def test_a_failed_download_is_a_model_error_or_a_fall_back(monkeypatch, tmp_path):
    def refuse() -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(perceptual_module, "lpips_missing", lambda allow_pull: None)
    monkeypatch.setattr(perceptual_module, "LPIPSLoss", refuse)
    monkeypatch.setenv("SG3_MODELS", str(tmp_path))
    assert make_perceptual("auto", allow_pull=True).name == "structural"
    with pytest.raises(ModelError, match="no route"):
        make_perceptual("lpips", allow_pull=True)


def test_ms_ssim_against_a_direct_evaluation():
    """One scale (an image of 16 px allows no second one): luminance x structure from its definition."""
    a, b = image(16, 1), image(16, 2)
    x = torch.arange(11) - 5.0
    g = torch.exp(-(x**2) / (2 * 1.5**2))
    window = torch.outer(g, g) / g.sum() ** 2

    def moments(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        patches = (u * v)[0].unfold(1, 11, 1).unfold(2, 11, 1)
        return (patches * window).sum(dim=(-1, -2))

    one = torch.ones_like(a)
    measured = ms_ssim(a, b).item()
    a, b = a + 1, b + 1  # levels 0 to 2
    mu_a, mu_b = moments(a, one), moments(b, one)
    covariance = moments(a, b) - mu_a * mu_b
    variances = moments(a, a) - mu_a**2 + moments(b, b) - mu_b**2
    c1, c2 = 0.02**2, 0.06**2
    expected = (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1) * (2 * covariance + c2) / (variances + c2)
    assert measured == pytest.approx(expected.mean().clamp(min=0).item(), abs=1e-4)


def test_ms_ssim_order_and_range():
    x = image(192)
    values = [ms_ssim(blurred(x, n), x).item() for n in (0, 2, 8, 20)]
    assert values[0] == 1 and values == sorted(values, reverse=True) and values[-1] > 0
    with pytest.raises(ValueError, match="smaller"):
        ms_ssim(x[..., :8, :8], x[..., :8, :8])


def test_psnr_by_hand():
    a = np.zeros((4, 4, 3), dtype=np.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + 10) == pytest.approx(20 * np.log10(25.5))
    assert psnr(a, np.full_like(a, 255)) == pytest.approx(0)  # no wrap-around of uint8
    with pytest.raises(ValueError, match="shapes"):
        psnr(a, a[:2])


def test_reconstruction_report_skips_frames_without_a_face():
    levels = [np.full((32, 32, 3), v, dtype=np.uint8) for v in (100, 0, 120)]
    targets = [None if i == 1 else (x + 2.0 * i) / 127.5 - 1 for i, x in enumerate(levels)]
    report = reconstruction_report(targets, levels, StructuralLoss())
    assert report.frames.tolist() == [0, 2]
    assert report.psnr[0] > 90 and report.psnr[1] == pytest.approx(20 * np.log10(255 / 4), abs=0.01)
    summary = report.to_dict()
    assert summary["worst_frame"] == 2 and summary["perceptual"] == "structural"
    assert reconstruction_report(targets, levels).to_dict()["perceptual_mean"] is None
    assert reconstruction_report([None], levels[:1]).to_dict()["psnr_mean"] is None
    with pytest.raises(ValueError, match="no renders"):
        reconstruction_report(targets, levels[:2])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_jitter_ignores_uniform_motion_and_scales_with_acceleration(seed, k):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.uniform(0.02, 0.06, 12))  # variable frame rate
    start, velocity = rng.normal(size=(2, 68, 2)) * 30
    uniform = start + velocity * times[:, None, None]
    assert jitter(uniform, times) < 1e-6
    shake = rng.normal(size=(12, 68, 2))
    assert jitter(uniform + k * shake, times) == pytest.approx(k * jitter(shake, times), rel=1e-6)


def test_identity_consistency_is_one_for_the_identity_edit_and_falls_for_a_drift():
    rng = np.random.default_rng(0)
    source = rng.normal(size=16) + 0.05 * rng.normal(size=(10, 16))
    assert identity_consistency(source, 3 * source) == (pytest.approx(1), pytest.approx(1))
    drift = source + np.linspace(0, 2, 10)[:, None] * rng.normal(size=16)
    local, everywhere = identity_consistency(source, drift)
    assert everywhere < local < 1


def test_flicker_and_the_paste_figures():
    rng = np.random.default_rng(0)
    source = [np.full((20, 20, 3), 100 + 3 * t, dtype=np.uint8) for t in range(5)]
    assert flicker(source, source) == 0
    assert flicker(source, [x + 5 for x in source]) == 0  # a constant edit does not flicker
    assert flicker(source, [x + 10 * (t % 2) for t, x in enumerate(source)]) > 5
    alpha = np.zeros((20, 20), dtype=np.float32)
    alpha[5:15, 5:15], alpha[7:13, 7:13] = 0.5, 1
    hard = source[0].copy()
    hard[alpha > 0] += 30
    assert seam_error(source[0], source[0], alpha) == 0 < seam_error(source[0], hard, alpha)
    assert outside_difference(source[0], hard, alpha) == 0
    hard[0, 0] = rng.integers(0, 90, 3)
    assert outside_difference(source[0], hard, alpha) > 10


def test_lite0_is_a_distance_and_is_chosen_where_lpips_is_not(monkeypatch, tmp_path):
    """0 for equal images, more for more damage, differentiable; refused by name where the backbone is not here."""
    monkeypatch.setattr(perceptual_module, "lpips_missing", lambda allow_pull: "it is not here")
    if store.is_present("perceptual"):
        loss = make_perceptual("auto")
        assert loss.name == "lite0"
        x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
        blurred = [F.avg_pool2d(F.pad(x, (k,) * 4, mode="reflect"), 2 * k + 1, 1) for k in (1, 2)]
        values = [loss(y, x) for y in (x, *blurred)]
        assert values[0].abs().max() < 1e-6 and (values[1] < values[2]).all() and values[2].shape == (2,)
        leaf = blurred[0].clone().requires_grad_()
        loss(leaf, x).sum().backward()
        assert leaf.grad.abs().sum() > 0
    monkeypatch.setenv("SG3_MODELS", str(tmp_path))
    assert make_perceptual("auto").name == "structural"
    with pytest.raises(ModelError, match="perceptual"):
        make_perceptual("lite0")
