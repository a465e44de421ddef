"""The build cache of the compiled kernel: everything that can go wrong costs one notice and falls back to torch."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
import torch

from sg3cli.nets import ops
from sg3cli.nets.ops import build, cpu_library, self_check

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """An empty cache, no library loaded, and a quick build."""
    monkeypatch.delenv("SG3_KERNEL", raising=False)
    monkeypatch.setenv("SG3_MALLOC", "default")
    monkeypatch.setattr(build, "FLAGS", tuple(f if f != "-O3" else "-O1" for f in build.FLAGS))
    monkeypatch.setattr(build, "cache_folder", lambda: tmp_path / "kernels")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the images are too small to share
    cpu_library.reset()
    yield tmp_path / "kernels"
    cpu_library.reset()
    torch.set_num_threads(threads)


def assert_falls_back(caplog: pytest.LogCaptureFixture, reason: str) -> None:
    """One notice that gives the reason, and the right numbers all the same."""
    x = torch.randn(1, 2, 16, 16)
    f = ops.design_lowpass_filter(12, 4, 4, 32)
    with caplog.at_level(logging.WARNING, logger="sg3cli.ops"):
        results = [ops.filtered_lrelu(x, f, f, None, 2, 2, (9, 8, 9, 8)) for _ in range(2)]
    assert len(caplog.records) == 1
    assert reason in caplog.text
    torch.testing.assert_close(results[0], ops.filtered_lrelu(x, f, f, None, 2, 2, (9, 8, 9, 8), impl="torch"))
    with pytest.raises(NotImplementedError):
        ops.filtered_lrelu(x, f, f, None, 2, 2, (9, 8, 9, 8), impl="kernel")


def test_no_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert_falls_back(caplog, "no C++ compiler")


@needs_compiler
def test_cache_cannot_be_written(fresh: Path, caplog: pytest.LogCaptureFixture) -> None:
    fresh.write_text("a file where the folder should be")  # the mode bits of a folder do not stop root
    assert_falls_back(caplog, "kernels")


@needs_compiler
def test_source_does_not_compile(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "broken source.cpp"
    source.write_text("int f() { return nothing; }")
    monkeypatch.setattr(build, "SOURCES", (source,))
    assert_falls_back(caplog, "nothing")
    assert not list(fresh.glob("*.so"))
    (notice,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "\n" not in notice and "ninja" not in notice and len(notice) < 300  # the log is for --debug


def test_a_compiler_s_log_becomes_the_line_that_says_most() -> None:
    said = "ninja: Entering directory\n[1/1] c++ -O3 a.cpp\nFAILED: kernel.so\nc++ -O3\n"
    assert build.cause_of(said + "a.cpp:3: error: no such thing\n  3 | int\nninja: build stopped.") == (
        "a.cpp:3: error: no such thing"
    )
    assert build.cause_of(said + "cc1plus: Killed") == "cc1plus: Killed" and build.cause_of("") == "it said nothing"
    assert len(build.cause_of("error " * 200)) == 160


def test_a_cache_that_is_read_only_costs_a_notice_and_not_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sg3cli.places.user_cache", lambda: tmp_path / "home")
    monkeypatch.setattr("sg3cli.places.temporary_cache", lambda: tmp_path / "temporary")
    assert build.cache_folder() == tmp_path / "home/kernels" and not caplog.records
    monkeypatch.setattr("sg3cli.places.is_writable", lambda folder: False)
    assert build.cache_folder() == tmp_path / "temporary/kernels" and "cannot be written" in caplog.text
    (tmp_path / "home/kernels").mkdir(parents=True)
    (tmp_path / "home/kernels/kernels-abc.so").touch()  # compiled beforehand, as in an image
    assert build.cache_folder() == tmp_path / "home/kernels"


@needs_compiler
def test_library_of_something_else(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "other.cpp"
    source.write_text('extern "C" int f() { return 1; }')
    monkeypatch.setattr(build, "SOURCES", (source,))
    assert_falls_back(caplog, "lacks a function")


@needs_compiler
def test_build_takes_too_long(fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(build, "BUILD_SECONDS", 0.05)
    assert_falls_back(caplog, "more than 0.05 s")
    assert not [p for p in fresh.iterdir() if p.suffix != ".lock"]  # nothing half-made stays


@needs_compiler
def test_lock_is_held(fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(build, "LOCK_SECONDS", 0.1)
    fresh.mkdir()
    path = fresh / f"kernels-{build._key(build._compiler())}.lock"
    with filelock.FileLock(path):
        assert_falls_back(caplog, "another process")


@needs_compiler
def test_built_once_then_damaged_then_wrong(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (fresh / "leftover").mkdir(parents=True)
    assert cpu_library.library() is not None
    (built,) = fresh.glob("*.so")
    stamp = built.stat().st_mtime_ns

    cpu_library.reset()
    assert cpu_library.library() is not None
    assert built.stat().st_mtime_ns == stamp  # not compiled again

    cpu_library.reset()
    # A new file under the same name: cutting the one that this process has mapped would kill it.
    damaged = built.read_bytes()[:5000]
    built.unlink()
    built.write_bytes(damaged)
    stale = fresh / f"{built.stem}-build-killed"
    stale.mkdir()
    assert cpu_library.library() is not None
    assert built.stat().st_size > 5000
    assert not stale.exists()

    cpu_library.reset()
    monkeypatch.setattr(self_check, "TOLERANCE", 0.0)
    assert_falls_back(caplog, "self check")


@needs_compiler
def test_two_processes_at_once(fresh: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from sg3cli.nets.ops import build\n"
        f"build.FLAGS = {build.FLAGS!r}\n"
        "print(build.ensure_built(Path(sys.argv[1])))"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(fresh)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    printed = {run.communicate(timeout=120)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert printed == {str(next(fresh.glob("*.so")))}


def test_switched_off(fresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("SG3_KERNEL", "off")
    assert cpu_library.library() is None
    assert not caplog.records


@needs_compiler
def test_first_use_inside_a_checkpoint_does_not_wait_for_itself() -> None:
    code = (
        "import torch; from torch.utils.checkpoint import checkpoint; from sg3cli.nets import ops\n"
        "f = ops.design_lowpass_filter(12, 4, 4, 32); x = torch.randn(1, 2, 16, 16, requires_grad=True)\n"
        "run = lambda x: ops.filtered_lrelu(x * x, f, f, None, 2, 2, (9, 8, 9, 8))\n"
        "checkpoint(run, x, use_reentrant=False).sum().backward(); print(x.grad.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "[1, 2, 16, 16]" in done.stdout
