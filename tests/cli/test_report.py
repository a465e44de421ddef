"""`sg3 report` on a project: its own figures and frames, in one file that replaces nothing but an earlier report."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import json
import re
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from running import relocate

from sg3cli import cli
from sg3cli.evaluation.clip_table import COLUMNS
from sg3cli.project import Project

NAME = '<b>&"older".mp4'
EVERY = ["--every", "6"]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, tuned: Path) -> Path:
    """A folder with a project and the video that was rendered from it, whose name looks like HTML."""
    folder = tmp_path_factory.mktemp("report") / "here"
    shutil.copytree(tuned, folder)
    relocate(folder / "talk.sg3", tuned, folder)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert cli.run(["render", "talk.sg3", "-o", NAME, "--preset=ultrafast", "-q"]) == 0
    return folder


@pytest.fixture(scope="module")
def told(rendered: Path) -> tuple[dict, str]:
    """What `--json` says of a report, and its page."""
    words = io.StringIO()
    with contextlib.chdir(rendered), contextlib.redirect_stdout(words):
        assert cli.run(["report", "talk.sg3", "-o", "page.html", *EVERY, "--json"]) == 0
    return json.loads(words.getvalue()), (rendered / "page.html").read_text(encoding="utf8")


def videos(page: str) -> list[bytes]:
    found = re.findall(r'<video [^>]*data-film="data:video/mp4;base64,([^"]+)"', page)
    return [base64.b64decode(data) for data in found]


def test_the_figures_are_those_of_evaluate_video(
    rendered: Path, told: tuple[dict, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(rendered)
    assert cli.run(["evaluate", "video", "talk.sg3", *EVERY, "--json"]) == 0
    (figures,) = json.loads(capsys.readouterr().out)["clips"]
    assert told[0]["clips"][0]["figures"] == figures
    shown = dict(re.findall(r'<dd(?: class="none")? data-key="([^"]+)">([^<]*)</dd>', told[1]))
    by_key = {column.key: column for column in COLUMNS}
    for key in ("likeness", "jitter", "flicker", "sharpness", "seam", "lpips"):
        assert shown[key] == by_key[key].text(by_key[key].value(figures))
    assert f"{figures['distance']['mean']:.4f} (max {figures['distance']['max']:.4f})" in html.unescape(told[1])


def test_both_videos_are_inside_with_every_frame(rendered: Path, told: tuple[dict, str]) -> None:
    edited, source = (decoded(data) for data in videos(told[1]))
    assert len(edited) == len(source) == 12
    assert [time for time, _ in edited] == [time for time, _ in source]
    before, after = (decoded((rendered / name).read_bytes()) for name in ("talk.mp4", NAME))
    for (_, first), (_, second), (_, plain), (_, moved) in zip(source, edited, before, after, strict=True):
        assert apart(first, plain) < 6 > apart(second, moved)  # each its own frames, in their order
    assert apart(edited[-1][1], after[-1][1]) < apart(edited[-1][1], before[-1][1])  # and none in place of the other
    assert apart(source[-1][1], before[-1][1]) < apart(source[-1][1], after[-1][1])


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b).mean())


def decoded(data: bytes) -> list[tuple[float, np.ndarray]]:
    with av.open(io.BytesIO(data)) as container:
        return [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def test_the_page_tells_of_the_project(rendered: Path, told: tuple[dict, str]) -> None:
    page, project = told[1], Project.open(rendered / "talk.sg3")
    assert "&lt;b&gt;&amp;&#34;older&#34;.mp4" in page and NAME not in page
    assert len(re.findall(r"<img class=\"mask\" src=\"data:image/png", page)) == 8
    shapes = json.loads(re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)[0])
    window = project.track().windows[5] / project.stream["width"]
    assert np.allclose(shapes[5]["windows"][0], window, atol=1e-3) and len(shapes) == 12
    for stage in ("align", "invert", "finetune", "render"):
        assert f"{project.record(stage).seconds:.1f} s</td>" in page
    assert page.count(" MB</td>") == 4 and "not recorded" not in page
    assert "face-mesh" in page and "Apache-2.0" in page and project.manifest["source"]["sha256"] in page
    assert f"<li>{project.edits[0].describe()}</li>" in page


def test_masks_cover_the_face_and_nothing_at_the_corners(told: tuple[dict, str]) -> None:
    for data in re.findall(r'<img class="mask" src="data:image/png;base64,([^"]+)"', told[1]):
        tint = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_UNCHANGED)
        size = len(tint)
        assert tint[size // 2 - 4 : size // 2 + 4, size // 2 - 4 : size // 2 + 4, 3].mean() > 60
        assert tint[:4, :4, 3].max() == tint[-4:, -4:, 3].max() == 0


def test_quick_leaves_the_figures_out(rendered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(rendered)
    assert cli.run(["report", "talk.sg3", "-o", "quick.html", "--quick", "-q"]) == 0
    page = (rendered / "quick.html").read_text(encoding="utf8")
    assert set(re.findall(r'data-key="[^"]+">([^<]*)</dd>', page)) == {"not computed"}
    assert len(videos(page)) == 2 and "landmarks, measured (mean" in page  # the track's own jitter is there


def test_an_earlier_report_is_replaced_and_nothing_else(
    rendered: Path, told: tuple[dict, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(rendered)
    (rendered / "mine.html").write_text("<p>my own page</p>")
    for words, said in (
        (["talk.sg3", "-o", "mine.html"], "mine.html exists and is not a report of sg3"),
        (["talk.sg3", "-o", "talk.mp4"], "talk.mp4 is not the name of a page"),
        (["none.sg3", "-o", "new.html"], "there is no project none.sg3"),
        (["talk.sg3", "-o", "no/such/new.html"], "no/such"),
    ):
        assert cli.run(["report", *words]) in (2, 3)
        assert said in capsys.readouterr().err
    assert (rendered / "mine.html").read_text() == "<p>my own page</p>" and not (rendered / "new.html").exists()
    assert cli.run(["report", "talk.sg3", "talk.sg3", "-o", "page.html", "--quick", "--max-size", "0.5", "-q"]) == 0
    assert (rendered / "page.html").stat().st_size < 0.5 * 2**20  # and a project that is named twice is shown once
    assert 'id="index"' not in (rendered / "page.html").read_text(encoding="utf8")


def test_what_is_gone_is_said_and_the_rest_is_shown(
    rendered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(rendered, tmp_path / "moved")
    relocate(tmp_path / "moved" / "talk.sg3", rendered, tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    Path(NAME).unlink()
    assert cli.run(["report", "talk.sg3", "-o", "a.html", "--every", "12", "-q"]) == 0
    page = Path("a.html").read_text(encoding="utf8")
    assert len(videos(page)) == 1 and "There is no edited video" in page and "no edited video was judged" in page
    assert "reconstruction, tuned" in page  # what `sg3 evaluate` says needs no output
    Path("talk.mp4").unlink()
    assert cli.run(["report", "talk.sg3", "-o", "b.html"]) == 3
    assert "is no longer at" in capsys.readouterr().err and not Path("b.html").exists()
