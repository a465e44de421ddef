"""`sg3 inspect FILE`: the record beside a file, the tag inside it, its credentials."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from running import relocate
from signers import pems

from sg3cli import cli
from sg3cli.drawing.images import write_image
from sg3cli.files import digest_of
from sg3cli.pipeline import credentials

needs_c2pa = pytest.mark.skipif(credentials.find_spec("c2pa") is None, reason="the extra c2pa is not installed")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tuned: Path) -> Path:
    """A folder with a clip, its project and `out.mp4`, signed where the extra is installed; look, do not change it."""
    folder = tmp_path_factory.mktemp("made") / "copy"
    shutil.copytree(tuned, folder)
    relocate(folder / "talk.sg3", tuned, folder)
    signing = []
    if credentials.find_spec("c2pa") is not None:
        files = pems(folder.parent / "jane")
        signing = ["--sign", str(files.certificate), "--sign-key", str(files.key)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert cli.run(["render", "talk.sg3", "-o", "out.mp4", "--preset=ultrafast", *signing, "-q"]) == 0
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert cli.run(["inspect", *map(str, arguments)]) == code
    return capsys.readouterr().out


@needs_c2pa
def test_an_output_says_who_signed_it_and_what_was_done(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = dict(line.split(maxsplit=1) for line in told(capsys, made / "out.mp4").splitlines() if line[0] != " ")
    assert lines["record"].endswith("the file is as it says") and "generative model" in lines["tag"]
    assert lines["signed"].startswith("the credentials hold")
    assert lines["by"].startswith("Jane Doe, Example Ltd") and "nobody vouches" in lines["by"]
    assert lines["action"].startswith("c2pa.edited, sg3 0.2.0, compositeWithTrainedAlgorithmicMedia")
    assert lines["made"].startswith("from talk.mp4 (parentOf), without credentials")
    trusted = told(capsys, made / "out.mp4", "--trust", made.parent / "jane" / "root.pem")
    assert "for whom the given certificates vouch" in trusted
    facts = json.loads(told(capsys, made / "out.mp4", "--json"))["file"]
    assert facts["credentials"]["status"] == "holds" and facts["record_holds"] and facts["stream"]["frames"] == 12


def test_a_tampered_file_is_said_to_be_tampered(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((made / "out.mp4").read_bytes())
    data[data.index(b"mdat") + 900] ^= 1
    (tmp_path / "out.mp4").write_bytes(data)
    shutil.copy(made / "out.mp4.json", tmp_path)
    said = told(capsys, tmp_path / "out.mp4")
    assert "the file IS NOT as it says" in said  # by the record alone, whatever is installed
    if credentials.find_spec("c2pa") is not None:
        assert "DO NOT HOLD: the file was changed after it was signed (tampered)" in said
        assert "bmffHash.mismatch" in said


def test_a_picture_is_read_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("grid.png", "grid.jpg"):
        path = tmp_path / name
        record = {"tool": "sg3 9", "note": "drawn by \x1b[2Ja model"}
        write_image(path, np.zeros((32, 32, 3), np.uint8), json.dumps({"sg3": record}))
        (tmp_path / f"{name}.json").write_text(json.dumps({**record, "output": {"sha256": digest_of(path)}}))
        said = told(capsys, path)
        assert "tag       sg3 9: drawn by \\x1b[2Ja model" in said and "\x1b" not in said
        assert "the file is as it says" in said and "\nsigned    n" in said  # no, or not read


def test_the_source_of_a_project_shows_both_and_an_output_of_its_name_only_itself(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    said = told(capsys, "talk.mp4")
    assert said.startswith("project   talk.sg3") and "\nfile      talk.mp4\n" in said
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made / "talk.sg3", "talk.sg3")
    shutil.copy(made / "out.mp4", "talk.mp4")
    assert told(capsys, "talk.mp4").startswith("file      talk.mp4")
    (tmp_path / "notes.txt").write_text("no footage\n")
    told(capsys, "notes.txt", code=3)
