"""Many videos as a table: each figure in its column, what is missing told from zero, distances over all together."""

from __future__ import annotations

import numpy as np
import pytest
from reports import figures

from sg3cli.evaluation.clip_table import COLUMNS, columns_of, means, shortened, table_lines
from sg3cli.evaluation.video_figures import MIN_CLIPS, MIN_FRAMES, frechet

POOLED = frechet([np.zeros((12, 2, 4))])


def test_each_figure_stands_under_its_heading() -> None:
    lines = table_lines(["a.mp4", "b.mp4"], [figures(), figures(sharpness=0.5)], POOLED)
    headings = [*(column.heading for column in COLUMNS), "age"]
    assert lines[0].split() == ["clip", *" ".join(headings).split()]
    shown = "12 0.910 0.820 0.993 0.974 0.0123 0.0045 1.16 1.27 1.38 3 0.89 0.451 1.52 83.1 1.75"
    assert lines[1].split() == ["a.mp4", *shown.split()]
    assert lines[2].split()[0] == "b.mp4" and lines[2].split()[12] == "0.50"
    assert {len(line) for line in lines[:3]} == {len(lines[0])}


def test_what_is_not_computed_is_a_dash_and_no_zero() -> None:
    silent = figures(sound=None, identity={"mean": None, "min": None, "local": None, "global": None}, attributes=None)
    lines = table_lines(["a", "b"], [silent, figures()], POOLED)
    assert " ".join(lines[1].split()) == "a 12 - - - - 0.0123 0.0045 1.16 1.27 1.38 3 0.89 0.451 1.52 - -"
    assert ["-", "not", "computed"] in [line.split() for line in lines]
    average = means(columns_of([silent, figures()]), [silent, figures()])
    assert average["likeness"] == pytest.approx(0.91)  # over the one that has it
    assert means(COLUMNS, [silent])["sound"] is None


def test_distances_pool_the_frames_of_all_clips() -> None:
    rng = np.random.default_rng(0)
    clips = [rng.normal(size=(MIN_FRAMES // 2, 2, 3)) for _ in range(2)]
    alone, together = frechet(clips[:1]), frechet(clips)
    assert alone["frames"] is None and alone["frames_used"] == MIN_FRAMES // 2
    assert together["frames"] is not None and together["frames_used"] == MIN_FRAMES
    assert together["clips"] is None and together["clips_used"] == 4 < MIN_CLIPS
    assert together["frames"] == pytest.approx(frechet([np.concatenate(clips)])["frames"])


def test_stretches_do_not_reach_from_one_clip_into_the_next() -> None:
    assert frechet([np.zeros((24, 2, 3))] * 2)["clips_used"] == 2  # 48 frames, of which 8 of each clip are left over


def test_a_long_name_keeps_its_end() -> None:
    assert shortened("x" * 60 + "_take_7.mp4").endswith("_take_7.mp4") and len(shortened("x" * 99)) == 40
