"""`sg3 run` on many inputs: which they are, where they go, what a failure or an interrupt means for the others."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sg3cli import cli
from sg3cli.cli import batch_inputs
from sg3cli.cli.batch_inputs import gather, plan
from sg3cli.console import Console
from sg3cli.errors import InputError, UsageError
from sg3cli.latents.edits import parse_edit
from sg3cli.pipeline import Job
from sg3cli.project import Project
from sg3cli.video.probe import probe

FAST = ["--no-finetune", "--preset=ultrafast", "--edit", "age=2"]


@dataclass(frozen=True)
class Batch:
    """A folder with three clips, one of them bad, and how `run` ended on them."""

    folder: Path
    code: int
    out: str
    err: str


def line(bundle: Path, *arguments: str) -> list[str]:
    return ["run", *arguments, "--model", str(bundle), *FAST]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, talk: Path, other: Path, tiny_bundle: Path) -> Batch:
    folder = tmp_path_factory.mktemp("batch")
    shutil.copy(talk, folder / "talk.mp4")
    shutil.copy(other, folder / "other.mp4")
    (folder / "bad.mp4").write_text("Dear diary, today I renamed a text file. " * 100)
    out, err = io.StringIO(), io.StringIO()
    with chdir(folder), redirect_stdout(out), redirect_stderr(err):
        code = cli.run(line(tiny_bundle, "talk.mp4", "bad.mp4", "other.mp4", "--out-dir", "out", "--json"))
    return Batch(folder, code, out.getvalue(), err.getvalue())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def empty_files(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


# ---- a failure among others


def test_a_bad_file_costs_nothing_but_itself(done: Batch) -> None:
    assert done.code == 6
    for name in ("talk", "other"):
        assert probe(done.folder / "out" / f"{name}_edited.mp4").frames == 12
        record = json.loads((done.folder / "out" / f"{name}_edited.mp4.json").read_text())
        assert record["source"]["name"] == f"{name}.mp4" and record["edits"][0]["direction"] == "age"
        assert Project.open(done.folder / "out" / f"{name}.sg3").status("render") == "done"
    assert not list(done.folder.glob("*.sg3")) and not (done.folder / "out" / "bad_edited.mp4").exists()


def test_each_error_is_two_lines_with_its_input_and_a_table_ends_the_batch(done: Batch) -> None:
    lines = done.err.splitlines()
    at = next(n for n, text in enumerate(lines) if text.startswith("bad.mp4: error: "))
    assert lines[at + 1].startswith("bad.mp4: hint: ")
    assert lines[-2] == "error: 1 of 3 inputs failed" and lines[-1].startswith("hint: ")
    table = [text.split() for text in lines[-6:-2]]
    assert table[0] == ["input", "status", "seconds", "output", "or", "error"]
    assert [row[:2] for row in table[1:]] == [["talk.mp4", "done"], ["bad.mp4", "failed"], ["other.mp4", "done"]]
    assert table[1][3:] == ["out/talk_edited.mp4"] and " ".join(table[2][3:]) in lines[at]
    assert len({row.index("done") for row in lines[-5:-2] if "done" in row}) == 1  # columns stand under each other


def test_json_is_one_object_with_an_entry_for_each_input(done: Batch) -> None:
    (text,) = done.out.splitlines()
    told = json.loads(text)
    assert (told["ok"], told["command"], told["error"]["code"]) == (False, "run", 6)
    good, bad, last = told["inputs"]
    assert (good["input"], good["status"], good["project"]) == ("talk.mp4", "done", "out/talk.sg3")
    assert good["stages"]["invert"]["status"] == "done" and good["edits"][0]["strength"] == "2"
    assert (bad["status"], bad["error"]["code"]) == ("failed", 3) and bad["error"]["hint"] and "stages" not in bad
    assert last["output"] == "out/other_edited.mp4" and last["seconds"] > 0 and "error" not in last


def test_a_second_run_computes_nothing(
    done: Batch, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done.folder)
    kept = [p for p in done.folder.rglob("*") if p.is_file() and p.name not in ("project.json", ".lock")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert cli.run(line(tiny_bundle, "talk.mp4", "other.mp4", "--out-dir", "out")) == 0
    ran = capsys.readouterr()
    assert ran.out.split() == ["out/talk.sg3", "out/other.sg3"]
    for name in ("talk", "other"):
        assert f"{name}.mp4: invert: up to date, nothing was computed" in ran.err  # said for each, not once
    assert [text.split()[1:3] for text in ran.err.splitlines()[-2:]] == [["up", "to"]] * 2
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_fail_fast_starts_nothing_more(
    done: Batch, here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(done.folder / "bad.mp4", here)
    shutil.copy(done.folder / "talk.mp4", here)
    argv = line(tiny_bundle, "bad.mp4", "talk.mp4", "--out-dir", "out", "--fail-fast", "--json")
    assert cli.run(argv) == 6
    ran = capsys.readouterr()
    assert [entry["status"] for entry in json.loads(ran.out)["inputs"]] == ["failed", "not started"]
    assert "1 of 2 inputs failed, 1 were not started" in ran.err
    assert list((here / "out").iterdir()) == []


def test_one_input_keeps_its_own_code_and_all_failed_is_6(
    done: Batch, here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(done.folder / "bad.mp4", here)
    assert cli.run(line(tiny_bundle, "bad.mp4", "--out-dir", "out")) == 3
    assert capsys.readouterr().err.splitlines()[-2].startswith("error: ")
    assert cli.run(line(tiny_bundle, "bad.mp4", "gone.mp4", "--out-dir", "out", "-q")) == 6
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 6 and errors[2:4] == [
        "gone.mp4: error: there is no file gone.mp4",
        "gone.mp4: hint: check the path",
    ]


def test_a_bug_on_one_input_does_not_stop_the_others(
    done: Batch, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    align: Callable[[Job], None] = Job.align

    def broken(job: Job) -> None:
        if job.project.path.name == "talk.sg3":
            raise ZeroDivisionError("oh")
        align(job)

    monkeypatch.chdir(done.folder)
    monkeypatch.setattr(Job, "align", broken)
    assert cli.run(line(tiny_bundle, "talk.mp4", "other.mp4", "--out-dir", "out", "--json")) == 6
    ran = capsys.readouterr()
    first, second = json.loads(ran.out)["inputs"]
    assert (first["error"]["code"], second["status"]) == (1, "up to date")
    assert "talk.mp4: error: ZeroDivisionError: oh" in ran.err and "Traceback" not in ran.err


# ---- stopping, and others at work


@pytest.fixture
def interruptible() -> Iterator[None]:
    """The signal handler of the `sg3` command."""
    before = signal.signal(signal.SIGINT, cli._stop)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_stops_the_batch(
    done: Batch, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    align: Callable[[Job], None] = Job.align

    def interrupted(job: Job) -> None:
        if job.project.path.name == "other.sg3":
            os.kill(os.getpid(), signal.SIGINT)
        align(job)

    monkeypatch.chdir(done.folder)
    monkeypatch.setattr(Job, "align", interrupted)
    assert cli.run(line(tiny_bundle, "talk.mp4", "other.mp4", "bad.mp4", "--out-dir", "out", "--json")) == 130
    ran = capsys.readouterr()
    told = json.loads(ran.out)
    assert [entry["status"] for entry in told["inputs"]] == ["up to date", "interrupted", "not started"]
    assert told["error"]["code"] == 130 and ran.err.splitlines()[-2] == "error: run was interrupted"
    assert ran.err.splitlines()[-3].split() == ["bad.mp4", "not", "started"]
    assert Project.open(done.folder / "out" / "other.sg3").status("render") == "done"


def test_a_project_that_another_process_works_on_is_left_to_it(
    done: Batch, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done.folder)
    with Project.open(Path("out/talk.sg3")).lock("finetune"):
        assert cli.run(line(tiny_bundle, "talk.mp4", "other.mp4", "--out-dir", "out", "--json")) == 6
    first, second = json.loads(capsys.readouterr().out)["inputs"]
    assert f"is being written by process {os.getpid()} on" in first["error"]["what"]
    assert "(sg3 finetune, since" in first["error"]["what"] and second["status"] == "up to date"


# ---- equal names


def test_equal_stems_from_two_folders(
    done: Batch, here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, clip in (("x", "talk"), ("y", "other")):
        (here / name).mkdir()
        shutil.copy(done.folder / f"{clip}.mp4", here / name / "a.mp4")
    both = line(tiny_bundle, "x/a.mp4", "y/a.mp4", "--out-dir", "out")
    assert cli.run(both) == 2
    err = capsys.readouterr().err
    assert "x/a.mp4 and y/a.mp4 would both be written to out/a_edited.mp4" in err and "{index}" in err
    assert sorted(p.name for p in here.iterdir()) == ["x", "y"]  # before any work
    assert cli.run([*both, "--name", "{stem}-{index:02}{suffix}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["inputs"]
    assert [entry["output"] for entry in told] == ["out/a-01.mp4", "out/a-02.mp4"]
    assert len({entry["project"] for entry in told}) == 2
    for entry, folder in zip(told, "xy", strict=True):
        assert Project.open(Path(entry["project"])).source() == here / folder / "a.mp4"
    alone = line(tiny_bundle, "y/a.mp4", "--out-dir", "out", "--name", "{stem}-02{suffix}", "--json")
    assert cli.run(alone) == 0  # finds the project and the video of the batch again
    assert json.loads(capsys.readouterr().out)["inputs"][0]["status"] == "up to date"


def projects(*names: str) -> list[Path | None]:
    return [entry.project for entry in plan(names, Path("out"), "{index}.mp4", [], None)]


def test_a_project_stays_with_its_clip_when_inputs_are_added(here: Path) -> None:
    for folder in "xy":
        empty_files(f"{folder}/a.mp4")
        Path(folder, "a.mp4").write_text(folder)
    Path("out/a.sg3").mkdir(parents=True)
    Path("out/a.sg3/.owner.json").touch()  # somebody has just begun
    assert projects("x/a.mp4") == [Path("out/a.sg3")]
    project = Project.of_source(Path("x/a.mp4"), Path("out/a.sg3"), {})
    with project.lock("test"):
        project.save()
    first, second = projects("x/a.mp4", "y/a.mp4")
    assert first == Path("out/a.sg3") and second is not None and second != first
    assert projects("y/a.mp4") == [second]  # not the project of the other clip
    assert projects("y/a.mp4", "x/a.mp4") == [second, first]


# ---- templates


def outputs(template: str, *names: str, edits: tuple[str, ...] = (), container: str | None = None) -> list[str]:
    planned = plan(names, Path("out"), template, [parse_edit(text) for text in edits], container)
    return [entry.output for entry in planned]


def test_templates(here: Path) -> None:
    empty_files("a.b.MOV", "old.avi", "frames/1.png", "still.jpg")
    names = ("a.b.MOV", "old.avi", "frames", "still.jpg", "gone.webm")
    assert outputs(batch_inputs.TEMPLATE, *names) == [
        "out/a.b_edited.MOV",
        "out/old_edited.mp4",  # sg3 writes no .avi
        "out/frames_edited.mp4",
        "out/still_edited.jpg",
        "out/gone_edited.webm",
    ]
    assert outputs("{index:03}/{stem}.mkv", "a.b.MOV") == ["out/001/a.b.mkv"]
    assert outputs("{stem}/", "a.b.MOV") == ["out/a.b/"]  # a folder of images
    assert outputs("{stem}{suffix}", "a.b.MOV", container="matroska") == ["out/a.b.mkv"]
    edits = ("age=2", "1:smile=1@0s..2s", "d/hat_boundary.npy=-1")
    assert outputs("{edit}.mp4", "a.b.MOV", edits=edits) == ["out/age=2+1-smile=1@0s..2s+hat_boundary=-1.mp4"]
    assert outputs("{{{edit}}}.mp4", "a.b.MOV") == ["out/{unedited}.mp4"]


@pytest.mark.parametrize(
    "template", ["{name}.mp4", "{stem.__class__}.mp4", "{}.mp4", "{0}.mp4", "{stem", "{stem:d}", "../{stem}", "/x", ""]
)
def test_a_wrong_template_is_a_usage_error(here: Path, template: str) -> None:
    empty_files("a.mp4")
    with pytest.raises(UsageError) as caught:
        outputs(template, "a.mp4")
    assert "--name" in str(caught.value) and caught.value.hint
    assert not Path("out").exists()


def test_an_output_never_replaces_an_input(here: Path) -> None:
    empty_files("out/a.mp4", "out/a_edited.mp4")
    with pytest.raises(UsageError, match=r"out/a\.mp4 would replace the input out/a_edited\.mp4"):
        outputs(batch_inputs.TEMPLATE, "out/a.mp4", "out/a_edited.mp4")
    Path("file").write_text("")
    with pytest.raises(InputError, match="cannot write file"):
        plan(["out/a.mp4"], Path("file"), batch_inputs.TEMPLATE, [], None)


# ---- which inputs


def gathered(*given: str, listed: str | None = None, out: str | None = "out") -> list[str]:
    return gather(given, listed, None if out is None else Path(out), Console(quiet=True))


def test_folders_and_patterns_are_opened_up_in_natural_order(here: Path) -> None:
    empty_files("f/10.mp4", "f/9.MOV", "f/notes.txt", "f/.hidden.mp4", "f/p.sg3/project.json", "f/sub/z.mkv", "s/1.png")
    assert gathered("f") == ["f/9.MOV", "f/10.mp4"]
    assert gathered("f/*") == ["f/9.MOV", "f/10.mp4", "f/sub/z.mkv"]
    assert gathered("f/*.mp4") == ["f/10.mp4"] and gathered("f/**/*.mkv") == ["f/sub/z.mkv"]
    assert gathered("f/*.txt") == ["f/notes.txt"]  # asked for by name
    assert gathered("f/p.sg3", "s") == ["f/p.sg3", "s"]  # a project; a video of images
    assert gathered("f/*.nothing") == ["f/*.nothing"]  # fails as a file that is not there
    assert gathered("./f/10.mp4", "f") == ["./f/10.mp4", "f/9.MOV"]  # each once
    empty_files("f/[1].mp4", "f/cover.jpg")
    assert gathered("f/[1].mp4") == ["f/[1].mp4"]
    with pytest.raises(UsageError, match="videos and pictures"):
        gathered("f")
    assert gathered("f", out=None) == ["f"]  # with -o it is a video of images, as it always was


def test_what_sg3_made_in_the_output_folder_is_no_input(done: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done.folder)
    shutil.copy("talk.mp4", "out/new.mp4")
    made = ["out/other_edited.mp4", "out/talk_edited.mp4"]
    assert gathered("out") == gathered("out/*.mp4") == ["out/new.mp4"]
    assert gathered("out", out="elsewhere") == ["out/new.mp4", *made]  # a second edit of the first one's results
    assert gathered(*made) == made
    Path("out/new.mp4").unlink()


def test_a_list_of_files(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "\ufeffa b.mp4\r\n\n f.mp4\n#1.mp4".encode() + b"\n\xff.mp4\n"
    Path("list.txt").write_bytes(content)
    listed = ["a b.mp4", " f.mp4", "#1.mp4", os.fsdecode(b"\xff.mp4")]
    assert gathered("z.mp4", listed="list.txt") == ["z.mp4", *listed]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert gathered(listed="-") == listed
    Path("list.txt").write_bytes(b"\n")
    for wrong in ({"listed": "list.txt"}, {}):
        with pytest.raises(UsageError):
            gathered(**wrong)
    Path("list.txt").write_bytes(b"a\0b")
    for name in ("list.txt", "gone.txt"):
        with pytest.raises(InputError, match=name):
            gathered(listed=name)


def test_a_list_of_one_may_have_a_plain_output(
    done: Batch, here: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(done.folder / "out" / "talk.sg3", here / "talk.sg3")
    Path("list.txt").write_text(f"{done.folder / 'talk.mp4'}\n")
    assert cli.run(line(tiny_bundle, "--from", "list.txt", "-o", "o.mp4", "--json")) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["project"], told["output"]) == ("talk.sg3", "o.mp4") and "inputs" not in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["a.mp4", "b.mp4"],
        ["a.mp4", "b.mp4", "-o", "c.mp4"],
        ["a.mp4", "--out-dir", "out", "-o", "c.mp4"],
        ["a.mp4", "-o", "c.mp4", "--name", "{stem}.mp4"],
        ["a.mp4", "b.mp4", "--out-dir", "out", "--project", "p.sg3"],
        ["a.mp4", "-", "--out-dir", "out"],
        ["--out-dir", "out"],
    ],
)
def test_options_that_do_not_fit(arguments: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty_files("a.mp4", "b.mp4")
    assert cli.run(["run", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: ") and lines[1].startswith("hint: ")
    assert sorted(p.name for p in here.iterdir()) == ["a.mp4", "b.mp4"]
