"""Media that is cut off, spoiled or malicious: a clear error or a complete output, no crash, hang or flood."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from clips import make_clip
from hostile_media import PATIENCE, SOURCES, SPOILERS, Outcome, malicious, read_all, spoiled

from sg3cli.errors import InputError
from sg3cli.video import VideoReader, VideoWriter

MEMORY = 2_000_000_000
READABLE = {"rateless.y4m", "frantic.y4m", "huge.avi", "huge.mkv", "long.mp4"}  # odd, but there are images in them


def check(outcomes: list[Outcome]) -> Counter[str]:
    bad = [outcome for outcome in outcomes if outcome.kind not in ("complete", "error")]
    assert not bad, bad[0]
    assert max(outcome.peak for outcome in outcomes) < MEMORY
    assert max(outcome.seconds for outcome in outcomes) < PATIENCE
    return Counter(outcome.kind for outcome in outcomes)


def test_spoiled_files_of_every_kind(tmp_path: Path) -> None:
    count = len(SOURCES) * len(SPOILERS)
    assert count >= 150
    found = check(read_all(spoiled(tmp_path, count, seed=1)))
    assert found["complete"] > 50 and found["error"] > 50, "the files should neither all be whole nor all be rubbish"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_many_more_spoiled_files(tmp_path: Path, seed: int) -> None:
    check(read_all(spoiled(tmp_path, 3000, seed)))


def test_malicious_files(tmp_path: Path) -> None:
    outcomes = read_all(malicious(tmp_path / "files"))
    check(outcomes)
    assert {outcome.name for outcome in outcomes if outcome.kind == "complete"} <= READABLE
    assert len(outcomes) > 35


def test_what_never_ends_or_never_begins_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a regular file"):
            VideoReader(path)


def test_an_index_that_is_cut_off_is_named(tmp_path: Path) -> None:
    # The image's half of the index may be whole: the sound would be lost without a word.
    whole = make_clip(tmp_path / "whole.mp4", audio=["aac"]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:-100])
    with pytest.raises(InputError, match="cut off: its index"):
        VideoReader(tmp_path / "cut.mp4")


def test_times_beyond_all_measure_are_still_times(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.ivf", codec="libvpx", frames=3)
    data = bytearray(source.read_bytes())
    last = data.rindex((2).to_bytes(8, "little"))  # the third frame's pts
    data[last : last + 8] = (1 << 61).to_bytes(8, "little")
    source.write_bytes(data)
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mkv", reader.info) as writer:
        assert reader.info.average_rate == 25
        for frame in reader:
            writer.write(frame)
            break


def test_a_name_cannot_forge_lines_or_colours(tmp_path: Path) -> None:
    path = tmp_path / "a\nhint: all is well\x1b[31m.mp4"
    path.write_bytes(b"not a video")
    with pytest.raises(InputError) as caught:
        VideoReader(path)
    assert "\\nhint" in str(caught.value) and not set("\n\x1b") & set(str(caught.value) + caught.value.hint)
