"""Compile the CPU kernel and keep it in a per-user cache."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from sg3cli import places
from sg3cli.files import atomic_path

log = logging.getLogger("sg3cli.ops")

FOLDER = Path(__file__).with_name("kernels")
SOURCES = (FOLDER / "filtered_lrelu.cpp", FOLDER / "convolution.cpp")
HEADER = FOLDER / "common.h"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread", "-fno-math-errno")
BUILD_SECONDS = 120.0
LOCK_SECONDS = 150.0


class BuildError(Exception):
    """The kernel cannot be had; the message says why."""


def cache_folder() -> Path:
    """Where compiled kernels are kept: in the user's cache, or beside the temporary files where that is read-only."""
    folder = places.user_cache() / "kernels"
    if places.is_writable(folder) or next(folder.glob("kernels-*.so"), None) is not None:
        return folder
    instead = places.temporary_cache() / "kernels"
    log.warning("%s cannot be written: the compiled CPU kernel is kept in %s", folder, instead)
    return instead


def ensure_built(folder: Path) -> Path:
    """Path of the compiled library in `folder`; compiles it under a lock if it is not there or was damaged."""
    import filelock

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
        with atomic_path(path.with_suffix(".sha256")) as temp:
            temp.write_text(_digest(built))
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
        log.debug("what the compiler said:\n%s", said)
        raise BuildError(f"the compiler failed: {cause_of(said)}")


def cause_of(said: str, limit: int = 160) -> str:
    """The one line of a compiler's and ninja's output that says most, at most so long."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.startswith(("ninja:", "FAILED:"))]
    named = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    line = (named or lines[-1:] or ["it said nothing"])[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _escape(text: str) -> str:
    """Escape a path for a ninja file."""
    return text.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
