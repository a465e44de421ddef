"""glibc's allocator, told to keep the blocks that the next layer needs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

LARGE_BLOCK = 256 << 20

_kept = False  # whether `keep_heap` has been asked for in this process


def keep_heap() -> bool:
    """Let glibc keep freed blocks for the next tensor instead of returning them to the system; True if it does.

    Every layer allocates and frees tensors of many megabytes. Fresh pages cost more than the arithmetic on virtual
    machines (1-3 GB/s against 20-30). `SG3_MALLOC=default` leaves the allocator alone.
    """
    global _kept
    _kept = True
    top_pad, trim_threshold, mmap_max = -2, -1, -4  # malloc.h
    return _mallopt((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 1 << 26))


@contextlib.contextmanager
def large_blocks_go_back() -> Iterator[None]:
    """Inside, blocks of `LARGE_BLOCK` bytes and more return to the system when they are freed.

    A backward pass frees a few huge blocks in an order that leaves holes in the heap; here they cost more time
    and save gigabytes.
    """
    mmap_threshold, mmap_max = -3, -4
    changed = _kept and _mallopt((mmap_max, 1 << 16), (mmap_threshold, LARGE_BLOCK))
    try:
        yield
    finally:
        if changed:
            keep_heap()


def _mallopt(*settings: tuple[int, int]) -> bool:
    """Hand settings to glibc's allocator; False if it is another one or is to be left alone."""
    if os.environ.get("SG3_MALLOC", "") == "default" or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(name, value) == 1 for name, value in settings)
