"""Lines over time as places in a box: nothing is moved, bridged or flattened on the way."""

from __future__ import annotations

import re

import numpy as np
import pytest

from sg3cli.drawing.line_plot import Line, Panel, Shade
from sg3cli.drawing.plot_layout import HEIGHT, WIDTH, layout, steps, thinned


def points(path: str) -> np.ndarray:
    return np.array([[float(x) for x in pair.split()] for pair in re.split("[ML]", path)[1:]])


def test_a_value_lies_between_the_ticks_that_enclose_it() -> None:
    drawn = layout(Panel("", [Line("a", np.array([0.0, 1.0, 2.0]), np.array([0.0, 3.0, 10.0]))]), 4.0)
    at = {tick.text: HEIGHT * tick.place for tick in drawn.values}
    x, y = points(drawn.lines[0].path).T
    assert x.tolist() == [0, WIDTH / 4, WIDTH / 2]
    assert y[0] == pytest.approx(at["0"], abs=0.01) and y[2] == pytest.approx(at["10"], abs=0.01)
    assert y[1] == pytest.approx(at["0"] + 0.3 * (at["10"] - at["0"]), abs=0.02)
    assert [tick.text for tick in drawn.times] == ["0", "1", "2", "3", "4"]
    assert [tick.place for tick in drawn.times] == [0, 0.25, 0.5, 0.75, 1]


def test_on_a_log_axis_equal_ratios_are_equal_distances() -> None:
    drawn = layout(Panel("", [Line("a", np.arange(4.0), np.array([1.0, 10.0, 100.0, 0.0]))], log=True), 3.0)
    _, y = points(drawn.lines[0].path).T
    assert len(y) == 3 and y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.02)  # 0 is left out
    assert [tick.text for tick in drawn.values] == ["1", "10", "100"]


def test_a_gap_is_not_bridged() -> None:
    values = np.array([1.0, 2.0, np.nan, 2.0, 1.0])
    drawn = layout(Panel("", [Line("a", np.arange(5.0), values, dots=True)]), 4.0)
    assert [len(part.split("L")) for part in drawn.lines[0].path.split("M")[1:]] == [2, 2]
    assert drawn.lines[0].dots.count("M") == 4


def test_thinning_keeps_a_peak_of_one_sample_and_a_gap() -> None:
    y = np.sin(np.arange(20_000) / 500)
    y[12_345], y[7_000:7_010] = 40.0, np.nan
    x, kept = thinned(np.arange(20_000.0), y)
    assert len(kept) <= 850 and kept[x == 12_345].tolist() == [40.0]
    assert np.isnan(kept).any() and x[0] == 0 and x[-1] == 19_999


def test_a_flat_line_and_no_line_at_all() -> None:
    flat = layout(Panel("", [Line("a", np.arange(2.0), np.array([0.5, 0.5]))]), 1.0)
    assert ((points(flat.lines[0].path)[:, 1] > 0) & (points(flat.lines[0].path)[:, 1] < HEIGHT)).all()
    empty = layout(Panel("x", (), note="not computed"), 1.0)
    assert (empty.lines, empty.values, empty.note) == ((), (), "not computed")


def test_grounds_lie_where_they_are_in_time() -> None:
    drawn = layout(Panel("", ()), 10.0, [Shade("no face", (0, 0, 0), [(2.0, 4.5)])])
    assert [(band.label, band.start, band.width) for band in drawn.bands] == [("no face", 0.2, 0.25)]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.91, 0.96), (-3, 7), (1234, 1239), (0, 1e-5)])
def test_ticks_are_round_and_few(low: float, high: float) -> None:
    found = steps(low, high, 4)
    assert 2 <= len(found) <= 5 and min(found) >= low - 1e-9 and max(found) <= high + 1e-9
    assert np.ptp(np.diff(found)) < 1e-6
