import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import make_clip, number_of
from footage import KINDS, made
from hypothesis import given
from hypothesis import strategies as st
from running import sg3

from sg3cli.errors import InputError, UsageError
from sg3cli.project import Project, Source, default_path
from sg3cli.settings import EncodeConfig
from sg3cli.time_ranges import parse_rate
from sg3cli.video import VideoReader, VideoWriter
from sg3cli.video.image_sequence import fingerprint, images_of, is_image_sequence, matching, output_name, written
from sg3cli.video.probe import probe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`in/5.png` .. `in/12.png`."""
    return made(next(kind for kind in KINDS if kind.name == "folder of PNG"), tmp_path)


def write(source: Path, out: object, **keywords) -> list[str]:
    with VideoReader(source) as reader, VideoWriter(out, reader.info, EncodeConfig(**keywords)) as writer:
        for frame in reader:
            writer.write(frame)
    return writer.notices


def test_numbers_decide_the_order(tmp_path: Path) -> None:
    for name in ("f10.png", "f9.PNG", "f010.png", "f1.jpg", "f2.txt", "g.png"):
        (tmp_path / name).touch()
    assert [p.name for p in images_of(tmp_path)] == ["f1.jpg", "f9.PNG", "f010.png", "f10.png", "g.png"]
    assert [p.name for p in images_of(tmp_path / "f%d.png")] == ["f010.png", "f10.png"]
    assert {p.name for p in matching(tmp_path / "f%03d.png")} == {"f010.png"}
    with pytest.raises(InputError, match="no file is named"):
        images_of(tmp_path / "h%d.png")


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20, unique=True))
def test_any_numbers_are_in_order(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    place = tmp_path_factory.mktemp("numbers")
    for number in numbers:
        (place / f"a{number}.png").touch()
    assert [int(p.stem[1:]) for p in images_of(place)] == sorted(numbers)


@pytest.mark.parametrize(
    ("text", "rate"), [("25", Fraction(25)), ("30000/1001", Fraction(30000, 1001)), ("12.5", Fraction(25, 2))]
)
def test_rates(text: str, rate: Fraction) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "0", "-5", "1/0", "nan", "1e9"])
def test_rates_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="the rate is"):
        parse_rate(text)


def test_what_counts_as_images(tmp_path: Path) -> None:
    (tmp_path / "a%d.mp4").touch()
    (tmp_path / "a.JPG").touch()
    assert (
        is_image_sequence(tmp_path)
        and is_image_sequence(tmp_path / "a.JPG")
        and is_image_sequence(tmp_path / "b%d.png")
    )
    assert not is_image_sequence(tmp_path / "a%d.mp4")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="folder, not a video, and holds no pictures"):
        images_of(tmp_path / "nothing")


def test_identity_changes_with_name_content_and_rate(folder: Path) -> None:
    first = fingerprint(folder, "25")
    assert fingerprint(folder, "25/1") == first and fingerprint(folder, "24") != first
    data = (folder / "7.png").read_bytes()
    (folder / "7.png").rename(folder / "13.png")
    assert fingerprint(folder, "25")[1] != first[1]
    (folder / "13.png").rename(folder / "7.png")
    (folder / "7.png").write_bytes(data[:-1] + b"x")
    assert fingerprint(folder, "25")[1] != first[1]


def test_a_project_of_images_knows_them_and_takes_another_rate(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "p.sg3"
    project = Project.of_source(folder, place, {})
    with project.lock("test"):
        project.save()
    assert Project.open(place).rate == "25" and Project.open(place).source() == folder.resolve()
    again = Project.of_source(folder, place, {}, "12")
    assert again.rate == "12" and again.manifest["source"]["sha256"] == Source.of(folder, "12").sha256
    (folder / "5.png").write_bytes(b"another")
    with pytest.raises(InputError, match="is not the clip"):
        Project.open(place).source()
    assert default_path(folder) == Path("in.sg3") == default_path(folder / "%d.png")


@pytest.mark.parametrize("name", ["out/%04d.png", "out/", "f%03d.png"])
def test_images_out_and_in_again(folder: Path, tmp_path: Path, name: str) -> None:
    out = f"{tmp_path}/{name}"
    write(folder, out)
    assert len(written(out)) == 8
    again = VideoReader(Path(output_name(out)))
    pairs = zip(VideoReader(folder), again, strict=True)
    assert all(np.array_equal(a.rgb, b.rgb) for a, b in pairs)
    for left in images_of(folder)[3:]:
        left.unlink()
    write(folder, out)  # of a longer video of that name nothing stays
    assert [number_of(frame.rgb) for frame in VideoReader(Path(output_name(out)))] == [0, 1, 2]
    assert not list(tmp_path.rglob("*.part"))


def test_a_still_out(folder: Path, tmp_path: Path) -> None:
    write(folder / "5.png", tmp_path / "one.png")
    assert number_of(next(iter(VideoReader(tmp_path / "one.png"))).rgb) == 0
    with pytest.raises(UsageError, match="one picture, the source has 8"):
        write(folder, tmp_path / "two.png")
    with pytest.raises(UsageError, match="more than one place"):
        write(folder, tmp_path / "a%d-%d.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "one.png"]


def test_a_video_as_jpegs_loses_its_sound_and_says_so(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", audio=["aac"], frames=3, options={"crf": "1"})
    notices = write(source, tmp_path / "j" / "%d.jpg")
    assert any("no sound" in notice for notice in notices)
    before, after = (next(iter(VideoReader(path))).rgb for path in (source, tmp_path / "j" / "%d.jpg"))
    assert np.abs(before.astype(int) - after).mean() < 2


def test_a_failure_leaves_earlier_images(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "o" / "%d.png"
    write(folder, out)
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    with pytest.raises(RuntimeError), VideoReader(folder) as reader, VideoWriter(out, reader.info) as writer:
        writer.write(next(iter(reader)))
        raise RuntimeError
    assert before == {path.name: path.read_bytes() for path in out.parent.iterdir()}
    assert not list(tmp_path.rglob("*.part"))


def test_the_commands_say_what_a_rate_is_for(tmp_path: Path, folder: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", frames=3)
    ran = sg3("align", clip, "--rate", "12", cwd=tmp_path)
    assert ran.code == 2 and "has times of its own" in ran.err
    ran = sg3("align", folder, "--rate", "quick", cwd=tmp_path)
    assert ran.code == 2 and "the rate is 'quick'" in ran.err
    ran = sg3("align", tmp_path / "missing.mp4", cwd=tmp_path, SG3_INPUT_RATE="12")
    assert ran.code == 3 and "no file" in ran.err
    assert not list(tmp_path.glob("*.sg3"))


def test_a_flood_on_standard_input_is_stopped_early(tmp_path: Path) -> None:
    ran = sg3("align", "-", cwd=tmp_path, stdin="\0" * 20_000_000)
    assert ran.code == 3 and "does not begin as a video" in ran.err
    assert not list(tmp_path.iterdir())


def test_facts_of_images(folder: Path) -> None:
    info = probe(folder, "12")
    assert (info.format, info.codec, info.frames, info.average_rate, info.duration) == ("images", "png", 8, 12, 8 / 12)


def test_a_picture_with_a_colour_profile_does_not_kill_the_process(tmp_path):
    """PyAV frees the profile's name twice; seen with a photograph of NASA's."""
    plain = cv2.imencode(".png", np.full((32, 48, 3), 90, np.uint8))[1].tobytes()
    profile = b"sRGB\0\0" + zlib.compress(bytes(200))
    chunk = len(profile).to_bytes(4, "big") + b"iCCP" + profile + zlib.crc32(b"iCCP" + profile).to_bytes(4, "big")
    (tmp_path / "p.png").write_bytes(plain[:33] + chunk + plain[33:])
    code = "import gc, sys; from sg3cli.video.probe import probe; i = probe(sys.argv[1]); gc.collect(); print(i.width)"
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "p.png"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "48\n"), ran.stderr
