"""From the faces of a clip to one face's track: aligned squares, the window it is edited in, and the motion between.

For each frame the track holds the smoothed FFHQ square of the face (what the encoder sees), the window (what is
rendered and pasted back) and the transform that the generator's input takes so that it renders the face as it lies in
the window (Alaluf et al. 2022, sections 5 and 6).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np

from sg3cli.errors import InputError, UsageError
from sg3cli.geometry import (
    analytic_transform,
    axes_of,
    ffhq_quad,
    params_to_quad,
    quad_from_axes,
    quad_matrix,
    quad_to_params,
    rotation_degrees,
    similarity,
    warp_quad,
)
from sg3cli.settings import AlignConfig
from sg3cli.smoothing import (
    bridge,
    interpolate,
    jitter,
    median_around,
    outliers,
    runs,
    smooth_adaptive,
    smooth_paper,
    smooth_zero_phase,
)

__all__ = [
    "Track",
    "analytic_transform",
    "axes_of",
    "build_track",
    "ffhq_quad",
    "params_to_quad",
    "quad_from_axes",
    "quad_matrix",
    "quad_to_params",
    "rotation_degrees",
    "similarity",
    "smooth_paper",
    "smooth_zero_phase",
    "warp_quad",
]

FOUND, INTERPOLATED, ABSENT = 0, 1, 2  # Track.status
CROPS = ("fixed", "smooth", "hybrid")
JUMP = np.array([0.25, 0.25, 0.35, 0.25])  # of half the side, radians, log size: less is never an outlier
ON_NO_FACE = ("pass", "hold", "fail")
EYES = ((slice(36, 42), 36, 39), (slice(42, 48), 42, 45))  # an eye's contour, its two corners
BLINK = 0.6  # seconds on each side within which an eye is mostly open
LID = 0.008  # of the eyes' distance: a contour whose middle moves less against its corners is no blink


@dataclass(frozen=True)
class Track:
    """One face through a clip of T frames. Quads of absent frames hold the nearest known values."""

    pts: np.ndarray  # [T] int64
    times: np.ndarray  # [T] float64, seconds
    landmarks: np.ndarray  # [T, 68, 2] float32, interpolated in short gaps, nan where absent
    quads_raw: np.ndarray  # [T, 4, 2] aligned squares as measured
    quads: np.ndarray  # [T, 4, 2] aligned squares, smoothed
    windows: np.ndarray  # [T, 4, 2] squares that are rendered and pasted
    transforms: np.ndarray  # [T, 3, 3] from window canvas to aligned canvas: the generator's input transform
    status: np.ndarray  # [T] uint8: 0 found, 1 interpolated, 2 absent
    shots: np.ndarray  # [T] int32

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def jitter(self) -> tuple[float, float]:
        """Jitter of the aligned square's corners in pixels (rms of second differences): as measured, and smoothed."""
        whole = self.status != ABSENT
        whole[1:] &= np.diff(self.shots) == 0  # no difference reaches over a cut
        return jitter(self.quads_raw, whole), jitter(self.quads, whole)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All fields by name."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Track:
        """Inverse of `to_arrays`."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def build_track(
    landmarks: np.ndarray,
    pts: np.ndarray,
    times: np.ndarray,
    config: AlignConfig,
    shots: np.ndarray | None = None,
    trusted: np.ndarray | None = None,
) -> Track:
    """The track of one face: gaps bridged, outliers replaced, squares smoothed, window and transforms derived.

    `landmarks [T, 68, 2]` are nan in frames that do not show it. `shots [T]` numbers the clip's shots: nothing is
    bridged or smoothed across their borders. Measured frames that are not `trusted [T]` bool count as without the
    face, and a gap with a frame that is not trusted is not bridged.
    """
    if config.crop not in CROPS:
        raise UsageError(f"no crop policy is called '{config.crop}'", f"--crop {'|'.join(CROPS)}")
    times = np.asarray(times, np.float64)
    shots = np.zeros(len(times), np.int32) if shots is None else np.asarray(shots, np.int32)
    landmarks = np.asarray(landmarks, np.float32)
    trusted = np.ones(len(times), bool) if trusted is None else trusted
    measured = np.isfinite(landmarks).all(axis=(1, 2)) & trusted
    if not measured.any():
        raise InputError("no face was found in the clip", "give a clip in which a face is seen from the front")
    status = _status(landmarks, measured, trusted, times, shots, config)
    present = status != ABSENT
    landmarks = _interpolated(landmarks, times, status == FOUND, shots)
    raw = quad_to_params(ffhq_quad(landmarks, config.rule))
    raw[:, 2] = np.unwrap(raw[:, 2])
    params = quad_to_params(ffhq_quad(_without_blinks(landmarks, times, present, shots), config.rule))
    params[:, 2] = np.unwrap(params[:, 2])
    smooth = _smooth_quads(params, times, present, shots, config.smooth_centre, config.smooth_axes)
    windows = params_to_quad(_windows(smooth, times, present, shots, config))
    quads = params_to_quad(smooth)
    return Track(
        pts=np.asarray(pts, np.int64),
        times=times,
        landmarks=np.where(present[:, None, None], landmarks, np.float32(np.nan)),
        quads_raw=params_to_quad(raw),
        quads=quads,
        windows=windows,
        transforms=np.linalg.inv(analytic_transform(quads, windows)),
        status=status,
        shots=shots,
    )


def _status(
    landmarks: np.ndarray,
    measured: np.ndarray,
    trusted: np.ndarray,
    times: np.ndarray,
    shots: np.ndarray,
    config: AlignConfig,
) -> np.ndarray:
    """`Track.status`: what was measured, what is bridged within its shot, what stays without the face."""
    if config.on_no_face not in ON_NO_FACE:
        raise UsageError(f"nothing is done on no face by '{config.on_no_face}'", f"--on-no-face {'|'.join(ON_NO_FACE)}")
    missing = np.flatnonzero(~measured)
    if config.on_no_face == "fail" and len(missing):
        what = (
            f"{len(missing)} of {len(times)} frames do not show the face, "
            f"the first is frame {missing[0]} at {times[missing[0]]:.2f} s"
        )
        raise InputError(what, "--on-no-face pass leaves them as they are")
    bridged = np.zeros(len(times), bool)
    for shot in shot_slices(shots):
        usable = measured[shot] & ~_jumps(landmarks[shot], measured[shot], config.rule)
        bridged[shot] = bridge(usable, times[shot], config.max_gap)
        if config.on_no_face == "hold" and usable.any():
            bridged[shot] |= ~measured[shot]
    if config.on_no_face != "hold":
        for run in runs(~measured):
            if not trusted[run].all():  # it is turned away or hidden, not overlooked
                bridged[run] = False
    good = measured & ~bridged  # a jump that nothing bridges is taken as measured
    return np.where(good, FOUND, np.where(bridged, INTERPOLATED, ABSENT)).astype(np.uint8)


def _interpolated(landmarks: np.ndarray, times: np.ndarray, good: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """Landmarks of all frames: each shot from its own `good` ones; a shot that has none borrows from the clip."""
    filled = interpolate(landmarks, times, good)
    for shot in shot_slices(shots):
        if good[shot].any():
            filled[shot] = interpolate(landmarks[shot], times[shot], good[shot])
    return filled


def shot_slices(shots: np.ndarray) -> list[slice]:
    """The shots as slices of frames; `shots [T]` ascends."""
    bounds = [0, *(np.flatnonzero(np.diff(shots)) + 1).tolist(), len(shots)]
    return [slice(a, b) for a, b in pairwise(bounds)]


def _jumps(landmarks: np.ndarray, measured: np.ndarray, rule: str) -> np.ndarray:
    """Measured frames `[T]` bool whose square jumps off and back."""
    jumps = np.zeros(len(measured), bool)
    if not measured.any():
        return jumps
    params = quad_to_params(ffhq_quad(landmarks[measured], rule))
    params[:, 2] = np.unwrap(params[:, 2])
    floor = np.broadcast_to(JUMP, params.shape).copy()
    floor[:, :2] *= np.exp(params[:, 3:])
    jumps[measured] = outliers(params, floor)
    return jumps


def _without_blinks(landmarks: np.ndarray, times: np.ndarray, present: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """Landmarks `[T, 68, 2]` whose eyes stay open, as far as the aligned square is concerned.

    A closing lid drags the middle of its contour down, and with it the square. In such frames the contour is put back
    to where it usually lies between the eye's corners, which a blink does not move.
    """
    opened = landmarks.astype(np.float64)
    for run in _stretches(present, shots):
        part = opened[run]
        across = part[:, 42:48].mean(axis=1) - part[:, 36:42].mean(axis=1)
        down = np.stack([-across[:, 1], across[:, 0]], axis=1)
        unit = np.maximum((across**2).sum(axis=1), 1e-12)
        for contour, outer, inner in EYES:
            away = part[:, contour].mean(axis=1) - (part[:, outer] + part[:, inner]) / 2
            lid = (away * down).sum(axis=1) / unit  # of the eyes' distance, downwards
            moved = lid - median_around(lid, times[run], BLINK)
            spread = 1.4826 * np.median(np.abs(moved))
            blink = np.abs(moved) > max(LID, 4 * spread)
            part[blink, contour] -= (moved[blink, None] * down[blink])[:, None]
    return opened


def _stretches(present: np.ndarray, shots: np.ndarray) -> list[slice]:
    """The stretches of frames with the face, none of them longer than its shot."""
    return [
        slice(shot.start + run.start, shot.start + run.stop)
        for shot in shot_slices(shots)
        for run in runs(present[shot])
    ]


def _smooth_quads(
    params: np.ndarray,
    times: np.ndarray,
    present: np.ndarray,
    shots: np.ndarray,
    sigma_centre: float,
    sigma_axes: float,
) -> np.ndarray:
    """Smoothed parameters `[T, 4]`, each stretch of present frames on its own; absent ones hold the nearest."""
    smooth = params.copy()
    for run in _stretches(present, shots):
        smooth[run, :2] = smooth_adaptive(params[run, :2], times[run], sigma_centre)
        smooth[run, 2:] = smooth_adaptive(params[run, 2:], times[run], sigma_axes)
    return _hold(smooth, times, present)


def _windows(
    smooth: np.ndarray, times: np.ndarray, present: np.ndarray, shots: np.ndarray, config: AlignConfig
) -> np.ndarray:
    """Parameters `[T, 4]` of the windows: one for each shot, the aligned square, or one that follows slowly."""
    if config.crop == "smooth":
        return smooth.copy()
    windows = smooth.copy()
    if config.crop == "fixed":
        for shot in shot_slices(shots):
            windows[shot] = smooth[shot.start + np.argmax(present[shot])]
        return windows
    for run in _stretches(present, shots):
        windows[run] = smooth_zero_phase(smooth[run], times[run], config.window)
    return _hold(windows, times, present)


def _hold(values: np.ndarray, times: np.ndarray, present: np.ndarray) -> np.ndarray:
    """`values [T, ...]` with absent frames replaced by those of the present frame nearest in time."""
    known = np.flatnonzero(present)
    after = np.searchsorted(known, np.arange(len(values))).clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    earlier = np.abs(times - times[known[before]]) <= np.abs(times[known[after]] - times)
    held = values[known[np.where(earlier, before, after)]]
    return np.where(present.reshape(-1, *[1] * (values.ndim - 1)), values, held)
