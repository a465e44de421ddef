"""What goes with a smile: found again from faces that were made to do it, and kept in a model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pair_sets import write_set
from safetensors.numpy import save_file

from sg3cli.compositing.smiling import Smiling
from sg3cli.errors import InputError, ModelError
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.files import write_arrays
from sg3cli.training.people128 import smile_pairs
from sg3cli.training.people128.pair_data import PictureSet
from sg3cli.weights.bundle import SMILE, load_model

PEOPLE = 20  # of whom the last two are held out


@pytest.fixture(scope="module")
def smiling() -> Smiling:
    arrays = load_model("people-128").smile()
    assert arrays is not None
    return Smiling(**arrays)


def written(folder: Path, smiles: float = 1.0) -> PictureSet:
    """Grey faces whose pictures tell by their first pixels who they are and whether they smile."""
    pictures = np.full((2 * PEOPLE, 256, 256, 3), 120, np.uint8)
    smiling = np.tile([0.0, smiles], PEOPLE)
    for row, value in enumerate(smiling):
        pictures[row, :16, :16], pictures[row, :16, 16:32] = 10 * (row // 2), 200 * value
    people = np.repeat(np.arange(PEOPLE), 2)
    labels = {"columns": np.array(["is_smiling"]), "labels": smiling[:, None].astype(np.float32)}
    return PictureSet(write_set(folder, pictures, **labels, identity=people))


class Drawn(DrawnMesh):
    """A mesh of `shape` at a place and size of its own for each person, who smiles by `motion` and moves the head."""

    def __init__(self, shape: np.ndarray, motion: np.ndarray) -> None:
        self.shape, self.motion = shape, motion

    def single(self, image: np.ndarray, side: float) -> np.ndarray | None:
        person, smiles = round(float(image[:16, :16].mean()) / 10), image[:16, 16:32].mean() > 100
        if person == 3:
            return None
        points = self.shape + (self.motion if smiles else 0)
        rng = np.random.default_rng((person, int(smiles)))
        turn = np.radians(rng.uniform(-8, 8)) * bool(smiles)
        turned = points @ np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        return turned * rng.uniform(80, 95) + (*rng.uniform(118, 136, 2), 0)


def test_the_motion_of_a_smile_is_found_without_that_of_the_head(smiling: Smiling, tmp_path: Path) -> None:
    found, people = smile_pairs.fit(written(tmp_path), Drawn(smiling.shape, smiling.motion))
    assert people == PEOPLE - 2 - 1  # those held out, and who was not found
    np.testing.assert_allclose(found.motion, smiling.motion, atol=2e-3)
    np.testing.assert_allclose(found.shape - found.shape[0], smiling.shape - smiling.shape[0], atol=0.05)
    assert found.motion.dtype == found.light.dtype == np.float32 and np.abs(found.light).max() < 0.05  # all is grey


def test_nobody_who_smiles_is_told(smiling: Smiling, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neutral and smiling"):
        smile_pairs.fit(written(tmp_path, smiles=0.0), Drawn(smiling.shape, smiling.motion))


def test_both_halves_of_a_face_smile_alike(smiling: Smiling) -> None:
    lopsided = np.where(smiling.shape[:, :1] > 0, smiling.motion, 0)
    even = smile_pairs.mirrored(lopsided, smiling.shape, (-1, 1, 1))
    np.testing.assert_allclose(even[61] * (-1, 1, 1), even[291], atol=1e-3)
    assert even[61][1] < 0


def test_it_becomes_a_part_of_a_model(smiling: Smiling, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(load_model("people-128").path, own)
    (own / SMILE).unlink()
    assert load_model(own).smile() is None and load_model(own).smile_digest is None
    smile_pairs.add_smile(own, smiling._replace(light=2 * smiling.light), "twice")
    arrays = load_model(own).smile()
    assert arrays is not None and np.array_equal(arrays["light"], 2 * smiling.light)
    assert json.loads((own / "model.json").read_text())["training"]["smile"] == "twice"
    nan = {name: np.full_like(values, np.nan) for name, values in smiling._asdict().items()}
    half = {name: values.astype(np.float16) for name, values in smiling._asdict().items()}
    none = {name: 0 * values for name, values in smiling._asdict().items()}
    for wrong in (nan, half, none, smiling._replace(light=1e5 * smiling.light)._asdict()):
        save_file(wrong, own / SMILE)
        with pytest.raises(ModelError, match=SMILE):
            load_model(own).smile()
    for damage in (
        lambda: (own / SMILE).write_bytes(b"damaged"),
        lambda: write_arrays(own / SMILE, {"light": np.ones(3)}),
    ):
        damage()
        with pytest.raises(ModelError, match=SMILE):
            load_model(own).smile()
