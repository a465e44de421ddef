"""Temporary files: names that nobody can foresee, made where nothing was, so that no link is written through."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import tiny_generator

from sg3cli.drawing.images import write_image
from sg3cli.errors import InputError
from sg3cli.files import atomic_path, sweep, temporary_name, write_arrays, write_json
from sg3cli.nets.checkpoint import save_generator
from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter


def write_clip(path: Path) -> None:
    still = path.with_name("still.png")
    assert cv2.imwrite(str(still), np.full((64, 64, 3), 90, np.uint8))
    with VideoReader(still) as reader, VideoWriter(path, reader.info, EncodeConfig(preset="ultrafast")) as writer:
        for frame in reader:
            writer.write(frame)


WRITERS: dict[str, Callable[[Path], None]] = {
    "x.json": lambda path: write_json(path, {"a": 1}),
    "x.safetensors": lambda path: write_arrays(path, {"a": np.zeros(3)}),
    "x.png": lambda path: write_image(path, np.zeros((4, 4, 3), np.uint8)),
    "generator.safetensors": lambda path: save_generator(path, tiny_generator()),
    "x.mp4": write_clip,
}


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file that nothing may write to, outside of the folder where things are written."""
    path = tmp_path / "precious"
    path.write_bytes(b"keep me")
    (tmp_path / "out").mkdir()
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_links_under_names_that_were_foreseen_are_not_followed(name: str, precious: Path) -> None:
    folder = precious.with_name("out")
    for end in ("tmp", "part"):
        (folder / f".{name}.{os.getpid()}.{end}").symlink_to(precious)
    (folder / f"{name.split('.')[0]}.tmp").symlink_to(precious)
    WRITERS[name](folder / name)
    assert precious.read_bytes() == b"keep me" and (folder / name).stat().st_size > 0


@pytest.mark.parametrize("name", WRITERS)
def test_a_link_at_the_temporary_name_itself_is_refused(
    name: str, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if somebody had guessed it: the target stays, dangling links make nothing either."""
    folder = precious.with_name("out")
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * size)
    for end in (".tmp", ".part"):
        temporary_name(folder / name, end).symlink_to(precious)
    with pytest.raises(InputError, match=name):
        WRITERS[name](folder / name)
    assert precious.read_bytes() == b"keep me" and not (folder / name).exists()
    precious.unlink()
    for end in (".tmp", ".part"):
        temporary_name(folder / name, end).unlink(missing_ok=True)
        temporary_name(folder / name, end).symlink_to(precious)
    with pytest.raises(InputError, match=name):
        WRITERS[name](folder / name)
    assert not precious.exists()


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "x.mp4"])
def test_a_link_of_the_outputs_own_name_is_replaced_and_not_written_through(name: str, precious: Path) -> None:
    path = precious.with_name("out") / name
    path.symlink_to(precious)
    WRITERS[name](path)
    assert precious.read_bytes() == b"keep me" and not path.is_symlink()


def test_a_video_is_written_through_a_link_only_with_a_word(precious: Path) -> None:
    """A link to where videos are kept is of use; a link that somebody planted is seen."""
    out = precious.with_name("out")
    assert cv2.imwrite(str(out / "still.png"), np.full((64, 64, 3), 90, np.uint8))
    (out / "x.mp4").symlink_to(precious)
    with VideoReader(out / "still.png") as reader, VideoWriter(out / "x.mp4", reader.info) as writer:
        for frame in reader:
            writer.write(frame)
    assert writer.notices[0] == f"{out / 'x.mp4'} is a link: {precious}, to which it points, is written"
    assert (out / "x.mp4").is_symlink() and precious.read_bytes()[4:8] == b"ftyp"


def test_names_differ_each_time_and_fit_any_name(tmp_path: Path) -> None:
    long = tmp_path / ("é" * 126 + "%d")
    assert len({temporary_name(long) for _ in range(50)}) == 50
    with atomic_path(long) as temp:
        temp.write_text("x")
        assert temp.parent == tmp_path and "%" not in temp.name
    assert [path.name for path in tmp_path.iterdir()] == [long.name]


def test_what_killed_processes_left_is_swept_and_what_live_ones_write_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    mine = temporary_name(path)
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-4194304-"))  # beyond the largest number of a process
    elsewhere = dead.with_name(".x.json.elsewhere-4194304-00.tmp")
    for left in (mine, dead, elsewhere):
        left.write_text("{")
    sweep(path)
    assert {p.name for p in tmp_path.iterdir()} == {mine.name, elsewhere.name}


def test_a_new_file_has_the_mode_that_the_user_gives_new_files(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save_generator(tmp_path / "g.safetensors", tiny_generator())
        write_json(tmp_path / "x.json", {})
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
