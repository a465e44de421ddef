"""Which video of a file is edited: the one that players show, or the one that is asked for."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip, number_of, numbered
from running import sg3

from sg3cli.errors import UsageError
from sg3cli.project import Project
from sg3cli.video import VideoReader, VideoWriter, frame_pts
from sg3cli.video.probe import probe

DEFAULT = av.stream.Disposition.default


def several(path: Path, *tracks: tuple[int, int, int, bool]) -> Path:
    """Videos of (width, height, first number, marked as the one to show), six images each."""
    with av.open(str(path), "w") as out:
        streams = []
        for number, (width, height, _, shown) in enumerate(tracks):
            stream = out.add_stream("mjpeg" if number == 0 else "libx264", rate=25)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuvj420p" if number == 0 else "yuv420p"
            stream.disposition = DEFAULT if shown else 0
            streams.append(stream)
        for index in range(6):
            for stream, (width, height, first, _) in zip(streams, tracks, strict=True):
                rgb = numbered(index + first, width, height)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


SMALL, LARGE = (32, 32, 100, False), (128, 96, 0, True)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".nut"])
@pytest.mark.parametrize(
    "tracks", [(SMALL, LARGE), (LARGE, SMALL), (SMALL, (128, 96, 0, False)), (SMALL, LARGE, SMALL)]
)
def test_the_video_that_is_shown_is_edited(tmp_path: Path, suffix: str, tracks: tuple) -> None:
    if suffix in (".mp4", ".mov") and not any(shown for *_, shown in tracks):
        pytest.skip("its muxer marks the first one then")
    source = several(tmp_path / f"in{suffix}", *tracks)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader.info) as writer:
        numbers = [number_of(frame.rgb) for frame in reader if not writer.write(frame)]
        assert [number_of(frame.rgb) for frame in reader.frames(3)] == [3, 4, 5]
    assert numbers == list(range(6)) and (reader.info.width, reader.info.height) == (128, 96)
    assert any("(video, mjpeg" in notice or "(video, h264" in notice for notice in writer.notices)
    assert len(frame_pts(source)) == 6


def test_a_small_one_that_is_marked_comes_before_a_large_one_that_is_not(tmp_path: Path) -> None:
    source = several(tmp_path / "in.mkv", (128, 96, 50, False), (64, 48, 7, True))
    assert [number_of(frame.rgb) for frame in VideoReader(source)] == list(range(7, 13))


def test_another_can_be_asked_for(tmp_path: Path) -> None:
    source = several(tmp_path / "in.mkv", (64, 48, 100, False), LARGE)
    for track, first, width in ((0, 100, 64), (1, 0, 128)):
        reader = VideoReader(source, track=track)
        assert [number_of(frame.rgb) for frame in reader] == list(range(first, first + 6))
        assert reader.info.width == width == probe(source, track=track).width
    with pytest.raises(UsageError, match=r"no video 2: .* has 2 videos"):
        VideoReader(source, track=2)


def test_a_project_remembers_which(tmp_path: Path) -> None:
    source = several(tmp_path / "in.mkv", (64, 48, 100, False), LARGE)
    place = tmp_path / "p.sg3"
    project = Project.of_source(source, place, probe(source).to_dict())
    plain = project.source_key
    assert project.reading == {"rate": None, "track": None}
    chosen = Project.of_source(source, place, probe(source, track=0).to_dict(), None, 0)
    with chosen.lock("test"):
        chosen.save()
    assert chosen.source_key != plain and chosen.stream["width"] == 64
    again = Project.of_source(source, place, {})
    assert again.reading["track"] == 0 and again.source_key == chosen.source_key
    assert Project.of_source(source, place, probe(source, track=1).to_dict(), None, 1).stream["width"] == 128
    assert Project.of_source(make_clip(tmp_path / "a.avi", codec="mpeg4"), None, {"format": "avi"}).source_key.endswith(
        "read 3"
    )


def test_the_command_takes_it(tmp_path: Path) -> None:
    source = several(tmp_path / "in.mkv", (64, 48, 100, False), LARGE)
    ran = sg3("align", source, "--video-track", "5", cwd=tmp_path)
    assert ran.code == 2 and "there is no video 5" in ran.err and "counts from 0" in ran.err
    assert not list(tmp_path.glob("*.sg3"))
    ran = sg3("align", source, "--video-track", "x", cwd=tmp_path)
    assert ran.code == 2
