"""Frames of two videos are laid on each other by time; the same face is followed in both."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from schematic_faces import frontal_face

from sg3cli import cli
from sg3cli.cli.app import app, command_name
from sg3cli.evaluation.face_reading import FaceReading
from sg3cli.evaluation.paired_frames import FaceFollower, Pair, pairs
from sg3cli.evaluation.video_figures import attributes, ratio
from sg3cli.evaluation.video_pass import Seen
from sg3cli.faces.face import Face
from sg3cli.latents.edits import parse_edit
from sg3cli.video import Frame


def frames(count: int, rate: int, size: tuple[int, int] = (4, 6)) -> list[Frame]:
    return [Frame(k, k, Fraction(1, rate), np.full((*size, 3), k, np.uint8), 1) for k in range(count)]


def test_frames_go_together_by_time() -> None:
    indices = [(pair.source.index, pair.edited.index) for pair in pairs(frames(6, 50), frames(3, 25, (8, 12)))]
    assert indices == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)]
    assert [pair.edited.index for pair in pairs(frames(3, 25), frames(6, 50))] == [0, 2, 4]
    assert len(list(pairs(frames(6, 25), frames(4, 25)))) == 4
    assert next(pairs(frames(1, 25), frames(1, 25, (8, 12)))).edited.rgb.shape == (4, 6, 3)


class Told:
    """A detector that knows."""

    def __init__(self, *centres: tuple[float, float]) -> None:
        self.faces = [
            Face(np.zeros(4, np.float32), frontal_face(centre, 30).astype(np.float32), 1.0, k)
            for k, centre in enumerate(centres)
        ]

    def update(self, rgb: np.ndarray, time: float | None = None) -> list[Face]:
        return self.faces


def test_the_face_at_the_source_s_place_is_the_edited_one() -> None:
    pair = Pair(frames(1, 25)[0], frames(1, 25)[0])
    left, right = (100.0, 100.0), (300.0, 100.0)
    follower: Any = FaceFollower(Told(left, right), Told((302.0, 100.0), (99.0, 100.0)))  # type: ignore[arg-type]
    source, edited = follower.update(pair, frontal_face(right, 30))
    assert source[:, 0].mean() > 250 and edited[:, 0].mean() > 250
    alone: Any = FaceFollower(Told(left), Told(right))  # type: ignore[arg-type]
    assert alone.update(pair)[1] is None


def test_attributes_stand_beside_what_was_asked_for() -> None:
    reading = FaceReading("told", ("age", "smile"), np.array([10.0, 0.5]), lambda x: (x, x))
    seen = Seen(times=[0.0, 1.0, 2.0, 3.0], read=[0, 1, 3])
    seen.labels = [np.array([0.0, 0.5]), np.array([10.0, 0.5]), np.array([30.0, 0.5])]
    found = attributes(seen, reading, [parse_edit("age=0s:0,3s:3")])
    assert found is not None and found["network"] == "told"
    assert found["labels"]["smile"] == {"change": 0.5, "change_std": 1.0}
    age = found["labels"]["age"]
    assert (age["asked"], age["change_std"], age["follows"]) == pytest.approx((4 / 3, 4 / 3, 1.0), abs=0.02)


def test_a_ratio_is_never_made_up() -> None:
    assert (ratio(0.0, 0.0), ratio(2.0, 1.0), ratio(0.0, 1.0), ratio(float("nan"), 1.0)) == (1.0, 0.5, None, None)


def test_evaluate_and_evaluate_video_are_two_commands() -> None:
    group: Any = typer.main.get_command(app)
    top = group.make_context("sg3", ["doctor"])
    for words, name in (
        (["evaluate", "talk.sg3", "video"], "evaluate"),
        (["evaluate"], "evaluate"),
        (["evaluate", "./video"], "evaluate"),
        (["evaluate", "video", "talk.sg3"], "evaluate video"),
    ):
        assert group.resolve_command(top, words)[1] is group.commands[name]
        assert command_name(words) == name


def test_a_project_without_an_attribute_net(tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tuned)
    words = ["evaluate", "video", "talk.sg3", "--edited", "talk.mp4", "--every", "4", "--json"]
    assert cli.run(words) == 0
    (found,) = json.loads(capsys.readouterr().out)["clips"]
    assert found["identity"]["network"] == "own appearance descriptor" and found["attributes"] is None
    assert found["judged"] == 3 and found["sharpness"] == pytest.approx(1) and found["sound"]["offset"] == 0
