"""Footage of several kinds with a face in it through the whole command."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip, vfr_pts
from footage import folder
from running import Pipe, environment

from sg3cli import cli
from sg3cli.video import VideoReader, frame_pts, packet_digest
from sg3cli.video.color import BT2020, LIMITED, ColorTags
from sg3cli.video.probe import probe

FRAMES = 4
KINDS = {
    "turned, 10 bits, variable rate, sound": {
        "codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "crf=4:log-level=none"},
        "pts": vfr_pts(FRAMES, 640), "time_base": Fraction(1, 12800), "rotation": 90, "audio": ["aac"],
        "tags": ColorTags(BT2020, BT2020, 14, LIMITED),
    },
    "interlaced, wide pixels": {"options": {"flags": "+ildct+ilme", "crf": "4"}, "aspect": Fraction(12, 11)},
}  # fmt: skip


@pytest.fixture
def faces(talk: Path) -> list[np.ndarray]:
    """A few images of a person."""
    with VideoReader(talk) as reader:
        return [frame.rgb for frame in islice(reader, FRAMES)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in, without settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in environment().keys() ^ os.environ.keys():
        monkeypatch.delenv(name, raising=False)
    yield tmp_path


def edit(model: Path, *arguments: str) -> None:
    assert cli.run(["run", *arguments, "--edit", "age=3", "--model", str(model), "--no-finetune", "-q"]) == 0


def face_changed(before: list[np.ndarray], after: list[np.ndarray]) -> bool:
    """Whether something is edited in each image, and the corners are not."""
    differences = [np.abs(a.astype(int) - b) for a, b in zip(before, after, strict=True)]
    return all(d.max() > 15 and d[:8, :8].max() <= 8 and d[-8:, -8:].max() <= 8 for d in differences)


@pytest.mark.parametrize("kind", KINDS)
def test_a_video_comes_out_as_it_went_in(here: Path, faces: list[np.ndarray], tiny_bundle: Path, kind: str) -> None:
    keywords = KINDS[kind]
    turned = [np.ascontiguousarray(np.rot90(rgb, -1)) for rgb in faces] if "rotation" in keywords else faces
    height, width = turned[0].shape[:2]
    clip = {"frames": FRAMES, "size": (width, height), "image": lambda index, *_: turned[index]} | keywords
    source = make_clip(here / "in.mp4", **clip)
    edit(tiny_bundle, "in.mp4", "-o", "out.mp4", "--crf", "4", "--preset", "ultrafast")
    before, after = probe(source), probe(here / "out.mp4")
    assert frame_pts(here / "out.mp4") == frame_pts(source) and packet_digest(here / "out.mp4") == packet_digest(source)
    for name in ("width", "height", "time_base", "duration", "sample_aspect_ratio", "bit_depth", "color"):
        assert getattr(after, name) == getattr(before, name), name
    assert not after.interlaced and after.rotation == 0
    assert face_changed(*([frame.rgb for frame in VideoReader(path)] for path in (source, here / "out.mp4")))


def test_images_come_out_as_they_went_in(here: Path, faces: list[np.ndarray], tiny_bundle: Path) -> None:
    import tests.footage

    clip = {"codec": "png", "pix_fmt": "rgb24", "frames": FRAMES, "image": lambda index, *_: faces[index]}
    place = folder(".png")(here / "frames.x", clip)
    assert place.name == "frames" and tests.footage.FRAMES != FRAMES
    edit(tiny_bundle, "frames", "-o", "out/%02d.png", "--rate", "12")
    before, after = ([frame.rgb for frame in VideoReader(path)] for path in (place, here / "out" / "%02d.png"))
    assert face_changed(before, after)
    assert all(np.array_equal(a[:8], b[:8]) for a, b in zip(before, after, strict=True))
    assert (here / "frames.sg3").is_dir() and probe(here / "out" / "%02d.png").frames == FRAMES


def test_a_video_through_pipes(
    here: Path, faces: list[np.ndarray], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    height, width = faces[0].shape[:2]
    clip = {"frames": FRAMES, "size": (width, height), "image": lambda index, *_: faces[index]}
    source = make_clip(here / "in.mkv", audio=["libopus"], **clip)
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdin", Pipe(source.read_bytes()))
    monkeypatch.setattr(sys, "stdout", pipe)
    edit(tiny_bundle, "-", "-o", "-")
    (here / "out.mkv").write_bytes(pipe.getvalue())
    assert frame_pts(here / "out.mkv") == frame_pts(source) and packet_digest(here / "out.mkv") == packet_digest(source)
    kept = [path.name for path in here.glob("stdin-*")]
    assert sorted(name.rpartition(".")[2] for name in kept) == ["media", "sg3"]  # for later commands on the project
