"""What a newcomer meets: both forms of an edit, undo, suggestions, hints that lead on, a look before the work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sg3cli import cli
from sg3cli.cli import what_is_kept
from sg3cli.cli.batch import progress_of
from sg3cli.cli.batch_inputs import Entry
from sg3cli.cli.edit_flags import asked_edits
from sg3cli.console import Pace, progress_line
from sg3cli.errors import UsageError
from sg3cli.files import in_chunks, read_arrays, write_arrays
from sg3cli.latents.edits import layers_text, parse_edit, with_edits
from sg3cli.project import Project
from sg3cli.weights.direction_file import find_direction

KNOWN = {name: Path(name) for name in ("age", "smile", "mouth-open", "eyes-closed", "yaw")}


@pytest.fixture
def project(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished project of one's own, in the current folder."""
    shutil.copytree(tuned, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("SG3_PROJECT", raising=False)
    return tmp_path / "here" / "talk.sg3"


def edits(project: Path) -> list[str]:
    return [edit.describe() for edit in Project.open(project).edits]


def test_directions_and_strengths_are_paired_or_refused() -> None:
    both = asked_edits(["yaw=1"], ["age", "smile"], ["2", "1@0s..2s"], layers="1-3,5")
    assert both is not None
    assert [edit.describe() for edit in both] == [
        "yaw = 1 on layers 1-3,5",
        "age = 2 on layers 1-3,5",
        "smile = 1@0s..2s on layers 1-3,5",
    ]
    with pytest.raises(UsageError, match="2 times --direction"):
        asked_edits(None, ["age", "smile"], ["1"])
    assert asked_edits(None, None, None) is None
    assert with_edits(both, [parse_edit("age=0")]) == [both[0], both[2]]
    assert layers_text((1,)) == "1" and layers_text((1, 2, 4, 6, 7)) == "1-2,4,6-7"


def test_an_interval_is_written_in_one_way_everywhere() -> None:
    times = np.linspace(0, 30, 301)
    as_written = [parse_edit(f"age=2@{text}").strength_at(times) for text in ("10s..20s", "0:10..0:20", "0:10-0:20")]
    assert (as_written[0] == as_written[1]).all() and (as_written[0] == as_written[2]).all()
    assert as_written[0].max() == 2 and as_written[0][0] == 0
    assert parse_edit(" age = 2 ").direction == "age"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("agee", "age"),
        ("Age", "age"),
        ("old", "age"),
        ("happy", "smile"),
        ("mouth_open", "mouth-open"),
        ("yawn", "yaw"),
    ],
)
def test_a_misspelt_direction_is_guessed(word: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean {meant}"):
        find_direction(word, KNOWN)


def test_what_means_nothing_is_not_guessed() -> None:
    with pytest.raises(UsageError) as caught:
        find_direction("zzzz", KNOWN)
    assert "did you mean" not in str(caught.value) and "age" in caught.value.hint


def test_edits_are_listed_and_taken_back(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = edits(project)
    assert cli.run(["edit", "--edit", "smile=1", "--layers", "1-2", "-q"]) == 0
    assert edits(project) == [*before, "smile = 1 on layers 1-2"]
    capsys.readouterr()
    assert cli.run(["edit", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [*before, "smile = 1 on layers 1-2"]
    assert cli.run(["edit", "--undo", "-q"]) == 0 and edits(project) == before
    assert cli.run(["edit", "--clear", "-q"]) == 0 and edits(project) == []
    assert cli.run(["edit", "--undo", "-q"]) == 0 and edits(project) == before
    while cli.run(["edit", "--undo", "-q"]) == 0:
        pass
    assert "nothing to undo" in capsys.readouterr().err
    assert cli.run(["edit", "--undo", "--edit", "age=1", "-q"]) == 2


def test_a_strength_beyond_the_range_is_warned_about(
    project: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays, meta = read_arrays(tiny_bundle / "directions" / "age.safetensors")
    write_arrays(project.parent / "short.safetensors", arrays, {**meta, "name": "short", "range": [-1, 3]})
    assert cli.run(["edit", "--edit", "short.safetensors=50"]) == 0
    assert "beyond -1..3" in capsys.readouterr().err
    assert cli.run(["edit", "--edit", "short.safetensors=3"]) == 0
    assert "beyond -1..3" not in capsys.readouterr().err


def test_a_dry_run_says_what_is_to_do_and_does_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted(project.rglob("*"))
    assert cli.run(["render", "--dry-run", "-o", "out.mp4"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["align", "invert", "finetune", "render"]
    assert out.count("up to date") == 3 and "render    to do" in out
    assert cli.run(["invert", "--dry-run", "--steps", "5", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["status"] for stage in stages] == ["up to date", "to do"] and stages[1]["seconds"] > 0
    assert cli.run(["run", "talk.mp4", "--dry-run", "--draft", "--edit", "smile=1"]) == 0
    assert "finetune" not in capsys.readouterr().out
    assert sorted(project.rglob("*")) == files and not Path("out.mp4").exists()


def test_an_output_without_a_name_is_named_after_clip_and_edits(
    project: Path, tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny_bundle)
    assert cli.run(["edit", "--clear", "--edit", "age=2", "-q"]) == 0
    assert cli.run(["render", "--draft", "--preset", "ultrafast"]) == 0
    assert "the output is talk_age=2.mp4" in capsys.readouterr().err and Path("talk_age=2.mp4").is_file()
    assert cli.run(["run", "talk.mp4", "--draft", "--preset", "ultrafast", "--edit", "smile=1", "--model", model]) == 0
    assert Path("talk_smile=1.mp4").is_file()


def test_a_render_without_an_edit_says_what_it_shows(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["run", "talk.sg3", "-o", "a.mp4", "--draft", "--preset", "ultrafast"]) == 0
    assert "as the project has it" in capsys.readouterr().err
    assert cli.run(["edit", "--clear", "-q"]) == 0
    assert cli.run(["render", "-o", "b.mp4", "--draft", "--preset", "ultrafast"]) == 0
    assert "edit: none, the face stays as it is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (["run", "https://a.example/clip", "-o", "x.mp4"], "yt-dlp"),
        (["align", "talk.mp4", "--device", "mps"], "choose auto, cpu or cuda"),
        (["render", "-o", "x.mp4", "--crf", "60"], "0 to 51"),
        (["run", "talk.mp4", "-o", "x.mp4", "--draft", "--quality"], "exclude each other"),
    ],
)
def test_hints_lead_on(project: Path, capsys: pytest.CaptureFixture[str], line: list[str], what: str) -> None:
    assert cli.run(line) in (2, 3)
    assert what in capsys.readouterr().err and not Path("x.mp4").exists()


def test_what_an_interruption_costs_is_said_as_it_is() -> None:
    assert "the same command continues" in what_is_kept("invert")
    assert "--work" in what_is_kept("train encoder")
    assert what_is_kept("generate") == what_is_kept("bench") == "nothing of it is kept: run it again"


def test_chunks_are_whole_and_early_ones_come_by_time() -> None:
    assert list(map(len, in_chunks(range(10), 4, 2))) == [4, 4, 2]
    assert list(map(len, in_chunks(range(7), 100, 3, seconds=0.0))) == [3, 3, 1]
    assert [item for chunk in in_chunks(range(7), 4, 2) for item in chunk] == list(range(7))


def test_an_estimate_comes_when_the_pace_is_steady_and_not_before() -> None:
    pace = Pace()
    for second in range(5):
        pace.note(second, second)
    assert progress_line("invert", 4, 100, pace) == "invert 4/100, 1.0/s"
    for second in range(5, 20):
        pace.note(second, second)
    assert progress_line("invert", 19, 100, pace) == "invert 19/100, 1.0/s, 81 s left"
    slow = Pace()
    for second, done in enumerate([*range(10), *(9 + k / 20 for k in range(12))]):
        slow.note(second, done)
    assert slow.left(10, 100) == ""  # it has just become slower: nobody knows


def test_a_batch_tells_what_is_left_of_the_whole() -> None:
    entries = [Entry(f"{k}.mp4", None, f"{k}-out.mp4") for k in range(4)]
    assert progress_of(entries) == "0 of 4 inputs done"
    entries[0].status, entries[0].seconds = "failed", 1.0
    entries[1].status, entries[1].seconds = "done", 90.0
    assert progress_of(entries) == "2 of 4 inputs done, about 3 min left"
    for entry in entries[2:]:
        entry.status = "up to date"
    assert progress_of(entries) == ""
