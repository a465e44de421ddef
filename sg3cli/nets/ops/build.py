"""Compile the CPU kernel at first use and keep it in a per-user cache.

Anything that goes wrong (no compiler, read-only cache, a build that is killed or takes too long, a library that does
not load or computes something else than the torch reference) costs one notice, and the torch path is used instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import filelock
import platformdirs
import torch

log = logging.getLogger("sg3cli.ops")

FOLDER = Path(__file__).with_name("kernels")
SOURCES = (FOLDER / "filtered_lrelu.cpp", FOLDER / "convolution.cpp")
HEADER = FOLDER / "common.h"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread", "-fno-math-errno")
BUILD_SECONDS = 120.0
LOCK_SECONDS = 150.0
LARGE_BLOCK = 256 << 20

_lock = threading.Lock()
_library: ctypes.CDLL | None = None
_tried = False


class BuildError(Exception):
    """The kernel cannot be had; the message says why."""


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
                _library = _load_and_check(cache_folder())
                keep_heap()
            except (BuildError, OSError, subprocess.SubprocessError) as e:
                log.warning("the compiled CPU kernel is not available, using plain torch (slower): %s", e)
            _tried = True
    return _library


def reset() -> None:
    """Forget the loaded kernel, so that the next call looks for it again."""
    global _library, _tried
    _library, _tried = None, False


def keep_heap() -> bool:
    """Let glibc keep freed blocks for the next tensor instead of returning them to the system; True if it does.

    Every layer allocates and frees tensors of many megabytes. Fresh pages cost more than the arithmetic on virtual
    machines (1-3 GB/s against 20-30). `SG3_MALLOC=default` leaves the allocator alone.
    """
    top_pad, trim_threshold, mmap_max = -2, -1, -4  # malloc.h
    return _mallopt((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 1 << 26))


@contextlib.contextmanager
def large_blocks_go_back() -> Iterator[None]:
    """Inside, blocks of `LARGE_BLOCK` bytes and more return to the system when they are freed.

    A backward pass frees a few huge blocks in an order that leaves holes in the heap; here they cost more time
    and save gigabytes.
    """
    mmap_threshold, mmap_max = -3, -4
    changed = library() is not None and _mallopt((mmap_max, 1 << 16), (mmap_threshold, LARGE_BLOCK))
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


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    return platformdirs.user_cache_path("sg3") / "kernels"


def _load_and_check(folder: Path) -> ctypes.CDLL:
    from sg3cli.nets.ops.cpu_kernel import bind  # these two need this module
    from sg3cli.nets.ops.self_check import self_check

    try:
        lib = bind(ctypes.CDLL(str(ensure_built(folder))))
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


def ensure_built(folder: Path) -> Path:
    """Path of the compiled library in `folder`; compiles it under a lock if it is not there or was damaged."""
    compiler = _compiler()
    path = folder / f"kernels-{_key(compiler)}.so"
    if _intact(path):
        return path
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(path.with_suffix(".lock"), timeout=LOCK_SECONDS):
            if not _intact(path):
                _compile(compiler, path)
    except filelock.Timeout as e:
        raise BuildError(f"another process has been building it for over {LOCK_SECONDS:.0f} s") from e
    return path


def _intact(path: Path) -> bool:
    """True if the library is what was compiled: loading one that is cut off can kill the process."""
    try:
        return path.with_suffix(".sha256").read_text() == _digest(path)
    except OSError:
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _compiler() -> str:
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise BuildError("no C++ compiler was found")


def _ninja() -> str:
    try:
        import ninja
    except ImportError:
        found = shutil.which("ninja")
        if found is None:
            raise BuildError("ninja was not found") from None
        return found
    return str(Path(ninja.BIN_DIR) / "ninja")


def _key(compiler: str) -> str:
    """Digest of everything the binary depends on: source, flags, compiler and the CPU it is made for."""
    version = subprocess.run([compiler, "--version"], capture_output=True, timeout=20, check=False).stdout
    sources = b"\0".join(path.read_bytes() for path in (*SOURCES, HEADER))
    parts = (sources, " ".join(FLAGS).encode(), compiler.encode(), version, _cpu_flags().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]


def _cpu_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _compile(compiler: str, path: Path) -> None:
    """Compile into a temporary folder beside `path`, then rename."""
    prefix = f"{path.stem}-build-"
    for left in path.parent.glob(f"{prefix}*"):  # of a process that was killed: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as work:
        built = Path(work) / "kernel.so"
        Path(work, "build.ninja").write_text(
            f"rule cxx\n  command = {_escape(compiler)} {' '.join(FLAGS)} $in -o $out\n"
            f"build {built.name}: cxx {' '.join(_escape(str(path)) for path in SOURCES)}\n"
        )
        _run_ninja(work)
        path.with_suffix(".sha256").write_text(_digest(built))
        os.replace(built, path)


def _run_ninja(work: str) -> None:
    """Run the build in `work`; ends the compiler too when time is up or the user interrupts."""
    output = subprocess.PIPE
    with subprocess.Popen(
        [_ninja(), "-C", work], stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            said, _ = process.communicate(timeout=BUILD_SECONDS)
        except subprocess.TimeoutExpired as e:
            raise BuildError(f"the compiler took more than {BUILD_SECONDS:g} s") from e
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise BuildError(f"the compiler failed: {said.strip()[-400:]}")


def _escape(text: str) -> str:
    """Escape a path for a ninja file."""
    return text.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
