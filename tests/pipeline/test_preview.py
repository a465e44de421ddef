"""`sg3 preview`: the image's layout and words, which frame is shown, and that nothing else happens."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from clips import make_clip
from hypothesis import given, settings
from hypothesis import strategies as st

from sg3cli import cli
from sg3cli.compositing.map_maker import MapMaker
from sg3cli.drawing.images import jpeg_bytes
from sg3cli.drawing.labelled_grid import (
    GAP,
    Cell,
    Row,
    cell_side,
    edits_text,
    labelled_grid,
    resized,
    strength_text,
    time_text,
)
from sg3cli.drawing.text import LEAST, fit, text_width, with_caption
from sg3cli.faces.alignment import ABSENT, Track
from sg3cli.faces.frame_quality import frame_quality
from sg3cli.files import ArrayRows, digest_of
from sg3cli.latents.edits import Edit, parse_edit
from sg3cli.pipeline import Job
from sg3cli.pipeline.face_paster import CompositingInputs
from sg3cli.pipeline.finetune import tuned_generator
from sg3cli.pipeline.invert import smoothed_codes
from sg3cli.pipeline.preview import CachedSynthesis
from sg3cli.pipeline.render import compose
from sg3cli.pipeline.render_plan import plan
from sg3cli.project import Project
from sg3cli.settings import Settings
from sg3cli.video import VideoReader
from sg3cli.weights.bundle import load_model


def flat(value: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


# ---- the image


def test_cells_lie_in_rows_and_columns_and_keep_their_pixels() -> None:
    rows = [Row("a", [Cell("x", flat(10)), Cell("y", flat(20))]), Row("b", [Cell("x", flat(30)), Cell("y", flat(40))])]
    image = labelled_grid(rows, None, labels=False)
    assert image.shape == (2 * 40 + 3 * GAP, 2 * 60 + 3 * GAP, 3)
    for k, value in enumerate((10, 20, 30, 40)):
        y, x = GAP + k // 2 * (40 + GAP), GAP + k % 2 * (60 + GAP)
        assert (image[y : y + 40, x : x + 60] == value).all()


def test_labels_stand_beside_the_cells_not_in_them() -> None:
    bare, named = Row("", [Cell("", flat(90))]), Row("1.50 s", [Cell("age 2", flat(90))])
    empty, image = labelled_grid([bare], 200), labelled_grid([named], 200)
    assert empty.shape == image.shape
    cell = (empty == 90).all(axis=2)
    assert cell.sum() == 200 * 133 and (image[cell] == 90).all()
    changed = np.flatnonzero((image != empty).any(axis=(1, 2)))
    inside = np.flatnonzero(cell.any(axis=1))
    assert changed.min() < inside.min() and changed.max() > inside.max()


def test_one_cell_without_labels_is_the_image_itself() -> None:
    image = np.random.default_rng(0).integers(0, 255, (33, 47, 3), dtype=np.uint8)
    assert np.array_equal(labelled_grid([Row("", [Cell("", image)])], None, labels=False), image)


def test_cells_are_fitted_by_their_longer_side() -> None:
    assert resized(flat(1, 270, 480), 240).shape == (135, 240, 3)
    assert resized(flat(1, 480, 270), 240).shape == (240, 135, 3)
    assert (resized(flat(77, 8, 8), 64) == 77).all()
    assert cell_side("frame", (1080, 1920, 3), 7) == 480 and cell_side("frame", (100, 160, 3), 7) == 160
    assert cell_side("face", (128, 128, 3), 7) == 256 and cell_side("face", (1024, 1024, 3), 7) == 512
    assert cell_side("frame", (1080, 1920, 3), 1) is None


@settings(max_examples=30)
@given(st.text(st.characters(codec="latin-1", exclude_categories=["C"]), max_size=60), st.integers(0, 400))
def test_fitted_text_is_never_wider_than_its_room(text: str, width: int) -> None:
    words, size = fit(text, 20, width)
    assert LEAST <= size <= 20 and text_width(words, size) <= width
    assert words == text or words == "" or (words.endswith("...") and text.startswith(words[:-3]))


@pytest.mark.parametrize("shape", [(90, 120), (270, 480), (1080, 1920)])
def test_a_caption_is_small_and_in_the_corner(shape: tuple[int, int]) -> None:
    image = flat(120, *shape)
    captioned = with_caption(image, "edited: age 2, smile -0.5")
    changed = (captioned != image).any(axis=2)
    assert captioned.shape == image.shape and (image == 120).all()
    assert changed.any() and not changed[shape[0] // 4 :].any() and not changed[:, -1].any()
    assert captioned.max() > 200  # light letters on a dark ground
    assert captioned.min() < 90


def test_an_image_without_room_for_letters_gets_no_caption() -> None:
    assert (with_caption(flat(120, 10, 12), "source") == 120).all()


# ---- words


def test_edits_are_named_with_their_strength_at_that_time() -> None:
    edits = [parse_edit("age=0s:0,2s:2"), parse_edit("/somewhere/my smile.npy=-0.5")]
    assert edits_text(edits, 1.0) == "age 1, my smile -0.5"
    assert edits_text(edits, 0.0) == "my smile -0.5"
    assert edits_text([], 1.0) == edits_text(edits[:1], 0.0) == "no edit"


@pytest.mark.parametrize(("value", "text"), [(2.0, "2"), (-0.5, "-0.5"), (1 / 3, "0.33"), (-0.001, "0"), (10.0, "10")])
def test_strengths_are_short(value: float, text: str) -> None:
    assert strength_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(1.5, "1.50 s"), (59.999, "60.00 s"), (123.5, "2:03.50")])
def test_times_are_short(value: float, text: str) -> None:
    assert time_text(value) == text


# ---- which frame is good


def face(yaw: float = 0.0, lids: float = 0.3) -> np.ndarray:
    """68 landmarks of a plain face; `yaw` moves the nose, `lids` is the height of the eyes by their width."""
    marks = np.zeros((68, 2), np.float32)
    marks[:17] = np.stack([np.linspace(-1, 1, 17), np.sin(np.linspace(0, np.pi, 17))], -1)
    marks[30] = (yaw, 0.3)
    for first, middle in ((36, -0.4), (42, 0.4)):
        x = np.array([-0.15, -0.05, 0.05, 0.15, 0.05, -0.05])
        y = np.array([0, -1, -1, 0, 1, 1]) * lids * 0.15
        marks[first : first + 6] = np.stack([middle + x, y], -1)
    return marks


def track_of(*faces: np.ndarray | None) -> Track:
    count = len(faces)
    marks = np.stack([np.full((68, 2), np.nan, np.float32) if f is None else f for f in faces])
    quads, status = np.zeros((count, 4, 2)), np.array([ABSENT if f is None else 0 for f in faces], np.uint8)
    times = np.arange(count) / 25
    return Track(np.arange(count), times, marks, quads, quads, quads, np.zeros((count, 3, 3)), status, status)


def test_the_best_frame_is_frontal_sharp_and_has_its_eyes_open() -> None:
    sharp = np.random.default_rng(0).normal(0, 0.2, (32, 32, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(sharp, (0, 0), 2)
    track = track_of(face(), face(yaw=0.5), face(lids=0.08), face(), None)
    scores = frame_quality(track, [sharp, sharp, sharp, soft, None])
    assert np.argmax(scores) == 0 and scores[0] == pytest.approx(1)
    assert scores[1] == pytest.approx(0.5) and scores[2] < 0.5 and 0 < scores[3] < 0.5 and scores[4] == 0


# ---- the command


@pytest.fixture
def fresh(talk: Path, tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the clip alone; the tiny model is the one in use."""
    shutil.copy(talk, tmp_path / "talk.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SG3_INVERT_MODEL", str(tiny_bundle))
    return tmp_path


@pytest.fixture
def finished(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tuned / "talk.sg3"


def test_a_fresh_clip_is_shown_and_nothing_is_stored(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["preview", "talk.mp4", "--at", "0.2s", "--direction", "age", "--strengths=-1,1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(os.listdir(fresh)) == ["talk.mp4", "talk_preview.png", "talk_preview.png.json"]
    assert told["project"] is None and told["codes"] == "computed" and told["tuned"] is False
    assert [shown["frame"] for shown in told["frames"]] == [5]
    assert told["rows"][0]["cells"] == ["before", "inversion", "age -1", "age 1"]
    image = cv2.imread("talk_preview.png")
    assert image.shape[:2] == (told["height"], told["width"])
    assert b'"frames":[{"frame":5' in (fresh / "talk_preview.png").read_bytes()
    before = digest_of(fresh / "talk_preview.png")
    assert cli.run(["preview", "talk.mp4", "--at", "0.3s"]) == 0  # our own image is replaced
    assert capsys.readouterr().out == "talk_preview.png\n" and digest_of(fresh / "talk_preview.png") != before


def test_the_frame_shown_is_the_one_on_screen(fresh: Path) -> None:
    with VideoReader("talk.mp4") as reader:
        frames = [frame.rgb for frame in reader]
    plain = ["--columns", "before", "--no-labels", "--direction", "age"]
    assert cli.run(["preview", "talk.mp4", "--at", "0.279s", "--at", "0", *plain, "-o", "a.png"]) == 0
    image = cv2.imread("a.png")[..., ::-1]
    height = frames[0].shape[0]
    assert np.array_equal(image[GAP : GAP + height, GAP:-GAP], frames[6])
    assert np.array_equal(image[2 * GAP + height : -GAP, GAP:-GAP], frames[0])


def test_without_a_time_a_good_frame_is_chosen(fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["preview", "talk.mp4", "--json", "--view", "face"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 <= told["frames"][0]["frame"] < 12 and told["rows"][0]["cells"] == ["before", "inversion"]
    assert any("age, smile" in notice for notice in told["notices"])  # what could be asked for


def test_stdout_takes_the_png(fresh: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert cli.run(["preview", "talk.mp4", "--at=0", "--columns=before", "--no-labels", "-o", "-", "-q"]) == 0
    data = capfdbinary.readouterr().out
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    with VideoReader("talk.mp4") as reader:
        assert np.array_equal(image[..., ::-1], next(iter(reader)).rgb)
    assert os.listdir(fresh) == ["talk.mp4"]


WRONG = {
    "--at 9s": (2, "lasts 0.48 s"),
    "--at soon": (2, "not a time"),
    "--strengths 1,2": (2, "--direction"),
    "--direction age --strengths 1,x": (2, "strengths"),
    "--direction nose": (2, "nose"),
    "--edit age=2 --columns after": (2, "before, inversion, edits"),
    "--columns edits": (2, "nothing to show"),
    "--view compare": (2, "--view frame"),
    "-o out.gif": (2, ".png .jpg"),
    "-o talk.mp4": (2, ".png .jpg"),
    "-o mine.png": (2, "--force"),
    "-o nowhere/out.png": (3, "nowhere"),
    "-o - --json": (2, "stdout"),
}


@pytest.mark.parametrize("options", WRONG)
def test_what_cannot_be_done_is_said_in_two_lines(
    fresh: Path, options: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (fresh / "mine.png").write_bytes(b"mine")
    code, words = WRONG[options]
    assert cli.run(["preview", "talk.mp4", *options.split()]) == code
    told = capsys.readouterr().err.strip().splitlines()[-2:]
    assert told[0].startswith("error: ") and told[1].startswith("hint: ") and words in " ".join(told)
    assert sorted(os.listdir(fresh)) == ["mine.png", "talk.mp4"] and (fresh / "mine.png").read_bytes() == b"mine"


def test_a_frame_without_a_face_names_the_nearest_with_one(
    fresh: Path, talk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with VideoReader(talk) as reader:
        frames = [frame.rgb for frame in reader]
    size = (frames[0].shape[1], frames[0].shape[0])
    grey = np.full_like(frames[0], 110)

    def drawn(index: int, width: int, height: int) -> np.ndarray:
        return frames[index % 12] if index < 2 or index >= 18 else grey

    make_clip(fresh / "gap.mp4", frames=20, rate=10, size=size, image=drawn)
    for at, nearest in (("0.6s", "0.10s"), ("1.3s", "1.80s"), ("1.0s", "1.80s")):
        assert cli.run(["preview", "gap.mp4", "--at", at]) == 3
        error, hint = capsys.readouterr().err.strip().splitlines()[-2:]
        assert f"no face is seen at {float(at[:-1]):.2f} s" in error and f"--at {nearest}" in hint
    make_clip(fresh / "none.mp4", frames=4, size=size, image=lambda *_: grey)
    assert cli.run(["preview", "none.mp4"]) == 3 and cli.run(["preview", "none.mp4", "--at", "0.1"]) == 3
    assert "nor in the frames around it" in capsys.readouterr().err


# ---- a project that is there


def test_a_finished_project_is_shown_as_it_will_be_rendered(
    finished: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: digest_of(path) for path in finished.rglob("*") if path.is_file()}
    line = ["preview", str(finished), "--at", "0.24s", "--columns", "edits", "--no-labels", "-o", "out.png", "--json"]
    assert cli.run(line) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["codes"] == "project" and told["tuned"] is True and told["rows"][0]["cells"] == ["age 1.2"]
    assert {path: digest_of(path) for path in finished.rglob("*") if path.is_file()} == before
    project, bundle = Project.open(finished), load_model(tiny_bundle)
    job = Job(project, Settings().having(invert={"model": str(tiny_bundle)}))
    track = project.track()
    codes = smoothed_codes(project, bundle, track, "paper")
    with VideoReader(project.source()) as reader:
        frame = next(reader.frames(6))
    G = tuned_generator(project, bundle, True)
    face, alone = plan(job, bundle, True).of_face(track, codes), CompositingInputs(maker=MapMaker())
    result = next(compose(iter([frame]), face, G, job.settings.render, alone)).rgb
    image = cv2.imread("out.png")[..., ::-1].astype(int)
    assert np.abs(image - result).max() <= 1 and np.abs(image - frame.rgb).max() > 20


def test_a_project_s_edits_stay_while_a_direction_is_swept(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["preview", str(finished), "--at=0.4", "--direction=smile", "--direction=age", "--strengths=0,1", "--json"]
    assert cli.run([*line, "--no-finetune"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["heading"] for row in told["rows"]] == ["0.40 s   smile   with age 2", "0.40 s   age"]
    assert told["rows"][1]["cells"] == ["before", "inversion", "age 0", "age 1"] and told["tuned"] is False


def test_other_settings_are_honoured_without_touching_the_project(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: digest_of(path) for path in finished.rglob("*") if path.is_file()}
    assert cli.run(["preview", str(finished), "--at=0.2", "--invert-steps=1", "--json", "-o", "a.png"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["codes"] == "computed" and told["tuned"] is False
    assert any("invert was done with other settings" in notice for notice in told["notices"])
    assert {path: digest_of(path) for path in finished.rglob("*") if path.is_file()} == before


def test_a_sweep_keeps_layers_and_replaces_the_strength() -> None:
    from sg3cli.cli.preview import at_strength

    edits = [parse_edit("age=0s:0,1s:2", layers="2-3"), parse_edit("smile=1")]
    swept = at_strength(edits, "age", -1.5)
    assert [edit.direction for edit in swept] == ["smile", "age"] and swept[1].layers == (2, 3)
    assert swept[1].strength_at(np.array([0.0, 5.0])).tolist() == [-1.5, -1.5]
    assert Edit.from_dict(swept[1].to_dict()) == swept[1]


# ---- chunks


def test_the_same_image_is_computed_once() -> None:
    class Counting(torch.nn.Module):
        calls = 0

        def forward(self, x: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return x + transform

    inner = Counting()
    memory = CachedSynthesis(inner)
    a, b, t = torch.zeros(2), torch.ones(2), torch.ones(2)
    assert torch.equal(memory(a, transform=t), a + t) and torch.equal(memory(b, transform=t), b + t)
    assert torch.equal(memory(torch.zeros(2), transform=t), a + t) and inner.calls == 2
    memory(a, transform=b + 1)
    assert inner.calls == 3 and memory.calls == 3
    for k in range(9):
        memory(a + k, transform=t)
    assert len(memory.known) == CachedSynthesis.KEPT


def test_held_rows_read_as_a_file_s_do() -> None:
    array = np.arange(24, dtype=np.float32).reshape(6, 2, 2)
    rows = ArrayRows(array)
    assert len(rows) == 6 and rows.shape == (6, 2, 2)
    assert np.array_equal(rows.rows(4, 9), array[4:]) and np.array_equal(rows.take(np.array([3, 1])), array[[3, 1]])


def test_a_jpeg_carries_its_comment() -> None:
    image = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    data = jpeg_bytes(image, "made by sg3")
    assert b"made by sg3" in data[:40]
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == image.shape
