"""Times as the user writes them."""

from __future__ import annotations

import re

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
