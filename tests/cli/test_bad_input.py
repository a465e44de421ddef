"""Everything that can be wrong with what the user gives: two lines, the documented code, nothing lost, nothing half."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from running import environment, relocate, sg3

from sg3cli import cli
from sg3cli.files import digest_of
from sg3cli.manifest import read_manifest
from sg3cli.project import Project
from sg3cli.settings import EncodeConfig
from sg3cli.video import VideoReader, VideoWriter

USAGE, INPUT, MODEL, DEVICE = 2, 3, 4, 5


@pytest.fixture(scope="module")
def inverted(tmp_path_factory: pytest.TempPathFactory, talk: Path, tiny_bundle: Path) -> Path:
    """A folder with `talk.mp4` and its project, inverted, with one edit."""
    folder = tmp_path_factory.mktemp("inverted")
    shutil.copy(talk, folder / "talk.mp4")
    previous = Path.cwd()
    os.chdir(folder)
    try:
        line = ["edit", "talk.mp4", "--direction", "age", "--strength", "2", "--model", str(tiny_bundle), "-q"]
        assert cli.run(line) == 0
    finally:
        os.chdir(previous)
    return folder


@pytest.fixture
def here(inverted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to spoil."""
    folder = tmp_path / "here"
    shutil.copytree(inverted, folder)
    relocate(folder / "talk.sg3", inverted, folder)
    monkeypatch.chdir(folder)
    for name in environment().keys() ^ os.environ.keys():
        monkeypatch.delenv(name, raising=False)
    return folder


def listing(folder: Path) -> dict[str, bytes]:
    """Every file's content, locks apart."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.fixture
def refuses(here: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail with `code`, in two lines, and leave every file as it was; returns the error."""

    def check(code: int, *arguments: str, changes: bool = False) -> str:
        before = listing(here)
        capsys.readouterr()
        assert cli.run(list(arguments)) == code
        captured = capsys.readouterr()
        what, hint = captured.err.strip().splitlines()[-2:]
        assert captured.out == "" and what.startswith("error: ") and hint.startswith("hint: ")
        assert "Traceback" not in captured.err
        after = listing(here)
        assert changes or after == before
        assert not [name for name in after if name.endswith((".tmp", ".part"))]
        return what

    return check


Refuses = Callable[..., str]


# ---- the clip


def no_video(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, what the error says) of files that are not videos."""
    (folder / "empty.mp4").write_bytes(b"")
    yield "empty.mp4", "empty"
    (folder / "text.mp4").write_text("Dear diary, today I renamed a text file. " * 100)
    yield "text.mp4", "text.mp4"
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    yield "noise.mp4", "noise.mp4"
    whole = (folder / "talk.mp4").read_bytes()
    (folder / "headless.mp4").write_bytes(whole[len(whole) // 2 :])
    yield "headless.mp4", "headless.mp4"
    (folder / "tailless.mp4").write_bytes(whole[: len(whole) // 10])
    yield "tailless.mp4", "tailless.mp4"
    write_tone(folder / "sound.wav")
    yield "sound.wav", "sound.wav"
    yield "missing.mp4", "missing.mp4"
    (folder / "films").mkdir()
    yield "films", "folder"


def write_tone(path: Path) -> None:
    import wave

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes((8000 * np.sin(np.arange(4000) / 5)).astype("<i2").tobytes())


def test_what_is_not_a_video_makes_no_project(here: Path, refuses: Refuses) -> None:
    for name, words in list(no_video(here)):
        for command in (["align", name], ["run", name, "-o", "out.mp4"]):
            assert words in refuses(INPUT, *command)
    assert [path.name for path in here.glob("*.sg3")] == ["talk.sg3"]


def test_a_truncated_clip_is_named(here: Path, refuses: Refuses) -> None:
    whole = (here / "talk.mp4").read_bytes()
    (here / "cut.mp4").write_bytes(whole[: int(len(whole) * 0.4)])
    assert "cut.mp4 is cut off: " in refuses(INPUT, "align", "cut.mp4", changes=True)
    assert "cut.mp4 is cut off: " in refuses(INPUT, "run", "cut.mp4", "-o", "out.mp4", changes=True)


def test_a_clip_without_a_face(here: Path, refuses: Refuses) -> None:
    with VideoReader("talk.mp4") as reader, VideoWriter("wall.mp4", reader.info, EncodeConfig()) as writer:
        for frame in reader:
            writer.write(replace(frame, rgb=np.full_like(frame.rgb, 90)))
    assert "face" in refuses(
        INPUT, "run", "wall.mp4", "-o", "out.mp4", "--edit", "age=1", "--model", _model(here), changes=True
    )
    assert not (here / "out.mp4").exists()
    assert Project.open(here / "wall.sg3").status("align") == "missing"


def test_a_face_that_is_not_there(here: Path, refuses: Refuses) -> None:
    assert "face" in refuses(INPUT, "align", "talk.sg3", "--face", "7")
    assert "nobody" in refuses(USAGE, "align", "talk.sg3", "--face", "nobody")
    assert Project.open(here / "talk.sg3").status("align") == "done"


def test_the_project_of_another_clip(here: Path, other: Path, refuses: Refuses) -> None:
    shutil.copy(other, here / "other.mp4")
    for command in (["align"], ["invert"], ["run", "-o", "out.mp4"]):
        assert "another clip" in refuses(INPUT, *command, "other.mp4", "--project", "talk.sg3")


def test_a_clip_that_is_gone_or_has_changed(here: Path, other: Path, refuses: Refuses) -> None:
    render = ("render", "talk.sg3", "-o", "out.mp4", "--no-finetune")
    (here / "talk.mp4").rename(here / "elsewhere.mp4")
    assert "talk.mp4" in refuses(INPUT, *render)
    shutil.copy(other, here / "talk.mp4")
    assert "is not the clip" in refuses(INPUT, *render)


# ---- the edit


def test_an_unknown_direction_lists_those_known(
    here: Path, refuses: Refuses, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'hat'" in refuses(USAGE, "edit", "talk.sg3", "--direction", "hat", "--strength", "2")
    assert cli.run(["run", "talk.mp4", "-o", "o.mp4", "--edit", "hat=1", "--model", _model(here)]) == USAGE
    assert "age, smile" in capsys.readouterr().err
    assert "hat.npy" in refuses(USAGE, "edit", "talk.sg3", "--direction", "hat.npy", "--strength", "2")


def _model(folder: Path) -> str:
    return str(Project.open(folder / "talk.sg3").record("invert").params["model"])


@pytest.mark.parametrize("strength", ["nan", "inf", "-inf", "much", "1@2s..1s", "1s:1,0s:2", ""])
def test_a_strength_that_is_none(refuses: Refuses, strength: str) -> None:
    refuses(USAGE, "edit", "talk.sg3", "--direction", "age", f"--strength={strength}")
    refuses(USAGE, "run", "talk.mp4", "-o", "out.mp4", "--edit", f"age={strength}")


def test_half_an_edit(refuses: Refuses) -> None:
    refuses(USAGE, "edit", "talk.sg3")
    refuses(USAGE, "edit", "talk.sg3", "--direction", "age")
    refuses(USAGE, "edit", "talk.sg3", "--strength", "2")
    refuses(USAGE, "edit", "talk.sg3", "--direction", "age", "--strength", "2", "--layers", "x")
    refuses(USAGE, "edit", "talk.sg3", "--direction", "age", "--strength", "2", "--space", "q")
    assert "layer 99" in refuses(USAGE, "edit", "talk.sg3", "--direction", "age", "--strength", "2", "--layers", "99")


def test_a_direction_file_that_was_deleted_is_named_when_rendering(here: Path, refuses: Refuses) -> None:
    np.save(here / "mine.npy", np.ones(32, np.float32))
    assert cli.run(["edit", "talk.sg3", "--direction", "mine.npy", "--strength", "1"]) == 0
    (here / "mine.npy").unlink()
    assert "mine.npy" in refuses(USAGE, "render", "talk.sg3", "-o", "out.mp4", "--no-finetune")


# ---- model and device


def test_a_model_that_is_not_there(refuses: Refuses) -> None:
    assert "nonsense" in refuses(MODEL, "invert", "talk.sg3", "--model", "nonsense")


def test_landmarks_that_were_not_pulled(here: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SG3_MODELS", str(here / "no-models"))
    shutil.copy("talk.mp4", "again.mp4")
    assert "face-mesh" in refuses(MODEL, "align", "again.mp4", changes=True)


def test_a_device_that_is_not_there(here: Path, refuses: Refuses) -> None:
    invert = ("invert", "talk.sg3", "--steps", "1", "--model", _model(here), "--device")
    refuses(DEVICE, *invert, "cuda:99")
    refuses(USAGE, *invert, "gpu")


# ---- the output


def test_outputs_that_cannot_be(here: Path, refuses: Refuses) -> None:
    (here / "folder.mp4").mkdir()
    render = ("render", "talk.sg3", "--no-finetune", "-o")
    assert "talk.mp4" in refuses(INPUT, *render, "talk.mp4")
    assert "folder" in refuses(INPUT, *render, "folder.mp4")
    assert "nowhere" in refuses(INPUT, *render, "nowhere/out.mp4")
    assert "/proc" in refuses(INPUT, *render, "/proc/out.mp4")
    assert "suffix" in refuses(USAGE, *render, "out.doc")
    assert "stdout" in refuses_json(USAGE, *render, "-")


def refuses_json(code: int, *arguments: str) -> str:
    ran = sg3(*arguments, "--json", cwd=Path.cwd())
    assert ran.code == code
    return str(ran.json["error"]["what"])


def test_an_output_that_the_input_is_linked_to(here: Path, refuses: Refuses) -> None:
    os.link("talk.mp4", "same.mp4")
    os.symlink("talk.mp4", "link.mp4")
    for name in ("same.mp4", "link.mp4"):
        refuses(INPUT, "render", "talk.sg3", "--no-finetune", "-o", name)


def test_a_file_that_is_not_ours_is_not_replaced(here: Path, refuses: Refuses) -> None:
    (here / "holiday.mp4").write_bytes(b"precious")
    assert "--force" not in refuses(USAGE, "render", "talk.sg3", "--no-finetune", "-o", "holiday.mp4")
    assert (here / "holiday.mp4").read_bytes() == b"precious"


def test_encoder_settings_that_cannot_be(refuses: Refuses) -> None:
    refuses(USAGE, "render", "talk.sg3", "--no-finetune", "-o", "out.mp4", "--codec", "nonsense")
    refuses(USAGE, "render", "talk.sg3", "--no-finetune", "-o", "out.mp4", "--pix-fmt", "nonsense")


def with_file_limit(limit: int, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run with no file allowed to grow beyond `limit` bytes: writing fails in the middle, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        code = cli.run(arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    return code, capsys.readouterr().err


def test_no_room_for_the_output(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, told = listing(here), read_manifest(here / "talk.sg3")
    line = ["render", "talk.sg3", "-o", "out.mp4", "--no-finetune", "--preset", "ultrafast", "--crf", "0"]
    code, err = with_file_limit(20_000, line, capsys)
    assert code == INPUT and err.strip().splitlines()[-2].startswith("error: ")
    after, manifest = listing(here), "talk.sg3/project.json"
    (smoothed,) = after.keys() - before.keys()  # the smoothed codes, and in the manifest their digest
    digests = {**told["digests"], smoothed.removeprefix("talk.sg3/"): digest_of(here / smoothed)}
    assert read_manifest(here / "talk.sg3") == {**told, "digests": digests}
    assert {**after, manifest: b""} == {**before, smoothed: after[smoothed], manifest: b""}
    assert cli.run(line) == 0 and (here / "out.mp4").stat().st_size > 20_000


def test_no_room_for_the_project(here: Path, talk: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["invert", "talk.mp4", "--project", "new.sg3", "--model", str(tiny_bundle)]
    code, err = with_file_limit(9_000, line, capsys)
    assert code == INPUT and "new.sg3" in err.strip().splitlines()[-2]
    assert not list(here.rglob("*.tmp"))
    assert cli.run(line) == 0
    whole = np.load(here / "talk.sg3/invert/ws.npy", allow_pickle=False)
    assert (np.load(here / "new.sg3/invert/ws.npy", allow_pickle=False) == whole).all()


# ---- two at once


def test_a_project_in_use_names_its_owner(here: Path, refuses: Refuses) -> None:
    with Project.open(here / "talk.sg3").lock("render"):
        assert f"process {os.getpid()}" in refuses(INPUT, "invert", "talk.sg3")


def test_a_dry_run_refuses_an_output_that_the_run_would(refuses: Refuses) -> None:
    for out in ("x.txt", "nowhere/x.mp4"):
        first = refuses(
            USAGE if out == "x.txt" else INPUT, "run", "talk.mp4", "-o", out, "--edit", "age=1", "--dry-run"
        )
        assert Path(out).name in first or "nowhere" in first


def test_an_edit_that_cannot_be_read_is_named_with_its_direction(refuses: Refuses) -> None:
    assert "smile=abc" in refuses(USAGE, "edit", "talk.sg3", "--edit", "age=1", "--edit", "smile=abc")
    assert "age=x" in refuses(USAGE, "edit", "talk.sg3", "--target", "age=x")


def test_a_face_that_is_not_there_is_refused_before_the_work_and_says_who_is(
    here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (fresh := here / "fresh").mkdir()
    shutil.copy(here / "talk.mp4", fresh)
    line = ["run", "fresh/talk.mp4", "-o", "o.mp4", "--project", "fresh/t.sg3", "--edit", "5:age=1"]
    assert cli.run([*line, "--model", str(tiny_bundle)]) == USAGE
    said = capsys.readouterr().err
    assert "face 5" in said and "sg3 faces" in said
    assert not (fresh / "t.sg3" / "invert").exists()


def test_a_run_that_fails_leaves_the_edits_that_the_project_has(refuses: Refuses, here: Path) -> None:
    before = read_manifest(here / "talk.sg3")["edits"]
    line = ("run", "talk.mp4", "-o", "o.mp4", "--edit", "age=1", "--face", "7")
    refuses(INPUT, *line, changes=True)
    assert read_manifest(here / "talk.sg3")["edits"] == before


def test_who_asks_for_what_lies_beyond_the_clip_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["edit", "talk.sg3", "--edit", "age=1@50s..60s"]) == 0
    assert "age = 1@50s..60s does nothing while the clip lasts" in capsys.readouterr().err
    assert cli.run(["align", "talk.sg3"]) == 0
    assert "lies beyond" not in capsys.readouterr().err


def test_a_clip_without_a_face_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], talk: Path) -> None:
    with VideoReader(talk) as reader:
        info = replace(reader.info, path=tmp_path / "wall.mp4")
        frames = [replace(frame, rgb=np.full_like(frame.rgb, 90)) for frame in reader]
    with VideoWriter(tmp_path / "wall.mp4", replace(info, path=talk), EncodeConfig()) as writer:
        for frame in frames:
            writer.write(frame)
    assert cli.run(["align", str(tmp_path / "wall.mp4"), "--project", str(tmp_path / "p.sg3")]) == INPUT
    assert "wall.mp4: no face was found" in capsys.readouterr().err
