"""Fixtures that several test modules share: a tiny model and short clips with a face."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import settings
from running import GOLDEN, cut, example_clip
from tiny import make_tiny_bundle

from sg3cli import cli

os.environ.setdefault("SG3_INVERT_LIKENESS", "0")  # forty steps in each of a thousand runs; who tests them asks

settings.register_profile("shared machine", deadline=None)  # a busy machine must not fail a property
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder for `--model`: a random 32 px generator, an encoder, the directions age and smile."""
    return make_tiny_bundle(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def face_model() -> None:
    """Skips what needs the landmark model when it has not been pulled."""
    from sg3cli.weights import store

    if not store.is_present("face-mesh"):
        pytest.skip("the landmark model is not here: sg3 models pull face-mesh")


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory, face_model: None) -> Path:
    """Twelve frames of a talking woman, with sound."""
    return cut(example_clip("woman_talks.mp4"), tmp_path_factory.mktemp("clips") / "talk.mp4", 12)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory, face_model: None) -> Path:
    """Twelve frames of somebody else."""
    return cut(example_clip("older_smiles.mp4"), tmp_path_factory.mktemp("clips") / "other.mp4", 12)


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, talk: Path, tiny_bundle: Path) -> Path:
    """A folder with `talk.mp4` and its finished project `talk.sg3`, age=2 set; look at it, do not change it."""
    folder = tmp_path_factory.mktemp("tuned")
    shutil.copy(talk, folder / "talk.mp4")
    tuning = ["--finetune-steps=3", "--finetune-batch=2", "--loss=structural"]
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert cli.run(["finetune", "talk.mp4", "--model", str(tiny_bundle), *tuning, "-q"]) == 0
        assert cli.run(["edit", "talk.sg3", "--direction=age", "--strength=0s:0,0.4s:2", "-q"]) == 0
    return folder


@pytest.fixture(scope="session")
def people() -> tuple[np.ndarray, np.ndarray]:
    """Images `[2, 288, 288, 3]` of two people and their exact landmarks `[2, 68, 2]`."""
    images = [cv2.imread(str(GOLDEN / f"E_rendered_face_{name}.jpg"))[:, :, ::-1] for name in "ab"]
    return np.array(images), np.load(GOLDEN / "E_rendered_faces.npz")["landmarks"]
