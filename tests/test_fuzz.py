"""Whole commands on spoiled sources, model files and projects: no crash, no bug, no hang, no difference in silence.

`SG3_FUZZ=0.1` runs a tenth of the cases.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from fuzz import CPU, MEMORY, Lines, Outcome, prepare_models, prepare_projects, prepare_sources, run_all

pytestmark = pytest.mark.slow
COUNTS = {"sources": 500, "models": 500, "projects": 200}


def check(outcomes: list[Outcome], job: str) -> Counter[int]:
    """All cases ended as they may; returns how often with each code."""
    codes = Counter(outcome.code for outcome in outcomes)
    most = max(outcome.peak for outcome in outcomes), max(outcome.seconds for outcome in outcomes)
    print(f"{job}: {len(outcomes)} cases, codes {dict(codes)}, {most[0] / 1e6:.0f} MB, {most[1]:.1f} s at most")
    bad = [outcome for outcome in outcomes if outcome.wrong]
    assert not bad, "\n".join(map(str, bad[:5]))
    assert codes[1] == 0 and most[0] < MEMORY and most[1] < CPU
    return codes


def numbers(job: str) -> range:
    return range(max(20, int(COUNTS[job] * float(os.environ.get("SG3_FUZZ", "1")))))


def test_two_answers_at_once_are_two_lines() -> None:
    """The second must not wait in a buffer for a third: its case would be taken for one that hangs."""
    read, write = os.pipe()
    os.write(write, b"one\ntwo\nthr")
    lines = Lines(read)
    assert [lines.next(5), lines.next(5), lines.next(0.1)] == ["one", "two", None]
    os.write(write, b"ee\n")
    os.close(write)
    assert [lines.next(5), lines.next(5)] == ["three", ""]
    os.close(read)


def test_spoiled_sources(tmp_path: Path, talk: Path, tiny_bundle: Path) -> None:
    prepare_sources(tmp_path, talk, tiny_bundle)
    codes = check(run_all("sources", tmp_path, numbers("sources")), "sources")
    assert codes[0] > 0 < codes[3]


def test_spoiled_model_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SG3_MODELS", str(tmp_path / "store"))
    prepare_models(tmp_path)
    codes = check(run_all("models", tmp_path, numbers("models")), "models")
    assert codes[0] > 0 < codes[4]


def test_damaged_projects(tmp_path: Path, tuned: Path, tiny_bundle: Path) -> None:
    prepare_projects(tmp_path, tuned, tiny_bundle)
    codes = check(run_all("projects", tmp_path, numbers("projects")), "projects")
    assert codes[0] > 0 < codes[3]
