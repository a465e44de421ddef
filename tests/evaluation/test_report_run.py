"""A report's rows survive a kill, and its files replace reports only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sg3cli.console import Console
from sg3cli.drawing.images import png_bytes
from sg3cli.errors import UsageError
from sg3cli.evaluation.report_run import ReportRun, Row


class Work:
    """Rows k, k + 0.5, up to a number at which it is killed."""

    def __init__(self, count: int, dies_at: int | None = None) -> None:
        self.count, self.dies_at, self.began = count, dies_at, []

    def __call__(self, first: int) -> Iterator[Row]:
        self.began.append(first)
        for k in range(first, self.count):
            if k == self.dies_at:
                raise KeyboardInterrupt
            yield {"value": k, "pair": np.array([k, k + 0.5])}


def run_of(out: Path, **depends: object) -> ReportRun:
    return ReportRun(out, "generator", Console(quiet=True), **(depends or {"model": "a"}))


def killed(out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_of(out).rows("work", 200, Work(200, dies_at=150), multiple=10)


def test_a_killed_run_goes_on_at_a_whole_group_and_gives_the_same_rows(tmp_path: Path) -> None:
    out, again = tmp_path / "r.json", Work(200)
    killed(out)
    found = run_of(out).rows("work", 200, again, multiple=10)
    assert again.began == [120]  # two chunks of 60
    whole = run_of(tmp_path / "other.json").rows("work", 200, Work(200), multiple=10)
    for name in ("value", "pair"):
        np.testing.assert_array_equal(found[name], whole[name])
    assert found["value"].tolist() == list(range(200)) and found["pair"].shape == (200, 2)
    done = Work(200)
    run_of(out).rows("work", 200, done, multiple=10)
    assert done.began == []


def test_rows_of_another_model_or_of_another_measure_are_not_taken(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    killed(out)
    other, count = Work(200), Work(100)
    run_of(out).rows("another", 200, other)
    assert other.began == [0]
    run_of(out, model="b").rows("work", 100, count)
    assert count.began == [0]


def test_the_report_is_two_files_and_the_rows_go(tmp_path: Path) -> None:
    out, image = tmp_path / "r.json", np.zeros((4, 4, 3), np.uint8)
    killed(out)
    assert (tmp_path / "r.parts").is_dir()
    for value in (1.5, float("nan")):
        run_of(out).write({"a": np.float64(value), "b": {"c": np.arange(2)}, "d": None}, image)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.json", "r.png"]
    told = json.loads(out.read_text())
    assert told["command"] == "sg3 evaluate generator"
    assert (told["a"], told["b"], told["d"]) == (None, {"c": [0, 1]}, None)  # not NaN, which is no JSON


def test_no_other_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text('{"mine": 1}')
    (tmp_path / "holiday.png").write_bytes(png_bytes(np.zeros((4, 4, 3), np.uint8)))
    for name, match in (
        ("notes.json", r"notes\.json exists"),
        ("holiday.json", r"holiday\.png exists"),
        ("r.txt", "not the name of a JSON"),
    ):
        with pytest.raises(UsageError, match=match):
            run_of(tmp_path / name)
    assert (tmp_path / "notes.json").read_text() == '{"mine": 1}'
