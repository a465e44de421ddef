"""Times and parts of a video as the user writes them.

Ranges are written `0:10-0:20`, `1:02:03.5-1:02:10`, `10s..20s`, `300ms..`, `..2m`; several are parted by commas.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction
from itertools import pairwise

from sg3cli.errors import UsageError

SYNTAX = "a range is 0:10-0:20, 10s..20s, or open as in 10s.. ; several are parted by commas"

Ranges = tuple[tuple[float, float], ...]  # (start, end) in seconds from the first frame; the end is not included


def parse_ranges(text: str) -> Ranges:
    """The ranges in order of time. Raises `UsageError` for what cannot be read, is empty or overlaps."""
    ranges = sorted(parse_interval(part, text) for part in text.split(","))
    if any(after[0] < before[1] for before, after in pairwise(ranges)):
        raise UsageError(f"the ranges of {text!r} overlap", SYNTAX)
    return tuple(ranges)


def parse_interval(part: str, text: str) -> tuple[float, float]:
    """`0:10-0:20`, `10s..20s`, `10s..` or `..2m` as (start, end) in seconds, `inf` for an open end.

    `text` is the whole that it was written in, for the `UsageError`.
    """
    mark = ".." if ".." in part else "-"
    first, dots, last = part.partition(mark)
    if not dots or not (first.strip() or last.strip()):
        raise UsageError(f"cannot read the range {text!r}", SYNTAX)
    start = _seconds(first, text) if first.strip() else 0.0
    end = _seconds(last, text) if last.strip() else math.inf
    if end <= start:
        raise UsageError(f"the range {text!r} ends before it starts", SYNTAX)
    return start, end


def _seconds(part: str, text: str) -> float:
    seconds = seconds_of(part)
    if seconds is None:
        raise UsageError(f"{part.strip()!r} in {text!r} is not a time", SYNTAX)
    return seconds


UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "": 1.0}
NUMBER = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(ms|s|m|h|)\s*")
CLOCK = re.compile(r"\s*(?:(\d+):)?(\d+):(\d+\.?\d*)\s*")


def seconds_of(text: str) -> float | None:
    """`10`, `10.5s`, `300ms`, `2m`, `1:30`, `1:02:03.5` in seconds; None for what is no time."""
    if number := NUMBER.fullmatch(text):
        return float(number[1]) * UNITS[number[2]]
    clock = CLOCK.fullmatch(text)
    if clock is None or float(clock[3]) >= 60 or (clock[1] and int(clock[2]) >= 60):
        return None
    return int(clock[1] or 0) * 3600.0 + int(clock[2]) * 60.0 + float(clock[3])


def parse_rate(text: str) -> Fraction:
    """`25`, `23.976` or `30000/1001` -> frames a second; raises `UsageError`."""
    try:
        rate = Fraction(text.strip()).limit_denominator(100_000)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not Fraction(1, 1000) <= rate <= 1000:
        raise UsageError(f"the rate is {text!r}", "it must be frames a second, as in 25 or 30000/1001")
    return rate
