"""Fixtures of models that tests need from the cache; import them by name where they are used."""

from pathlib import Path

import pytest

from sg3cli.errors import ModelError
from sg3cli.weights import store


@pytest.fixture(scope="session")
def face_mesh() -> Path:
    """Folder of the face-mesh model, pulled through pip; the test is skipped where that is impossible."""
    try:
        return store.pull("face-mesh")
    except ModelError as error:
        pytest.skip(f"no face-mesh model: {error}")
