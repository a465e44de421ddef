"""Times and ranges as the user writes them, and what is no range."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.errors import UsageError
from sg3cli.time_ranges import Ranges, parse_ranges

INF = math.inf


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("10-20", ((10, 20),)),
        ("0:10-0:20", ((10, 20),)),
        ("1:02:03.5-1:02:10", ((3723.5, 3730),)),
        ("90:00-1:31:00", ((5400, 5460),)),  # minutes alone may pass sixty
        ("10s..20s", ((10, 20),)),
        ("300ms..1.5m", ((0.3, 90),)),
        (".5..1h", ((0.5, 3600),)),
        (" 1 - 2 ", ((1, 2),)),
        ("10s..", ((10, INF),)),
        ("0:10-", ((10, INF),)),
        ("..2m", ((0, 120),)),
        ("-3", ((0, 3),)),
        ("5..6,1..2, 8..", ((1, 2), (5, 6), (8, INF))),
        ("1..2,2..3", ((1, 2), (2, 3))),  # the end is not included, so they touch and do not overlap
    ],
)
def test_every_form_of_a_range(text: str, ranges: Ranges) -> None:
    assert parse_ranges(text) == ranges


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "cannot read"),
        ("..", "cannot read"),
        ("-", "cannot read"),
        ("10", "cannot read"),
        ("1..2,", "cannot read"),
        ("2..1", "ends before it starts"),
        ("1..1", "ends before it starts"),
        ("..0", "ends before it starts"),
        ("1..3,2..4", "overlap"),
        ("1..,5..6", "overlap"),
        ("1..2..3", "not a time"),
        ("1-2-3", "not a time"),
        ("a..b", "not a time"),
        ("nan..2", "not a time"),
        ("0..inf", "not a time"),
        ("-1..2", "not a time"),
        ("1e3..", "not a time"),
        ("0:60-2:00", "not a time"),
        ("1:60:00-2:00:00", "not a time"),
        ("5d..", "not a time"),
    ],
)
def test_what_is_no_range_is_an_error_that_names_it(text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        parse_ranges(text)
    assert repr(text) in str(caught.value) and caught.value.hint.startswith("a range is 0:10-0:20")


@given(st.lists(st.integers(1, 400_000), min_size=2, max_size=12, unique=True))
def test_milliseconds_seconds_and_the_clock_say_the_same(bounds: list[int]) -> None:
    bounds = sorted(bounds)[: len(bounds) // 2 * 2]
    parts = list(zip(bounds[::2], bounds[1::2], strict=True))

    def clock(ms: int) -> str:
        return f"{ms // 3_600_000}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"

    for written in (lambda ms: f"{ms}ms", lambda ms: f"{ms / 1000}s", clock):
        found = parse_ranges(",".join(f"{written(a)}-{written(b)}" for a, b in reversed(parts)))
        assert np.allclose(found, np.array(parts) / 1000)
