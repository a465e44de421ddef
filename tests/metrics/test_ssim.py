"""MS-SSIM against its definition, its order and its range."""

import pytest
import torch
from smooth_images import blurred, image

from sg3cli.metrics.ssim import ms_ssim


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
