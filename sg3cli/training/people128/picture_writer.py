"""A set of pairs on disk, in the format that `pair_data.PictureSet` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sg3cli.errors import InputError
from sg3cli.files import atomic_path
from sg3cli.training.people128.pair_data import ATTRIBUTES

QUALITY = 95
COLUMNS = tuple(column for attribute in ATTRIBUTES.values() for column in attribute.columns)


class PictureWriter:
    """Collects pictures of one size; `write` puts them into a folder. Labels are changes within a group: the unaltered
    picture has zeros."""

    def __init__(self) -> None:
        self.pictures: list[bytes] = []
        self.labels: list[Sequence[float]] = []
        self.landmarks: list[np.ndarray] = []
        self.groups: list[tuple[int, bool]] = []
        self.identity: list[int] = []
        self.size = 0

    def add(
        self, picture: np.ndarray, landmarks: np.ndarray, person: int, group: int, change: Mapping[str, float]
    ) -> None:
        """A `picture [R, R, 3]` uint8 with its `landmarks [68, 2]` in pixels and its `change` {attribute: units} from
        the unaltered one of the `group`, which has none and comes first."""
        import cv2

        units = {c: change.get(n, 0.0) * a.unit for n, a in ATTRIBUTES.items() for c in a.columns}
        coded = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        self.pictures.append(bytes(coded))
        self.labels.append([units[c] for c in COLUMNS])
        self.landmarks.append(landmarks)
        self.groups.append((group, bool(change)))
        self.identity.append(person)
        self.size = len(picture)

    def write(self, folder: Path, why_empty: str) -> int:
        """Write the set; how many altered pictures it has. Raises InputError with `why_empty` without any."""
        if not any(altered for _, altered in self.groups):
            raise InputError(why_empty, "")
        folder.mkdir(parents=True, exist_ok=True)
        lengths = np.array([len(p) for p in self.pictures], np.int64)
        with atomic_path(folder / "images.bin") as temporary:
            temporary.write_bytes(b"".join(self.pictures))
        with atomic_path(folder / "index.npy") as temporary, temporary.open("wb") as file:
            np.save(file, np.stack([np.cumsum(lengths) - lengths, lengths], 1))
        group, altered = (np.array(part) for part in zip(*self.groups, strict=True))
        with atomic_path(folder / "labels.npz") as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, columns=np.array(COLUMNS), labels=np.array(self.labels, np.float32), size=np.int32(self.size),
                landmarks68=np.array(self.landmarks, np.float32), group=group.astype(np.int64),
                altered=altered.astype(bool), identity=np.array(self.identity, np.int64),
            )  # fmt: skip
        return int(altered.sum())
