"""What a report gathers: which video, which frames, what part of them, whose models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sg3cli.evaluation.report import TILES, around, last_output, strip_frames
from sg3cli.evaluation.report_models import ModelRow, merged, models_of
from sg3cli.faces.alignment import ABSENT, FOUND, Track
from sg3cli.project import Project


def track(frames: int = 20, middle: tuple[float, float] = (100, 80), side: float = 60) -> Track:
    half = side / 2 * np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]])
    windows = np.repeat((np.array(middle) + half)[None], frames, axis=0)
    zeros = np.zeros(frames, np.int64)
    return Track(
        pts=np.arange(frames),
        times=np.arange(frames) / 25,
        landmarks=np.zeros((frames, 68, 2), np.float32),
        quads_raw=windows,
        quads=windows,
        windows=windows,
        transforms=np.repeat(np.eye(3)[None], frames, axis=0),
        status=np.full(frames, FOUND, np.uint8),
        shots=zeros.astype(np.int32),
    )


def test_the_strip_shows_frames_with_the_face_spread_over_all() -> None:
    known = track()
    assert strip_frames(known, 20) == [0, 3, 5, 8, 11, 14, 16, 19] and len(strip_frames(None, 500)) == TILES
    known.status[:10] = ABSENT
    assert min(strip_frames(known, 20)) == 10
    known.status[:] = ABSENT
    assert len(strip_frames(known, 20)) == TILES  # of a clip in which it is never seen: of all


@pytest.mark.parametrize("middle", [(100, 80), (5, 5), (199, 149)])
def test_a_tile_shows_the_face_and_nothing_beyond_the_frame(middle: tuple[float, float]) -> None:
    quad = around(track(middle=middle), 3, (150, 200))
    low, high = quad.min(axis=0), quad.max(axis=0)
    assert (low >= -1e-9).all() and (high <= (200 + 1e-9, 150 + 1e-9)).all()
    assert high - low == pytest.approx([1.3 * 60] * 2)
    if middle == (100, 80):
        assert quad.mean(axis=0) == pytest.approx(middle)


def test_where_no_face_is_a_tile_shows_the_middle_of_the_frame() -> None:
    absent = replace(track(), status=np.full(20, ABSENT, np.uint8))
    for known in (None, absent):
        assert around(known, 0, (150, 200)).tolist() == [[25, 0], [25, 150], [175, 150], [175, 0]]


def project(folder: Path, **stages: dict[str, Any]) -> Project:
    return Project(folder / "a.sg3", {"source": {}, "stream": {}, "edits": [], "stages": stages})


def test_the_video_that_was_rendered_last_is_shown(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.mp4" for name in "abc"]
    outputs = {str(path): {"key": key} for path, key in zip(paths, ("two", "one", "two"), strict=True)}
    found = project(tmp_path, render={"key": "one", "outputs": outputs})
    assert last_output(found) is None and last_output(project(tmp_path)) is None
    for path in paths:
        path.touch()
    assert last_output(found) == paths[1]  # the one of the last render, not the one that was first made last
    paths[1].unlink()
    assert last_output(found) == paths[2]


def test_models_come_with_their_licences_and_credits(tmp_path: Path) -> None:
    align = {"key": "a", "models": {"face_landmark.tflite": "sha256:12"}}
    invert = {"key": "b", "models": {"name": "people-128", "generator": "sha256:34"}, "params": {"loss": "lite0"}}
    rows = {row.name: row for row in models_of(project(tmp_path, align=align, invert=invert), None)}
    assert rows.keys() == {"face-mesh", "people-128", "perceptual"}
    assert rows["face-mesh"].licence == "Apache-2.0" and rows["face-mesh"].digest == "sha256:12"
    assert rows["people-128"].digest == "sha256:34" and any("CC BY 4.0" in line for line in rows["people-128"].credits)
    gone = {"key": "b", "models": {"name": "mine", "generator": "sha256:56"}, "params": {"model": "/no/such/model"}}
    (row,) = models_of(project(tmp_path, invert=gone), None)
    assert (row.name, row.licence, row.digest) == ("mine", "unknown", "sha256:56")


def test_a_model_with_several_uses_is_named_once() -> None:
    one, two = ModelRow("align", "m", "MIT", "s", "d"), ModelRow("figures", "m", "MIT", "s", "d")
    assert merged([one, two, replace(one, digest="e")]) == [
        replace(one, use="align; figures"),
        replace(one, digest="e"),
    ]
