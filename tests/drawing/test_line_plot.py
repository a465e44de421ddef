"""Plots over time: axes, lines and grounds, and what `sg3 inspect --plot` makes of a project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from sg3cli import cli
from sg3cli.drawing.line_plot import (
    BOTTOM,
    LEFT,
    PALETTE,
    PANEL,
    PAPER,
    RIGHT,
    TITLE,
    TOP,
    WIDTH,
    Line,
    Panel,
    Shade,
    draw,
)
from sg3cli.evaluation.timeline import (
    Sampled,
    identity_panel,
    landmark_jitter,
    reconstruction_panel,
    shades,
    strength_panel,
)
from sg3cli.faces.alignment import ABSENT, INTERPOLATED, Track
from sg3cli.latents.edits import parse_edit
from sg3cli.manifest import read_manifest, write_manifest
from sg3cli.metrics.temporal import accelerations, jitter


def box(number: int) -> tuple[slice, slice]:
    """Rows and columns inside the frame of a panel."""
    top = TOP + number * (PANEL + TITLE) + TITLE
    return slice(top + 1, top + PANEL), slice(LEFT + 1, WIDTH - RIGHT)


def inked(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(image.astype(int) - colour) <= 2).all(axis=2)


# ---- the drawing


def test_a_line_runs_where_its_values_are_and_breaks_at_gaps() -> None:
    times = np.linspace(0, 4, 101)
    values = np.where((times > 1.5) & (times < 2.5), np.nan, times)
    image = draw("t", [Panel("p", [Line("", times, values)])], 4.0)
    assert image.shape == (TOP + PANEL + TITLE + BOTTOM, WIDTH, 3)
    rows, columns = np.nonzero(inked(image[box(0)], PALETTE[0]))
    seconds = columns / (WIDTH - RIGHT - LEFT) * 4
    assert not ((seconds > 1.55) & (seconds < 2.45)).any()
    assert seconds.min() < 0.05 and seconds.max() > 3.95
    assert np.corrcoef(columns, rows)[0, 1] < -0.99  # it rises from left to right


def test_a_single_value_is_a_dot() -> None:
    values = np.array([np.nan, 1.0, np.nan])
    image = draw("t", [Panel("p", [Line("", np.arange(3.0), values)])], 2.0)
    rows, columns = np.nonzero(inked(image[box(0)], PALETTE[0]))
    assert 5 <= len(rows) <= 60 and abs(columns.mean() - (WIDTH - RIGHT - LEFT) / 2) < 2


def test_shaded_times_have_their_ground_in_every_panel() -> None:
    panels = [Panel("a", [], note="not computed"), Panel("b", [])]
    colour = (200, 210, 220)
    image = draw("t", panels, 10.0, [Shade("gone", colour, [(2.0, 4.0)])])
    for number in range(2):
        shaded = inked(image[box(number)], colour)
        columns = np.flatnonzero(shaded.mean(axis=0) > 0.5) / (WIDTH - RIGHT - LEFT) * 10
        assert columns.min() == pytest.approx(2, abs=0.02) and columns.max() == pytest.approx(4, abs=0.02)
    words = [(~inked(image[box(k)], PAPER) & ~inked(image[box(k)], colour)).sum() for k in range(2)]
    assert words[0] > words[1] + 200  # the note is written into its panel


def test_a_logarithmic_axis_leaves_out_what_is_not_positive_and_an_empty_panel_has_no_line() -> None:
    values = np.array([0.0, 10.0, 100.0, 1000.0, np.inf])
    picture = draw(
        "t",
        [
            Panel("p", [Line("", np.arange(5.0), values)], log=True),
            Panel("q", [Line("", np.arange(2.0), np.full(2, np.nan))]),
        ],
        4.0,
    )
    rows, columns = np.nonzero(inked(picture[box(0)], PALETTE[0]))
    seconds = columns / (WIDTH - RIGHT - LEFT) * 4
    assert seconds.min() > 0.95 and seconds.max() < 3.05
    middle = rows[np.abs(seconds - 2) < 0.02].mean()
    assert abs(middle - (rows.min() + rows.max()) / 2) < 6  # 100 lies half-way from 10 to 1000
    assert not inked(picture[box(1)], PALETTE[0]).any()


def test_the_legend_stands_above_the_lines_and_not_on_them() -> None:
    times = np.linspace(0, 4, 50)
    lines = [Line("measured, as it came", times, np.full(50, 9.0)), Line("smoothed", times, np.linspace(8, 9, 50))]
    bare_lines = [Line("", line.times, line.values) for line in lines]
    words, bare = (draw("t", [Panel("p", drawn)], 4.0) for drawn in (lines, bare_lines))
    assert np.array_equal(words[box(0)], bare[box(0)]) and not np.array_equal(words, bare)


# ---- what is shown of a project


def track_with(status: list[int]) -> Track:
    count = len(status)
    rng = np.random.default_rng(0)
    marks = rng.normal(100, 1, (count, 68, 2)).astype(np.float32)
    state = np.array(status, np.uint8)
    marks[state == ABSENT] = np.nan
    quads, times = np.zeros((count, 4, 2)), np.arange(count) / 10
    return Track(np.arange(count), times, marks, quads, quads, quads, np.zeros((count, 3, 3)), state, state)


def test_the_panel_shows_the_jitter_of_each_stretch() -> None:
    track = track_with([0] * 6 + [ABSENT] * 3 + [0] * 5 + [ABSENT, 0, 0])
    values = landmark_jitter(track.landmarks, track)
    known = np.isfinite(values)
    assert np.flatnonzero(known).tolist() == [1, 2, 3, 4, 10, 11, 12]
    assert values[1:5].mean() == pytest.approx(jitter(track.landmarks[:6], track.times[:6]))


def test_accelerations_of_a_parabola_are_its_curvature() -> None:
    times = np.array([0.0, 0.1, 0.25, 0.3, 0.5])
    points = np.stack([2.5 * times**2, 0 * times], -1)[:, None]
    assert accelerations(points, times) == pytest.approx(5.0)


def test_shades_are_the_frames_without_the_face_and_those_bridged() -> None:
    track = track_with([0, 0, INTERPOLATED, INTERPOLATED, 0, ABSENT, ABSENT])
    bridged, absent = shades(track, 0.7)
    assert bridged.spans == [pytest.approx((0.2, 0.4))] and absent.spans == [pytest.approx((0.5, 0.7))]


def test_sampled_lines_break_where_there_is_no_face() -> None:
    sampled = Sampled(np.array([0.25, 0.3]), [0.0, 0.2, 0.5, 0.6], [20.0, 21, 22, 23], [24.0, 25, 26, 27])
    panel = reconstruction_panel(sampled)
    assert [line.label for line in panel.lines] == ["inversion (mean 21.5)", "tuned (mean 25.5)"] and not panel.note
    assert np.isnan(panel.lines[0].values).tolist() == [False, False, True, False, False]
    assert panel.lines[0].times.tolist() == [0, 0.2, 0.2, 0.5, 0.6]


def test_what_is_missing_is_named() -> None:
    assert "sg3 invert" in reconstruction_panel(None).note and "sg3 invert" in identity_panel(None, False).note
    untuned = reconstruction_panel(Sampled(np.empty(0), [0.0], [20.0]))
    assert "sg3 finetune" in untuned.note and len(untuned.lines) == 1
    assert "no probe" in identity_panel(Sampled(np.empty(0), [0.0], [20.0]), False).note
    assert "sg3 edit" in strength_panel([], 1.0).note


def test_strengths_follow_their_keyframes() -> None:
    panel = strength_panel([parse_edit("age=0s:0,2s:2")], 4.0)
    values = panel.lines[0].values
    assert values[0] == 0 and values[-1] == 2 and values[len(values) // 4] == pytest.approx(1, abs=0.01)


# ---- the command


@pytest.fixture
def project(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished project."""
    shutil.copytree(tuned / "talk.sg3", tmp_path / "talk.sg3")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "talk.sg3"


def test_inspect_draws_a_finished_project(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", "talk.sg3", "--plot", "p.png", "--samples", "5", "--json", "-q"]) == 0
    plot = json.loads(capsys.readouterr().out)["plot"]
    assert plot["path"] == "p.png" and plot["sampled"] == 5
    means = plot["means"]
    names = {title.partition(":")[0]: lines for title, lines in means.items()}
    assert len(names["jitter"]) == 3 and names["identity"] is None  # the tiny model has no attribute net
    raw, smooth, _ = names["jitter"].values()
    assert 0 < smooth < raw
    assert all(3 < value < 60 for value in names["reconstruction"].values()) and len(names["reconstruction"]) == 2
    assert names["edits"]["age"] > 0
    image = cv2.imread("p.png")[..., ::-1]
    assert inked(image[box(0)], PALETTE[2]).sum() > 200 and inked(image[box(1)], PALETTE[1]).sum() > 50
    assert not inked(image[box(2)], PALETTE[0]).any()
    assert cli.run(["inspect", "talk.sg3", "--plot", "p.png", "--samples", "2"]) == 0  # a plot is replaced
    assert "plot      p.png" in capsys.readouterr().out


def test_what_was_not_done_is_left_out(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = read_manifest(project)
    manifest["stages"] = {"align": manifest["stages"]["align"]}
    write_manifest(project, manifest)
    assert cli.run(["inspect", "talk.sg3", "--plot", "p.png", "--json"]) == 0
    plot = json.loads(capsys.readouterr().out)["plot"]
    assert plot["sampled"] == 0 and list(plot["means"].values())[1:3] == [None, None]
    assert (project.parent / "p.png").is_file()


@pytest.mark.parametrize(("name", "words"), [("p.jpg", "PNG"), ("mine.png", "not a plot"), ("no/p.png", "write")])
def test_a_plot_replaces_nothing_but_a_plot(
    project: Path, name: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = project.parent / "mine.png"
    mine.write_bytes(b"mine")
    assert cli.run(["inspect", "talk.sg3", "--plot", name]) in (2, 3)
    assert words in capsys.readouterr().err and mine.read_bytes() == b"mine"
