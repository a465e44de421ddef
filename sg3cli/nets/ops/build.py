"""Compile the CPU kernel and keep it in a per-user cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from sg3cli.files import atomic_path

FOLDER = Path(__file__).with_name("kernels")
SOURCES = (FOLDER / "filtered_lrelu.cpp", FOLDER / "convolution.cpp")
HEADER = FOLDER / "common.h"
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-pthread", "-fno-math-errno")
BUILD_SECONDS = 120.0
LOCK_SECONDS = 150.0


class BuildError(Exception):
    """The kernel cannot be had; the message says why."""


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    import platformdirs

    return platformdirs.user_cache_path("sg3") / "kernels"


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
        raise BuildError(f"the compiler failed: {said.strip()[-400:]}")


def _escape(text: str) -> str:
    """Escape a path for a ninja file."""
    return text.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
