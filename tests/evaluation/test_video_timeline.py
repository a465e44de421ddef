"""Panels of an edited video over time: the values whose means are the figures, at the times they were read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sg3cli.evaluation.face_reading import FaceReading
from sg3cli.evaluation.video_figures import Judged, attributes, identity, landmark_jitter, shots_of
from sg3cli.evaluation.video_pass import Judges, Seen
from sg3cli.evaluation.video_timeline import panels
from sg3cli.latents.edits import parse_edit

TIMES = [0.04 * k for k in range(10)]
READ = [1, 3, 5, 7]
LABELS = ("yaw", "age", "smile")


@pytest.fixture
def seen() -> Seen:
    rng = np.random.default_rng(4)
    points = rng.normal(100, 5, (10, 2, 68, 2))
    points[4, 1] = np.nan  # the edited face is not seen in one frame
    return Seen(
        times=TIMES,
        thumbs=[np.full((9, 16, 3), 90, np.uint8)] * 10,
        landmarks=[(both[0], both[1]) for both in points],
        read=READ,
        identity=list(rng.normal(1, 0.2, (4, 2, 8))),
        labels=[np.array([0.1, 4.0 + k, 2.0]) for k in range(4)],
    )


READING = FaceReading("reader", LABELS, np.array([1.0, 2.0, 4.0]), lambda x: (x, x))
EDITS = [parse_edit("age=2@0s..0.2s")]


@pytest.fixture
def judges() -> Judges:
    return Judges(None, None, READING, None, "reader", True)  # type: ignore[arg-type]


def judged(seen: Seen) -> Judged:
    figures = {
        "identity": identity(seen, "reader"),
        "attributes": attributes(seen, READING, EDITS),
        "jitter": landmark_jitter(seen, shots_of(seen)),
    }
    return Judged(figures, seen)


def test_means_of_the_lines_are_the_figures(seen: Seen, judges: Judges) -> None:
    of = judged(seen)
    jitter, likeness, labels, strength = panels(of, judges, EDITS, 0.4)
    edited, source = jitter.lines
    assert np.nanmean(edited.values) == pytest.approx(of.figures["jitter"]["edited"])
    assert np.nanmean(source.values) == pytest.approx(of.figures["jitter"]["source"])
    assert edited.label.startswith("edited (mean") and np.isnan(edited.values[3:6]).all()  # around the gap
    assert likeness.lines[0].values.mean() == pytest.approx(of.figures["identity"]["mean"])
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in seen.identity]
    assert likeness.lines[0].values == pytest.approx(np.array(cosines), abs=1e-6)
    assert likeness.lines[0].times.tolist() == [TIMES[k] for k in READ]
    (age,) = labels.lines
    assert age.values.tolist() == [2.0, 2.5, 3.0, 3.5]  # in standard deviations
    assert age.values.mean() == pytest.approx(of.figures["attributes"]["labels"]["age"]["change_std"])
    assert strength.lines[0].label == "age" and strength.lines[0].values.max() == 2


def test_without_an_edit_of_that_name_the_labels_that_moved_are_shown(seen: Seen, judges: Judges) -> None:
    shown = panels(judged(seen), judges, [], 0.4)[2].lines
    assert [line.label.partition(" ")[0] for line in shown] == ["age", "smile"]  # yaw moved by less than is told apart


def test_what_was_not_read_is_said(seen: Seen, judges: Judges) -> None:
    blind = replace(seen, read=[], identity=[], labels=[], landmarks=[(np.full((68, 2), np.nan),) * 2] * 10)
    notes = [panel.note for panel in panels(judged(blind), judges, [], 0.4)]
    assert all(note.startswith(("not computed: ", "no edit is set")) for note in notes)
    nothing = panels(None, None, EDITS, 0.4)
    assert [panel.note.partition(":")[0] for panel in nothing] == ["not computed"] * 3 + [""]
