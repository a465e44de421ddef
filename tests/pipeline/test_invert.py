"""The invert stage: how many passes its codes take where nobody asks, and where somebody does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from composed import settings

from sg3cli.errors import ModelError
from sg3cli.pipeline import Job
from sg3cli.project import Project
from sg3cli.weights.bundle import load_model


@pytest.fixture
def own(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "own"))


def name_steps(bundle: Path, steps: object) -> None:
    file = bundle / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "restyle_steps": steps}))


def codes(folder: Path, talk: Path, bundle: Path, **invert: int) -> np.ndarray:
    project = Project.of_source(talk, folder / f"{len(list(folder.glob('*.sg3')))}.sg3", {})
    job = Job(project, settings(bundle).having(invert=invert))
    job.invert()
    rows = project.codes(0)
    return np.array(rows.rows(0, len(rows)))


def test_a_model_names_how_many_passes_its_encoder_needs(own: Path, tmp_path: Path, talk: Path) -> None:
    three = codes(tmp_path, talk, own)
    name_steps(own, 1)
    one, asked = codes(tmp_path, talk, own), codes(tmp_path, talk, own, steps=3)
    assert np.array_equal(asked, three) and not np.allclose(one, three)


def test_codes_are_made_again_when_the_model_names_another_number(own: Path, tmp_path: Path, talk: Path) -> None:
    project, stages = Project.of_source(talk, tmp_path / "talk.sg3", {}), []
    for steps in (2, 2, 1):
        name_steps(own, steps)
        job = Job(project, settings(own))
        job.invert()
        stages.append(job.stages["invert"]["status"])
    assert stages == ["done", "up to date", "done"]


@pytest.mark.parametrize("steps", [0, -1, 1.5, "2", True])
def test_a_number_of_passes_that_cannot_be_is_refused_by_name(own: Path, steps: object) -> None:
    name_steps(own, steps)
    with pytest.raises(ModelError, match=r"tiny names .* passes"):
        load_model(own).restyle_steps  # noqa: B018


def test_the_embedded_model_needs_two() -> None:
    assert load_model("people-128").restyle_steps == 2
