"""Low-pass filter design of StyleGAN3: Kaiser-windowed sinc and its radially symmetric (jinc) counterpart.

Karras et al., Alias-Free Generative Adversarial Networks (2021), Appendix C.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def design_lowpass_filter(numtaps: int, cutoff: float, width: float, fs: float, radial: bool = False) -> Tensor | None:
    """Design a low-pass FIR filter: [numtaps] float32, [numtaps, numtaps] if `radial`, None for one tap.

    `cutoff` is the -6 dB frequency, `width` the width of the transition band and `fs` the sampling rate, all
    in the same unit. The taps sum to one.
    """
    if numtaps < 1:
        raise ValueError(f"numtaps must be at least 1, got {numtaps}")
    if numtaps == 1:
        return None
    window = torch.kaiser_window(
        numtaps, periodic=False, beta=kaiser_beta(numtaps, width / (fs / 2)), dtype=torch.float64
    )
    t = (torch.arange(numtaps, dtype=torch.float64) - (numtaps - 1) / 2) / fs
    if radial:
        r = torch.hypot(t[:, None], t[None, :])
        f = _jinc(r, cutoff) * torch.outer(window, window)
    else:
        f = torch.sinc(2 * cutoff * t) * window
    return (f / f.sum()).to(torch.float32)


def kaiser_beta(numtaps: int, width: float) -> float:
    """Kaiser's shape parameter for a transition of `width` (1 = Nyquist) that `numtaps` taps can reach."""
    attenuation = 2.285 * (numtaps - 1) * math.pi * width + 7.95
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        value: float = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
        return value
    return 0.0


def _jinc(r: Tensor, cutoff: float) -> Tensor:
    """Impulse response of the ideal disc-shaped low-pass, J1(2 pi fc r) / (pi r), with its limit fc at 0."""
    safe = torch.where(r == 0, torch.ones_like(r), r)
    value = torch.special.bessel_j1(2 * math.pi * cutoff * safe) / (math.pi * safe)
    return torch.where(r == 0, torch.full_like(r, cutoff), value)
