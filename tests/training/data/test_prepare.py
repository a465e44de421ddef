"""`sg3 train prepare`: the squares, what is dropped and why, and that nothing is lost."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import example_clip, sg3

from sg3cli.cli.batch_inputs import VIDEOS
from sg3cli.errors import InputError
from sg3cli.faces.detectors import make_detector
from sg3cli.geometry import axes_of, quad_from_axes
from sg3cli.training.config import PrepareConfig
from sg3cli.training.data import prepare as module
from sg3cli.training.data.images import open_images
from sg3cli.video import VideoReader


def prepare(sources: list[Path], out: Path, **settings: object) -> module.Prepared:
    config = PrepareConfig(**settings)
    return module.prepare(sources, out, config, VIDEOS, lambda text: None, iter, pull=False)


@pytest.fixture(scope="module")
def raw(face_model: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frame of the example upright and turned, the video itself, a wall, a cut off file, a face at the border."""
    folder = tmp_path_factory.mktemp("raw")
    with VideoReader(example_clip("woman_talks.mp4")) as reader:
        rgb = next(iter(reader)).rgb
    write(folder / "a.png", rgb)
    height, width = rgb.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 20, 1)
    write(folder / "sub" / "turned.png", cv2.warpAffine(rgb, turn, (width, height), borderMode=cv2.BORDER_REFLECT))
    write(folder / "wall.png", np.full((200, 200, 3), 127, np.uint8))
    write(folder / "small.png", cv2.resize(rgb, (width // 6, height // 6), interpolation=cv2.INTER_AREA))
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:3000])
    (folder / "notes.txt").write_text("no picture")
    return folder


def write(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), rgb[..., ::-1])


def of(done: module.Prepared, name: str) -> np.ndarray:
    return np.array(next(k.quad for k in done.kept if k.source == name))


def test_faces_are_kept_upright_and_the_rest_is_named(raw: Path, tmp_path: Path) -> None:
    done = prepare([raw], tmp_path / "out", size=64, min_side=60)
    assert {k.source for k in done.kept} == {f"{raw.name}/a.png", f"{raw.name}/sub/turned.png"}
    why = {Path(d.source).name: d.why for d in done.dropped}
    assert why["wall.png"] == module.NO_FACE and why["cut.png"] == module.DAMAGED
    assert why["small.png"] == module.SMALL and len(why) == 3

    straight, turned = axes_of(of(done, f"{raw.name}/a.png"))[1], axes_of(of(done, f"{raw.name}/sub/turned.png"))[1]
    between = np.degrees(np.arctan2(straight[1], straight[0]) - np.arctan2(turned[1], turned[0]))
    assert between == pytest.approx(20, abs=3)
    images = open_images(tmp_path / "out", None, print)
    assert len(images) == 2 and images.resolution == 64
    detector = make_detector()
    for row in range(2):
        face = detector.update(cv2.resize(images.image(row), (256, 256), interpolation=cv2.INTER_CUBIC), float(row))
        eyes = face[0].landmarks[42:48].mean(0) - face[0].landmarks[36:42].mean(0)
        assert abs(np.degrees(np.arctan2(eyes[1], eyes[0]))) < 5  # of both, though one lay 20 degrees askew

    record = json.loads((tmp_path / "out" / "prepared.json").read_text())
    assert record["settings"]["size"] == 64 and record["dropped_for"][module.NO_FACE] >= 1
    assert {k["source"] for k in record["kept"]} == {k.source for k in done.kept}


def test_unaligned_squares_keep_the_image_s_upright_and_the_seed_moves_them(raw: Path, tmp_path: Path) -> None:
    source = [raw / "sub" / "turned.png"]
    aligned = of(prepare(source, tmp_path / "0", size=64), "turned.png")
    one, again, other = (
        of(prepare(source, tmp_path / name, size=64, crop="unaligned", seed=seed), "turned.png")
        for name, seed in (("1", 1), ("2", 1), ("3", 2))
    )
    assert np.array_equal(one, again) and not np.array_equal(one, other)
    assert (tmp_path / "1" / "000000.png").read_bytes() == (tmp_path / "2" / "000000.png").read_bytes()
    centre, x = axes_of(one)
    assert x[1] == pytest.approx(0, abs=0.01)
    assert x[0] == pytest.approx(np.linalg.norm(axes_of(aligned)[1]), rel=1e-3)
    assert 0 < np.linalg.norm(centre - axes_of(aligned)[0]) < 2 * x[0] * 0.05 * 5


def test_a_video_is_looked_at_as_often_as_asked(face_model: None, tmp_path: Path) -> None:
    clip = example_clip("woman_talks.mp4")
    done = prepare([clip], tmp_path / "video.zip", size=48, every=0.5)
    times = [k.time for k in done.kept]
    assert len(times) >= 3 and np.allclose(np.diff(times), 0.5, atol=0.05) and times[0] == 0
    with zipfile.ZipFile(tmp_path / "video.zip") as archive:
        assert json.loads(archive.read("prepared.json"))["kept"][1]["source"] == clip.name
    assert len(open_images(tmp_path / "video.zip", None, print)) == len(times)


def test_the_middle_needs_no_face(tmp_path: Path) -> None:
    image = np.zeros((60, 100, 3), np.uint8)
    image[:, 20:80] = 200
    write(tmp_path / "in" / "wide.png", image)
    write(tmp_path / "in" / "tiny.png", image[:10, :10])
    done = prepare([tmp_path / "in"], tmp_path / "out", size=32, crop="none")
    assert [k.source for k in done.kept] == ["in/wide.png"] and done.reasons() == {module.SMALL: 1}
    assert open_images(tmp_path / "out", None, print).image(0)[:, 1:-1].min() == 200


def test_what_lies_outside_is_dropped(raw: Path, tmp_path: Path) -> None:
    rgb = cv2.imread(str(raw / "a.png"))[..., ::-1]
    quad = of(prepare([raw / "a.png"], tmp_path / "0", size=64), "a.png")
    left, right = int(quad[0, 0]), int(quad[2, 0])
    write(tmp_path / "half.png", rgb[:, left + (right - left) // 4 :])
    with pytest.raises(InputError, match=r"too far outside.*half.png") as error:
        prepare([tmp_path / "half.png"], tmp_path / "1", size=64)
    assert "--outside" in (error.value.hint or "") and not (tmp_path / "1").exists()
    assert len(prepare([tmp_path / "half.png"], tmp_path / "2", size=64, outside=0.5).kept) == 1


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 6.3))
def test_the_share_outside_is_that_of_the_pixels(dx: float, dy: float, angle: float) -> None:
    quad = quad_from_axes(np.array([50 + 40 * dx, 50 + 40 * dy]), 20 * np.array([np.cos(angle), np.sin(angle)]))
    u, v = np.meshgrid((np.arange(80) + 0.5) / 80, (np.arange(80) + 0.5) / 80)
    points = quad[0] + u[..., None] * (quad[3] - quad[0]) + v[..., None] * (quad[1] - quad[0])
    counted = 1 - ((points >= 0) & (points <= 100)).all(-1).mean()
    assert module.share_outside(quad, 100, 100) == pytest.approx(counted, abs=0.03)


def test_nothing_is_lost(tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.png", np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    for out, what in (
        (tmp_path / "used", "not empty"),
        (tmp_path / "in" / "out", "lies in"),
        (tmp_path / "in", "lies in"),
        (tmp_path / "used" / "mine.txt", "there already"),
    ):
        with pytest.raises(InputError, match=what):
            prepare([tmp_path / "in"], out, size=32, crop="none")
    with pytest.raises(InputError, match="no such file"):
        prepare([tmp_path / "in", tmp_path / "gone"], tmp_path / "out", size=32, crop="none")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "used"]
    assert (tmp_path / "used" / "mine.txt").read_text() == "mine"


def test_the_command_tells_what_it_dropped(raw: Path, tmp_path: Path) -> None:
    ran = sg3("train", "prepare", raw, "--out", "faces", "--size", 64, cwd=tmp_path)
    assert ran.code == 0 and ran.out.strip() == "faces"
    assert f"1 damaged ({raw.name}/cut.png)" in ran.err and "no face" in ran.err
    json_ran = sg3("train", "prepare", raw / "a.png", "--out", "b.zip", "--size", 64, "--json", cwd=tmp_path)
    assert json_ran.json["kept"] == 1 and json_ran.json["dropped"] == {}
    wrong = sg3("train", "prepare", raw, "--out", "c", "--crop", "round", cwd=tmp_path)
    assert wrong.code == 2 and "--crop" in wrong.err
