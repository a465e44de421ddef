"""Structural similarity of image batches, at one scale and at several (Wang et al. 2004, 2003).

Images are `[N, C, H, W]` float32 in [-1, 1], so the dynamic range is 2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RANGE = 2.0
C1 = (0.01 * RANGE) ** 2
C2 = (0.03 * RANGE) ** 2
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def gaussian_window(taps: int, sigma: float) -> Tensor:
    """Normalised 1-D Gaussian, `[taps]` float32."""
    x = torch.arange(taps, dtype=torch.float32) - (taps - 1) / 2
    g = torch.exp(-0.5 * (x / sigma) ** 2)
    return g / g.sum()


def blur(x: Tensor, window: Tensor) -> Tensor:
    """Separable filtering of every channel without padding: `[N, C, H, W]` -> `[N, C, H-n+1, W-n+1]`."""
    channels, taps = x.shape[1], len(window)
    w = window.to(x).expand(channels, 1, taps)
    x = F.conv2d(x, w[:, :, None, :], groups=channels)
    return F.conv2d(x, w[:, :, :, None], groups=channels)


def ssim_maps(a: Tensor, b: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps of `a` against `b`; both are exactly 1 where the images agree."""
    channels = a.shape[1]
    a, b = a + 1, b + 1  # levels from 0: the luminance term compares ratios
    moments = blur(torch.cat([a, b, a * a, b * b, a * b], dim=1), window)
    mu_a, mu_b, aa, bb, ab = torch.split(moments, channels, dim=1)
    luminance = (2 * mu_a * mu_b + C1) / (mu_a * mu_a + mu_b * mu_b + C1)
    structure = (2 * (ab - mu_a * mu_b) + C2) / ((aa - mu_a * mu_a) + (bb - mu_b * mu_b) + C2)
    return luminance, structure


def ms_ssim(a: Tensor, b: Tensor, taps: int = 11, sigma: float = 1.5) -> Tensor:
    """Multi-scale SSIM of each pair, `[N]` (1 = equal); the 11x11 window and the weights of the paper.

    An image too small for five scales uses as many as fit, their weights rescaled to sum 1.
    """
    window = gaussian_window(taps, sigma)
    scales = sum(min(a.shape[-2:]) >> s >= taps for s in range(len(MS_SSIM_WEIGHTS)))
    if scales == 0:
        raise ValueError(f"images of {tuple(a.shape[-2:])} are smaller than the {taps}-pixel window")
    weights = torch.tensor(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
    result = torch.ones(len(a), device=a.device)
    for s in range(scales):
        luminance, structure = ssim_maps(a, b, window)
        term = (luminance * structure if s == scales - 1 else structure).mean(dim=(1, 2, 3))
        result = result * term.clamp(min=0) ** weights[s].item()
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return result
