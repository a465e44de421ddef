"""How many threads a run in the background does best with, while others use the machine as well.

Threads of one run wait for each other after every operation. When one of two cores is busy with something of higher
priority, two threads are ten times slower than one (seen: 21 s a step instead of 2.5 s).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

STAT = Path("/proc/stat")
EVERY = 2.0  # seconds over which the load of others is measured
BUSY = 0.35  # cores that others may use before a thread is given up
IDLE_FIELDS = (3, 4)  # of the line `cpu` in /proc/stat: idle, waiting for disks


def busy_seconds() -> float | None:
    """CPU seconds that all processes together have used since the machine started; None where nothing tells."""
    if not STAT.is_file():
        return None
    ticks = [int(v) for v in STAT.read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - sum(ticks[k] for k in IDLE_FIELDS)) / os.sysconf("SC_CLK_TCK")


class SpareCores:
    """`adapt()` between steps sets torch's threads to the cores that others leave, `limit` at most."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.since, self.all, self.own = time.monotonic(), busy_seconds(), sum(os.times()[:4])

    def adapt(self) -> int:
        """Measure, every few seconds; the number of threads now."""
        now = time.monotonic()
        if self.all is None or now - self.since < EVERY:
            return torch.get_num_threads()
        busy, own = busy_seconds() or 0.0, sum(os.times()[:4])
        others = ((busy - self.all) - (own - self.own)) / (now - self.since)
        self.since, self.all, self.own = now, busy, own
        threads = threads_for(others, self.limit, os.cpu_count() or 1)
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        return threads


def threads_for(others: float, limit: int, cores: int) -> int:
    """Threads for a machine on which others use so many cores."""
    free = cores - int(others + 1 - BUSY)
    return max(1, min(limit, free))
