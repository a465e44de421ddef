"""A labelled set of drawn faces: discs whose appearance follows their labels."""

from __future__ import annotations

import cv2
import numpy as np

from sg3cli.training.data.synthface import FaceSet

COLUMNS = (
    "age",
    "smile",
    "wrinkles",
    "yaw",
    "pitch",
    "gaze_yaw",
    "gaze_pitch",
    "hair_style",
    "hair_r",
    "hair_g",
    "hair_b",
)


def drawn_faces(count: int = 48, size: int = 32, seed: int = 0) -> FaceSet:
    """Discs whose brightness is the age and whose place is the yaw; wrinkles follow the age, smile follows nothing."""
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=(count, len(COLUMNS))).astype(np.float32)
    labels[:, 2] = labels[:, 0] + 0.1 * labels[:, 2]
    labels[:, 7] = np.arange(count) % 3
    images = np.full((count, size, size, 3), 90, np.uint8)
    for image, row in zip(images, labels, strict=True):
        centre = (int(size / 2 + 3 * np.clip(row[3], -2, 2)), size // 2)
        cv2.circle(image, centre, size // 4, [int(np.clip(128 + 50 * row[0], 0, 255))] * 3, -1)
    landmarks = rng.normal(size=(count, 68, 2)).astype(np.float32) + labels[:, None, 3:4]
    return FaceSet(images, labels, COLUMNS, landmarks, np.arange(count) // 2)


def write_faces(folder, faces: FaceSet) -> None:
    blobs = [
        cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes() for image in faces.images
    ]
    lengths = np.array([len(blob) for blob in blobs])
    (folder / "images.bin").write_bytes(b"".join(blobs))
    np.save(folder / "index.npy", np.stack([np.cumsum(lengths) - lengths, lengths], 1))
    labels = np.concatenate([faces.identity[:, None] + 1e6, faces.labels], 1).astype(np.float32)
    np.savez(folder / "labels.npz", columns=np.array(["identity", *COLUMNS]), labels=labels,
             identity=faces.identity + 1_000_000, landmarks68=faces.landmarks)  # fmt: skip
