"""Parts of a film by time: what is written, how it fades, and that the rest keeps its bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.errors import UsageError
from sg3cli.ranges import FADE, only_inside, opacity, parse_ranges


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:10-0:20", ((10, 20),)),
        ("10s..20s", ((10, 20),)),
        ("1:02:03.5-1:02:10", ((3723.5, 3730),)),
        ("300ms..", ((0.3, math.inf),)),
        ("..2m", ((0, 120),)),
        ("5-6,1-2", ((1, 2), (5, 6))),
    ],
)
def test_ranges_as_they_are_written(text: str, expected: tuple[tuple[float, float], ...]) -> None:
    assert parse_ranges(text) == expected


@pytest.mark.parametrize("text", ["", "..", "-", "5", "20-10", "1-3,2-4", "a..b", "0:75-0:80", "1..2..3"])
def test_what_is_no_range_is_named(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_ranges(text)
    assert repr(text) in str(error.value)


@given(start=st.floats(0.5, 5), length=st.floats(0.01, 4), rate=st.floats(5, 60))
def test_opacity_is_whole_inside_and_nothing_outside(start: float, length: float, rate: float) -> None:
    times = np.arange(0, 12, 1 / rate)
    shown = opacity(times, ((start, start + length),))
    assert ((shown >= 0) & (shown <= 1)).all()
    assert (shown[(times < start) | (times >= start + length)] == 0).all()
    well = (times >= start + FADE) & (times <= start + length - FADE)
    assert shown[well] == pytest.approx(1)
    assert np.abs(np.diff(shown)).max(initial=0) <= 1 / rate / FADE + 1e-9  # it never jumps


def test_no_fade_at_the_film_s_own_ends() -> None:
    times = np.arange(10) / 10
    assert (opacity(times, parse_ranges("0..")) == 1).all()


@dataclass(frozen=True)
class Number:
    index: int
    value: float


@given(
    frames=st.integers(1, 40),
    batch=st.integers(1, 5),
    start=st.integers(0, 30),
    length=st.integers(0, 30),
    skipped=st.integers(0, 3),
)
def test_only_inside_is_the_whole_composition_seen_through_the_range(
    frames: int, batch: int, start: int, length: int, skipped: int
) -> None:
    """And the editor is given whole batches, wherever the stream begins."""
    shown = np.zeros(frames)
    shown[start : start + length] = 1.0
    shown[start : start + 1] = 0.5
    seen: list[int] = []

    def edited(part: Iterator[Number]) -> Iterator[Number]:
        for number in part:
            seen.append(number.index)
            yield replace(number, value=number.value + 100)

    def blend(below: Number, above: Number, share: float) -> Number:
        return replace(below, value=below.value + share * (above.value - below.value))

    first = min(skipped * batch, frames)
    stream = (Number(k, float(k)) for k in range(first, frames))
    made = list(only_inside(stream, shown, batch, edited, lambda number: number, blend))
    assert [number.value for number in made] == [k + 100 * shown[k] for k in range(first, frames)]
    for k in range(0, frames, batch):
        part = set(range(k, min(k + batch, frames))) & set(range(first, frames))
        assert part <= set(seen) or not part & set(seen)
        assert (shown[k : k + batch] > 0).any() or not part & set(seen)
