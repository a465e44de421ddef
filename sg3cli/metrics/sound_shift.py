"""By how much a sound is shifted against another."""

from __future__ import annotations

import numpy as np

ALIKE = 0.3  # correlation below which two sounds are not the same one
TIE = 0.999  # of the best correlation: among such shifts the smallest counts (a steady tone fits many)


def sound_shift(source: np.ndarray, other: np.ndarray, rate: int, reach: float = 2.0) -> tuple[float | None, float]:
    """Seconds by which `other [N]` comes later than `source [M]` (both at `rate`), and their correlation there.

    Shifts up to `reach` seconds are looked at. None when the sounds are not alike at any, as with silence.
    """
    a, b = (x.astype(np.float64) for x in (source, other))
    size = float(np.sqrt((a @ a) * (b @ b)))
    if size <= 1e-9:
        return None, 0.0
    length = 1 << int(len(a) + len(b) - 1).bit_length()
    products = np.fft.irfft(np.fft.rfft(b, length) * np.conj(np.fft.rfft(a, length)), length)
    most = min(int(reach * rate), length // 2 - 1)
    shifts = np.arange(-most, most + 1)
    values = products[shifts] / size
    best = float(values.max())
    if best < ALIKE:
        return None, best
    fitting = shifts[values >= TIE * best]
    return float(fitting[np.abs(fitting).argmin()]) / rate, best
