"""Kills at any moment, signals, full disks, read-only places, two runs at once: it is said, and nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forks import Forks, forks
from running import cut, environment, example_clip, sg3

from sg3cli.files import digest_of

FRAMES, CHUNK, KILLS = 24, 8, 20
SETTINGS = ("--edit=age=2", "--finetune-steps=6", "--finetune-batch=2", "--loss=structural", "--save-every=2")
BESIDE = {"talk.mp4", "talk.sg3", "out.mp4", "out.mp4.json"}


@pytest.fixture(scope="module")
def server() -> Iterator[Forks]:
    with forks() as found:
        yield found


@pytest.fixture(scope="module")
def line(tiny_bundle: Path) -> list[str]:
    """A run whose video is kept in three chunks of eight frames."""
    common = ("--model", str(tiny_bundle), *SETTINGS, "--preset=veryfast", f"--segment={CHUNK / 25}")
    return ["run", "talk.mp4", "-o", "out.mp4", *common]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, server: Forks, line: list[str], face_model: None) -> Path:
    """A folder in which an unbroken run has made `out.mp4` of `talk.mp4`."""
    folder = tmp_path_factory.mktemp("whole")
    cut(example_clip("woman_talks.mp4"), folder / "talk.mp4", FRAMES)
    finishes(server, line, folder)
    return folder


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, server: Forks, line: list[str], whole: Path) -> Path:
    """A folder whose run was killed when the video had one chunk."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copy(whole / "talk.mp4", folder)
    assert server.run(line, folder, at=rf"open .*/render/.*/\.{CHUNK:09d}\.bin")["code"] == -signal.SIGKILL
    assert kept_frames(folder) == [0]
    return folder


def finishes(server: Forks, line: list[str], folder: Path) -> str:
    """Run to the end; returns stderr."""
    ran = server.run(line, folder)
    assert ran["code"] == 0, ran["err"]
    return str(ran["err"])


def is_as(whole: Path, folder: Path) -> bool:
    """Whether all results are, byte for byte, those of the unbroken run, and nothing else is there."""
    found, wanted = (
        {
            str(path.relative_to(where)): digest_of(path)
            for path in where.rglob("*")
            if path.is_file() and path.name != "project.json"  # it holds times
        }
        for where in (folder, whole)
    )
    assert found == wanted
    return not (folder / "talk.sg3" / "render").exists()


def kept_frames(folder: Path) -> list[int]:
    """First frames of the chunks that are kept."""
    return sorted(int(path.stem) for path in (folder / "talk.sg3" / "render").glob("*/[0-9]*.safetensors"))


def refused(ran: dict[str, Any], folder: Path, code: int = 3) -> str:
    """The first line of a two-line error; no temporary file is left."""
    what, hint = ran["err"].strip().splitlines()[-2:]
    assert ran["code"] == code and what.startswith("error: ") and hint.startswith("hint: "), ran["err"]
    assert "Traceback" not in ran["err"]
    assert not [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".part")) or ".tmp" in path.name]
    return str(what)


# ---- kills


@pytest.mark.slow
def test_killed_at_twenty_moments_the_video_is_the_same(whole: Path, line: list[str], tmp_path: Path) -> None:
    """Moments in time, so that kills also meet what FFmpeg, torch and safetensors are in the midst of."""
    rng, broken = random.Random(0), 0
    shutil.copy(whole / "talk.mp4", tmp_path)
    began = time.monotonic()
    assert sg3(*line, cwd=tmp_path).code == 0
    longest = time.monotonic() - began
    for number in range(KILLS):
        folder = tmp_path / str(number)
        folder.mkdir()
        shutil.copy(whole / "talk.mp4", folder)
        broken += killed_after(rng.uniform(0.2, 1.0) * longest, line, folder)
        ran = sg3(*line, cwd=folder)
        assert ran.code == 0, ran.err
        assert is_as(whole, folder), number
        shutil.rmtree(folder)
    assert broken >= KILLS // 2


def killed_after(seconds: float, line: list[str], folder: Path) -> bool:
    """Run a command and kill it (SIGKILL) after so long; False if it had ended before."""
    command = [sys.executable, "-m", "sg3cli", *line]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with subprocess.Popen(command, cwd=folder, env=environment(), **quiet) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.returncode == -signal.SIGKILL


def test_killed_before_any_change_of_files_the_video_is_the_same(
    whole: Path, line: list[str], tmp_path: Path, server: Forks
) -> None:
    """Three times in one folder: each run goes on from what the one before has left."""
    shutil.copy(whole / "talk.mp4", tmp_path)
    rng = random.Random(1)
    for most in (40, 120, 60):
        assert server.run(line, tmp_path, at=rng.randrange(1, most))["code"] == -signal.SIGKILL
        assert not (tmp_path / "out.mp4").exists()
    finishes(server, line, tmp_path)
    assert is_as(whole, tmp_path)


@pytest.mark.slow
def test_killed_before_every_change_of_files_of_a_render(
    whole: Path, begun: Path, line: list[str], tmp_path: Path, server: Forks
) -> None:
    number = 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        shutil.copytree(begun, folder)
        ended = server.run(line, folder, at=number)["code"]
        finishes(server, line, folder)
        assert is_as(whole, folder), number
        if ended == 0:
            break
        shutil.rmtree(folder)
    assert number > 50


@pytest.mark.parametrize(
    "moment",
    [
        r"os.rename .*\.part .*out\.mp4",  # the video is whole and has no name yet
        r"os.rename .*\.out\.mp4\.json",  # it has its name, and nothing says that it is ours
        r"shutil.rmtree .*/?render'?",  # all is written, the chunks are still there
    ],
)
def test_killed_between_the_last_writes(
    moment: str, whole: Path, begun: Path, line: list[str], tmp_path: Path, server: Forks
) -> None:
    folder = tmp_path / "x"
    shutil.copytree(begun, folder)
    assert server.run(line, folder, at=moment)["code"] == -signal.SIGKILL
    finishes(server, line, folder)
    assert is_as(whole, folder)


def test_killed_while_images_get_their_names(begun: Path, line: list[str], tmp_path: Path, server: Forks) -> None:
    """Those of an earlier, longer video and of the new one are there together; somebody else's are not replaced."""
    folder = tmp_path / "x"
    shutil.copytree(begun, folder)
    images = [*line[:3], "shown/%04d.png", *line[4:]]
    finishes(server, images, folder)
    shutil.copy(folder / "shown/0001.png", folder / "0001.png")
    other = ["--edit=age=-3" if word == "--edit=age=2" else word for word in images]
    assert server.run(other, folder, at=r"os.rename .*/0007\.png")["code"] == -signal.SIGKILL
    finishes(server, other, folder)
    assert len(list((folder / "shown").glob("*.png"))) == FRAMES and not (folder / "talk.sg3/render").exists()
    assert digest_of(folder / "shown/0001.png") != digest_of(folder / "0001.png")
    assert server.run(images, folder, at=r"os.rename .*/0007\.png")["code"] == -signal.SIGKILL
    (folder / "shown/0003.png").write_bytes(b"mine")
    assert "was not made by sg3" in refused(server.run(images, folder), folder / "shown", 2)
    assert (folder / "shown/0003.png").read_bytes() == b"mine"


# ---- signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_third_chunk_keeps_the_first_two(
    number: int, whole: Path, begun: Path, line: list[str], tmp_path: Path, server: Forks
) -> None:
    folder = tmp_path / "x"
    shutil.copytree(begun, folder)
    (folder / "out.mp4").write_bytes(b"an earlier video")
    third = rf"open .*/render/.*/\.{2 * CHUNK:09d}\.bin"
    what = refused(server.run([*line, "--force"], folder, at=third, number=number), folder, 128 + number)
    assert what.startswith("error: run was ") and kept_frames(folder) == [0, CHUNK]
    assert (folder / "out.mp4").read_bytes() == b"an earlier video"
    err = finishes(server, [*line, "--force"], folder)
    assert f"render: {2 * CHUNK} of {FRAMES} frames are there from an earlier run" in err
    assert is_as(whole, folder)


# ---- disks that are full, places that cannot be written


class Disk:
    """A small file system of its own (root), or a folder."""

    def __init__(self, folder: Path, kilobytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        self.mounted = not _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder)

    def grow(self) -> None:
        assert _mount("-o", "remount,size=8m", self.folder) == 0

    def protect(self) -> None:
        """Make it read-only."""
        if self.mounted:
            assert _mount("-o", "remount,ro", self.folder) == 0
            return
        for path in (self.folder, *self.folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", self.folder], check=True)
            return
        for path in (self.folder, *self.folder.rglob("*")):
            path.chmod(0o755)


def _mount(*words: object) -> int:
    return subprocess.run(["mount", *map(str, words)], capture_output=True, check=False).returncode


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    found = Disk(tmp_path / "disk", getattr(request, "param", 8192))
    yield found
    found.close()


SIZES = [4, 8, 16, 32, 64, 100, 150, 200, 300, 400, 440, 480, 520]  # kilobytes; each ends another write


def slowly(sizes: list[int], quick: tuple[int, ...]) -> list[Any]:
    return [size if size in quick else pytest.param(size, marks=pytest.mark.slow) for size in sizes]


@pytest.mark.parametrize("disk", slowly(SIZES, (440,)), indirect=True)
def test_a_full_disk_is_said_and_with_room_the_run_goes_on(
    disk: Disk, whole: Path, line: list[str], server: Forks
) -> None:
    if not disk.mounted:
        pytest.skip("mounting a small file system needs root")
    outside = [line[0], str(whole / "talk.mp4"), *line[2:]]
    what = refused(server.run(outside, disk.folder), disk.folder)
    assert "no space left while writing talk.sg3/" in what or "no room left while writing out.mp4" in what
    assert not (disk.folder / "out.mp4").exists()
    disk.grow()
    finishes(server, outside, disk.folder)
    shutil.copy(whole / "talk.mp4", disk.folder)
    assert is_as(whole, disk.folder)


@pytest.mark.parametrize("limit", slowly([1000, 6000, 25_000, 40_000, 66_000, 120_000], (40_000,)))
def test_a_file_that_may_not_grow_is_said_and_the_next_run_goes_on(
    limit: int, whole: Path, line: list[str], tmp_path: Path, server: Forks
) -> None:
    """A limit on the size of files is a full disk that needs no root; it stops another stage each time."""
    folder = tmp_path / "x"
    folder.mkdir()
    shutil.copy(whole / "talk.mp4", folder)
    what = refused(server.run(line, folder, file_size=limit), folder)
    assert "no space left while writing talk.sg3/" in what or "no room left while writing out.mp4" in what
    finishes(server, line, folder)
    assert is_as(whole, folder)


def test_a_place_that_cannot_be_written(
    disk: Disk, whole: Path, line: list[str], tmp_path: Path, server: Forks
) -> None:
    """The output's folder: before any work. The project's: before any work, but what it holds can be looked at."""
    if not disk.mounted and os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    shutil.copytree(whole, disk.folder / "x")
    inside, folder = disk.folder / "x", tmp_path / "y"
    folder.mkdir()
    shutil.copy(whole / "talk.mp4", folder)
    disk.protect()
    before = sorted(inside.rglob("*"))
    there = [*line[:3], str(inside / "new.mp4"), *line[4:]]
    assert "cannot write" in refused(server.run(there, folder), folder)
    assert not [path for path in (folder / "talk.sg3").rglob("*") if path.name != ".lock"]
    for words in (
        line,
        ["render", "talk.sg3", "-o", str(folder / "new.mp4")],
        ["align", "talk.mp4", "--project=n.sg3"],
    ):
        what = refused(server.run(words, inside), inside)
        assert "cannot write" in what and ".sg3" in what
    assert not (folder / "new.mp4").exists()
    assert server.run(["inspect", "talk.sg3"], inside)["code"] == 0
    assert sorted(inside.rglob("*")) == before


# ---- two at once


def test_the_second_of_two_runs_at_once_is_told_of_the_first(
    whole: Path, line: list[str], tmp_path: Path, server: Forks
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    shutil.copy(whole / "talk.mp4", folder)
    command = [sys.executable, "-m", "sg3cli", *line]
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with subprocess.Popen(command, cwd=folder, env=environment(), **quiet) as first:
        while not (folder / "talk.sg3/.owner.json").exists():
            assert first.poll() is None
            time.sleep(0.002)
        first.send_signal(signal.SIGSTOP)  # it is at work for as long as the second needs
        try:
            ran = server.run(line, folder)
        finally:
            first.send_signal(signal.SIGCONT)
    what, hint = ran["err"].strip().splitlines()[-2:]
    assert ran["code"] == 3 and hint.startswith("hint: wait until it ends"), ran["err"]
    assert what.startswith(f"error: talk.sg3 is being written by process {first.pid} on ") and "(sg3 run, since" in what
    assert first.returncode == 0 and is_as(whole, folder)
