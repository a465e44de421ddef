"""What a face reader is taught, from renders and from photographs on the same scales.

Renders know everything exactly. Of photographs age and sex are known from elsewhere, pose and the mouth's gap were
measured and brought to the renders' scale; a smile and the lids are brought there here. NaN where nothing is known.
"""

from __future__ import annotations

import numpy as np

from sg3cli.training.people128.pair_data import PictureSet

NEUTRAL_LIFT, SMILING_LIFT = 0.01, 0.055  # of the mouth's corners: London pairs; a render's smile of 0 and of 0.6
FULL_SMILE = 0.6
OPEN_EYES = 0.22  # opening of a photographed eye from which on it is certainly open
MALE = 1.0


def reader_labels(pictures: PictureSet) -> dict[str, np.ndarray]:
    """{label: [N] float32} for every label of a reader."""
    photos = pictures.group is None
    lids = _photographed_lids(pictures) if photos else _mean(pictures, "eye_closed_left", "eye_closed_right")
    labels = {
        "age": pictures.column("age"),
        "male": pictures.column("sex"),
        "smile": _photographed_smile(pictures) if photos else pictures.column("smile"),
        "mouth_open": pictures.column("mouth_gap"),
        "eyes_closed": lids,
        "brow_raise": pictures.column("brow_raise"),
        "yaw": pictures.column("yaw"),
        "pitch": pictures.column("pitch"),
        "glasses": pictures.column("glasses"),
        "beard": _no_beards(pictures) if photos else pictures.column("beard"),
        "makeup": pictures.column("makeup"),
    }
    return {name: values.astype(np.float32) for name, values in labels.items()}


def _mean(pictures: PictureSet, *columns: str) -> np.ndarray:
    return np.asarray(np.mean([pictures.column(c) for c in columns], axis=0))


def _photographed_smile(pictures: PictureSet) -> np.ndarray:
    lift = (pictures.column("mouth_corner_lift") - NEUTRAL_LIFT) / (SMILING_LIFT - NEUTRAL_LIFT)
    return FULL_SMILE * lift


def _photographed_lids(pictures: PictureSet) -> np.ndarray:
    opening = _mean(pictures, "eye_open_left", "eye_open_right")
    return np.where(opening > OPEN_EYES, 0.0, np.nan)


def _no_beards(pictures: PictureSet) -> np.ndarray:
    sex = pictures.column("sex")
    return np.where(~np.isnan(sex) & (sex < MALE), 0.0, np.nan)
