"""The `synthface` data set: what is written is read, what is missing or damaged is named, epochs are permutations."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_faces import COLUMNS, drawn_faces, write_faces

from sg3cli.errors import InputError
from sg3cli.training.data.synthface import Batches, load_faces, load_test


def test_a_data_set_is_read_as_it_was_written(tmp_path) -> None:
    faces = drawn_faces()
    write_faces(tmp_path, faces)
    read = load_faces(tmp_path)
    assert read.columns == COLUMNS and "identity" not in read.columns
    assert np.array_equal(read.identity, faces.identity) and np.allclose(read.column("yaw"), faces.column("yaw"))
    assert np.abs(read.images.astype(int) - faces.images).mean() < 2
    train, test = read.split(held_out=5)
    assert len(test) == 10 and not set(train.identity) & set(test.identity)
    alone = load_test(tmp_path, held_out=5)
    assert np.array_equal(alone.images, test.images) and np.array_equal(alone.labels, test.labels)
    assert np.array_equal(alone.landmarks, test.landmarks) and len(load_test(tmp_path)) == len(read.split()[1])


@pytest.mark.parametrize("part", ["images.bin", "index.npy", "labels.npz"])
def test_a_missing_part_is_named(tmp_path, part: str) -> None:
    write_faces(tmp_path, drawn_faces(4))
    (tmp_path / part).unlink()
    with pytest.raises(InputError, match=part.replace(".", r"\.")):
        load_faces(tmp_path)


def test_a_damaged_image_is_named(tmp_path) -> None:
    write_faces(tmp_path, drawn_faces(4))
    (tmp_path / "images.bin").write_bytes(b"\0" * (tmp_path / "images.bin").stat().st_size)
    with pytest.raises(InputError, match="picture 0"):
        load_faces(tmp_path)


def test_every_epoch_is_a_permutation_and_needs_no_history() -> None:
    batches = Batches(10, 4, seed=3)
    seen = np.concatenate([batches.rows(step) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and list(seen[:10]) != list(seen[10:])
    assert np.array_equal(Batches(10, 4, seed=3).rows(4), batches.rows(4))
