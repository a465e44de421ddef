"""What the labels say about a face, as a vector in which one step means one standard deviation.

Labels, the hair style as one-hot, and the shape that the labels leave open: principal components of the landmarks
after a linear regression on the labels. The generator is trained on `w = w_avg + M a` for these vectors `a`, so that
column k of M moves property k and, the others being held, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sg3cli.training.data.synthface import FaceSet

FARTHEST = 2.5
NOT_VISIBLE = ("hair_style", "eye_hidden_left", "eye_hidden_right", "gaze_yaw", "gaze_pitch")


@dataclass(frozen=True)
class Conditions:
    """Names [C] and standardisation of the vectors `a` [N,C]."""

    names: tuple[str, ...]
    mean: np.ndarray
    std: np.ndarray
    vectors: np.ndarray

    def index(self, name: str) -> int:
        return self.names.index(name)


def make_conditions(faces: FaceSet, shapes: int = 16) -> Conditions:
    """Vectors of a data set, standardised over it; unused columns (constant) are left out."""
    keep = [k for k, name in enumerate(faces.columns) if name not in NOT_VISIBLE]
    names = [faces.columns[k] for k in keep]
    columns = [faces.labels[:, keep], _gaze(faces), _one_hot(faces)]
    names += ["gaze_x", "gaze_y", *(f"hair_style_{k}" for k in range(columns[2].shape[1]))]
    raw = np.concatenate(columns, 1).astype(np.float64)
    raw = np.concatenate([raw, _shape(raw, faces.landmarks, shapes)], 1)
    names += [f"shape_{k}" for k in range(shapes)]
    mean, std = raw.mean(0), raw.std(0).clip(1e-3)
    vectors = ((raw - mean) / std).clip(-FARTHEST, FARTHEST)  # one white-haired person must not outweigh ten others
    return Conditions(tuple(names), mean, std, vectors.astype(np.float32))


def _gaze(faces: FaceSet) -> np.ndarray:
    """Where the eyes look as seen by the camera: the label's gaze is in the head frame and mostly undoes the yaw."""
    return np.stack(
        [faces.column("gaze_yaw") + faces.column("yaw"), faces.column("gaze_pitch") - faces.column("pitch")],
        1,
    )


def _one_hot(faces: FaceSet) -> np.ndarray:
    style = faces.column("hair_style").astype(int)
    return np.eye(style.max() + 1)[style]


def _shape(raw: np.ndarray, landmarks: np.ndarray, shapes: int) -> np.ndarray:
    """[N, shapes] principal components of the landmarks that `raw` (and its squares) does not explain."""
    standard = (raw - raw.mean(0)) / raw.std(0).clip(1e-3)
    design = np.concatenate([standard, standard**2, np.ones((len(raw), 1))], 1)
    points = landmarks.reshape(len(landmarks), -1).astype(np.float64)
    rest = points - design @ np.linalg.lstsq(design, points, rcond=None)[0]
    basis = np.linalg.eigh(rest.T @ rest / len(rest))[1][:, ::-1][:, :shapes]
    return rest @ basis
