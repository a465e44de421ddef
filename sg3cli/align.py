"""From the faces of a clip to one face's track: aligned squares, the window it is edited in, and the motion between.

For each frame the track holds the smoothed FFHQ square of the face (what the encoder sees), the window (what is
rendered and pasted back) and the transform that the generator's input takes so that it renders the face as it lies in
the window (Alaluf et al. 2022, sections 5 and 6).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from sg3cli.config import AlignConfig
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
from sg3cli.smoothing import bridge, interpolate, outliers, runs, smooth_paper, smooth_zero_phase

__all__ = [
    "Observations",
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
    "select_face",
    "similarity",
    "smooth_paper",
    "smooth_zero_phase",
    "warp_quad",
]

FOUND, INTERPOLATED, ABSENT = 0, 1, 2  # Track.status
CROPS = ("fixed", "smooth", "hybrid")
BRIEF = 0.1  # a face seen in less than this share of the frames of the most frequent one is no candidate
JUMP = np.array([0.25, 0.25, 0.35, 0.25])  # of half the side, radians, log size: less is never an outlier


@dataclass(frozen=True)
class Observations:
    """All faces of a clip, padded: one column per track."""

    landmarks: np.ndarray  # [T, F, 68, 2] float32, nan where absent
    boxes: np.ndarray  # [T, F, 4] float32
    scores: np.ndarray  # [T, F] float32

    @property
    def present(self) -> np.ndarray:
        """`[T, F]` bool: the face is in the frame."""
        return np.isfinite(self.landmarks).all(axis=(2, 3))


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

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All fields by name."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Track:
        """Inverse of `to_arrays`."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def select_face(obs: Observations, choice: str, frame_size: tuple[int, int]) -> int:
    """Column of the face that `choice` means: largest | left | right | N (0-based, by first appearance).

    `frame_size` is (height, width). "largest" weighs area by how long the face is seen; "left" and "right" go by its
    mean position. Raises InputError when there is no face (or no N-th one), UsageError for any other choice.
    """
    number = int(choice) if choice.isascii() and choice.isdigit() else None
    if number is None and choice not in ("largest", "left", "right"):
        raise UsageError(f"no face choice is called '{choice}'", "--face largest|left|right|N")
    present = obs.present
    if not present.any():
        raise InputError("no face was found in the clip", "give a clip in which a face is seen from the front")
    if number is not None:
        return _by_appearance(present, number)
    frames = present.sum(0)
    candidates = np.flatnonzero(frames >= BRIEF * frames.max())
    boxes = np.where(present[..., None], obs.boxes, np.nan)[:, candidates] / np.tile(frame_size[::-1], 2)
    size = boxes[..., 2:] - boxes[..., :2]
    if choice == "largest":
        return int(candidates[np.argmax(np.nansum(size.prod(-1), axis=0))])
    middle = np.nanmean((boxes[..., 0] + boxes[..., 2]) / 2, axis=0)
    return int(candidates[np.argmin(middle) if choice == "left" else np.argmax(middle)])


def _by_appearance(present: np.ndarray, number: int) -> int:
    seen = np.flatnonzero(present.any(0))
    if number >= len(seen):
        raise InputError(f"face {number} was asked for, the clip shows {len(seen)}", "faces are counted from 0")
    return int(seen[np.argsort(present[:, seen].argmax(0), kind="stable")][number])


def build_track(obs: Observations, face_column: int, pts: np.ndarray, times: np.ndarray, config: AlignConfig) -> Track:
    """The track of one face: gaps bridged, outliers replaced, squares smoothed, window and transforms derived."""
    if config.crop not in CROPS:
        raise UsageError(f"no crop policy is called '{config.crop}'", f"--crop {'|'.join(CROPS)}")
    times = np.asarray(times, np.float64)
    landmarks = obs.landmarks[:, face_column].astype(np.float32)
    measured = obs.present[:, face_column]
    if not measured.any():
        raise InputError("no face was found in the clip", "give a clip in which a face is seen from the front")
    steady = measured & ~_jumps(landmarks, measured, config.rule)
    bridged = bridge(steady, times, config.max_gap)
    good = measured & ~bridged  # a jump that nothing bridges is taken as measured
    status = np.where(good, FOUND, np.where(bridged, INTERPOLATED, ABSENT)).astype(np.uint8)
    present = status != ABSENT
    landmarks = interpolate(landmarks, times, good)
    raw = quad_to_params(ffhq_quad(landmarks, config.rule))
    raw[:, 2] = np.unwrap(raw[:, 2])
    smooth = _smooth_quads(raw, times, present, config.smooth_centre, config.smooth_axes)
    windows = params_to_quad(_windows(smooth, times, present, config))
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
        shots=np.zeros(len(times), np.int32),
    )


def _jumps(landmarks: np.ndarray, measured: np.ndarray, rule: str) -> np.ndarray:
    """Measured frames `[T]` bool whose square jumps off and back."""
    params = quad_to_params(ffhq_quad(landmarks[measured], rule))
    params[:, 2] = np.unwrap(params[:, 2])
    floor = np.broadcast_to(JUMP, params.shape).copy()
    floor[:, :2] *= np.exp(params[:, 3:])
    jumps = np.zeros(len(measured), bool)
    jumps[measured] = outliers(params, floor)
    return jumps


def _smooth_quads(
    params: np.ndarray, times: np.ndarray, present: np.ndarray, sigma_centre: float, sigma_axes: float
) -> np.ndarray:
    """Smoothed parameters `[T, 4]`, each stretch of present frames on its own; absent ones hold the nearest."""
    smooth = params.copy()
    for run in runs(present):
        smooth[run, :2] = smooth_zero_phase(params[run, :2], times[run], sigma_centre)
        smooth[run, 2:] = smooth_zero_phase(params[run, 2:], times[run], sigma_axes)
    return _hold(smooth, times, present)


def _windows(smooth: np.ndarray, times: np.ndarray, present: np.ndarray, config: AlignConfig) -> np.ndarray:
    """Parameters `[T, 4]` of the windows: one for the clip, the aligned square, or one that follows slowly."""
    if config.crop == "fixed":
        return np.tile(smooth[np.argmax(present)], (len(smooth), 1))
    if config.crop == "smooth":
        return smooth.copy()
    return _smooth_quads(smooth, times, present, config.window, config.window)


def _hold(values: np.ndarray, times: np.ndarray, present: np.ndarray) -> np.ndarray:
    """`values [T, ...]` with absent frames replaced by those of the present frame nearest in time."""
    known = np.flatnonzero(present)
    after = np.searchsorted(known, np.arange(len(values))).clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    earlier = np.abs(times - times[known[before]]) <= np.abs(times[known[after]] - times)
    held = values[known[np.where(earlier, before, after)]]
    return np.where(present.reshape(-1, *[1] * (values.ndim - 1)), values, held)
