"""How much memory this process has taken."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_rss() -> int:
    """Most bytes of memory that this process had at once, since the kernel was told to forget where it was.

    From the kernel's own account where there is one: `getrusage` counts what the parent had before the program began.
    """
    import resource

    try:
        status = Path("/proc/self/status").read_text(encoding="utf8")
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
