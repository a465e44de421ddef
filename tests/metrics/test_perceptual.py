"""Perceptual losses: zero at equality, more with damage, and which one is chosen."""

import pytest
import torch
import torch.nn.functional as F
from smooth_images import blurred, image

from sg3cli.errors import ModelError, UsageError
from sg3cli.metrics import perceptual as perceptual_module
from sg3cli.metrics.perceptual import StructuralLoss, make_perceptual
from sg3cli.weights import store


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
        described = [torch.cat(maps) for maps in zip(*(loss.describe(image[None]) for image in x), strict=True)]
        assert torch.allclose(loss.compare(blurred[0], described), values[1], rtol=1e-4)
    monkeypatch.setenv("SG3_MODELS", str(tmp_path))
    assert make_perceptual("auto").name == "structural"
    with pytest.raises(ModelError, match="perceptual"):
        make_perceptual("lite0")
