"""How much of the edited face is seen over time: it fades beside frames that show no face."""

from __future__ import annotations

import numpy as np

from sg3cli.faces.alignment import ABSENT, shot_slices

FADE = 0.2  # seconds over which the face fades in and out beside frames that show none


def presence(times: np.ndarray, status: np.ndarray, shots: np.ndarray | None = None) -> np.ndarray:
    """Opacity of the face `[T]`: 1, falling to 0 over `FADE` seconds towards frames of its shot that show none."""
    opacity, shots = np.ones(len(times)), np.zeros(len(times), np.int32) if shots is None else shots
    for shot in shot_slices(shots):
        gaps = times[shot][status[shot] == ABSENT]
        if len(gaps):
            after = np.searchsorted(gaps, times[shot])
            before, after = np.clip(after - 1, 0, None), np.clip(after, None, len(gaps) - 1)
            distance = np.minimum(np.abs(times[shot] - gaps[before]), np.abs(gaps[after] - times[shot]))
            opacity[shot] = np.clip(distance / FADE, 0.0, 1.0)
    return opacity
