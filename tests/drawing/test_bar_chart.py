"""Bars as long as their values, and none where nothing was computed."""

from __future__ import annotations

import numpy as np

from sg3cli.drawing.bar_chart import WIDTH, Bars, draw
from sg3cli.drawing.line_plot import PALETTE


def longest(image: np.ndarray, colour: tuple[int, int, int]) -> list[int]:
    """Pixels of the colour in every row that has some, one number for each bar."""
    counts = (image == colour).all(-1).sum(1)
    bars = np.split(counts, np.flatnonzero((counts > 0)[1:] != (counts > 0)[:-1]) + 1)
    return [int(bar.max()) for bar in bars if bar.any()]


def test_a_bar_is_as_long_as_its_value() -> None:
    image = draw("title", "words", [Bars("panel", ["a", "b", "c"], {"": [1.0, 2.0, 4.0]})])
    one, two, four = longest(image, PALETTE[0])
    assert image.shape[1] == WIDTH and four > 100
    assert abs(two - 2 * one) <= 3 and abs(four - 4 * one) <= 5


def test_what_was_not_computed_has_no_bar_but_words() -> None:
    panels = [Bars("panel", ["a", "b"], {"x": [1.0, None], "y": [None, float("inf")]})]
    image = draw("title", "words", panels)
    nothing = draw("title", "words", [Bars("panel", ["a", "b"], {"x": [None, None], "y": [None, None]})])
    legend = 20  # pixels of the swatches
    assert max(longest(image, PALETTE[0])) > 100 and max(longest(image, PALETTE[1])) < legend
    assert max(longest(nothing, PALETTE[0])) < legend
    blank = draw("title", "words", [Bars("panel", ["a", "b"], {"x": [0.0, 0.0], "y": [0.0, 0.0]})])
    assert (nothing < 200).sum() > (blank < 200).sum()  # `not computed` takes more ink than `0.000`


def test_images_stand_under_the_bars_and_rows_of_panels_under_each_other() -> None:
    panel = Bars("panel", ["a"], {"": [1.0]})
    strip = np.full((30, 100, 3), (9, 8, 7), np.uint8)
    one, with_strip, four = draw("t", "s", [panel]), draw("t", "s", [panel], [strip]), draw("t", "s", [panel] * 4)
    assert len(with_strip) == len(one) + 30 and (with_strip[-30:, :100] == strip).all()
    assert len(four) > len(one) and len(longest(four, PALETTE[0])) == 2
