"""Tiny sets of pairs and photographs in the `synthface` format."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COLUMNS = (
    "age", "smile", "mouth_open", "brow_raise", "eye_closed_left", "eye_closed_right", "yaw", "pitch", "glasses",
    "beard", "makeup",
)  # fmt: skip

CHANGES: tuple[tuple[int, dict[str, float]], ...] = (  # of the colour in the middle, and of the labels
    (0, {}),
    (50, {"age": 40.0}),
    (-50, {"yaw": 15.0, "eye_closed_left": 1.0, "eye_closed_right": 1.0}),
)


def write_set(folder: Path, pictures: np.ndarray, **arrays: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    coded = [cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes() for p in pictures]
    lengths = np.array([len(c) for c in coded])
    (folder / "images.bin").write_bytes(b"".join(coded))
    np.save(folder / "index.npy", np.stack([np.cumsum(lengths) - lengths, lengths], 1))
    count, size = len(pictures), pictures.shape[1]
    landmarks = np.random.default_rng(0).uniform(0.3, 0.7, (count, 68, 2)).astype(np.float32) * size
    np.savez(folder / "labels.npz", landmarks68=landmarks, size=np.int32(size), **arrays)
    return folder


def make_edits(folder: Path, groups: int = 4, size: int = 32) -> Path:
    """Groups of three: plain, older by 40 years (brighter), turned by 15 degrees and with closed eyes (darker)."""
    rng = np.random.default_rng(1)
    pictures, labels, group = [], [], []
    for g in range(groups):
        face = rng.integers(60, 190, (size // 4, size // 4, 3)).astype(np.uint8)
        face = cv2.resize(face, (size, size), interpolation=cv2.INTER_CUBIC)
        for change, values in CHANGES:
            picture = face.astype(int)
            picture[size // 4 : -size // 4, size // 4 : -size // 4] += change
            pictures.append(picture.clip(0, 255).astype(np.uint8))
            base = {"age": 25.0, "yaw": 5.0}
            labels.append([base.get(c, 0.0) + values.get(c, 0.0) for c in COLUMNS])
            group.append(g + 10)
    altered = np.arange(len(pictures)) % 3 > 0
    return write_set(
        folder, np.stack(pictures), columns=np.array(COLUMNS), labels=np.array(labels, np.float32),
        identity=np.array(group), group=np.array(group), altered=altered,
    )  # fmt: skip


def make_photos(folder: Path, people: int = 10, size: int = 64) -> Path:
    """One picture of each person; ages partly unknown; two sources, the second a fifth."""
    pictures = np.random.default_rng(2).integers(0, 255, (people, size, size, 3)).astype(np.uint8)
    age = np.where(np.arange(people) % 3 == 0, np.nan, 30.0 + np.arange(people))
    source = (np.arange(people) % 5 == 4).astype(float)
    labels = np.stack([age, source], 1).astype(np.float32)
    return write_set(
        folder, pictures, columns=np.array(["age", "source"]), labels=labels, identity=np.arange(people) * 7 % 100
    )
