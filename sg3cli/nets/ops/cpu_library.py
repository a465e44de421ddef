"""The loaded CPU kernel: built if needed, checked against the torch reference, looked for once per process.

Anything that goes wrong (no compiler, read-only cache, a build that is killed or takes too long, a library that does
not load or computes something else than the torch reference) costs one notice, and the torch path is used instead.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import threading
from pathlib import Path

import torch

from sg3cli.nets.ops import build
from sg3cli.nets.ops.allocator import keep_heap
from sg3cli.nets.ops.build import BuildError
from sg3cli.nets.ops.cpu_binding import bind
from sg3cli.nets.ops.self_check import self_check

log = logging.getLogger("sg3cli.ops")

_lock = threading.Lock()
_library: ctypes.CDLL | None = None
_tried = False


def library() -> ctypes.CDLL | None:
    """The loaded kernel, built if needed; None (and one notice) if it cannot be had. `SG3_KERNEL=off` is silent."""
    global _library, _tried
    if _tried:
        return _library
    if os.environ.get("SG3_KERNEL", "").lower() in ("off", "0"):
        return None
    with _lock:
        if not _tried:
            try:
                _library = _load_and_check(build.cache_folder())
                keep_heap()
            except (BuildError, OSError, subprocess.SubprocessError) as e:
                log.warning("the compiled CPU kernel is not available, using plain torch (slower): %s", e)
            _tried = True
    return _library


def reset() -> None:
    """Forget the loaded kernel, so that the next call looks for it again."""
    global _library, _tried
    _library, _tried = None, False


def _load_and_check(folder: Path) -> ctypes.CDLL:
    try:
        lib = bind(ctypes.CDLL(str(build.ensure_built(folder))))
    except AttributeError as e:
        raise BuildError(f"it lacks a function ({e})") from e
    error = self_check(lib)
    if error is not None:
        raise BuildError(f"it failed its self check ({error})")
    lib.sg3_set_parallel(_openmp_entry())
    return lib


def _openmp_entry() -> int | None:
    """Address of GOMP_parallel in the OpenMP runtime that torch brings: a second pool would compete with its own."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
    return None
