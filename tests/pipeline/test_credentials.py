"""Outputs that are signed (C2PA): what they say, that a changed byte shows, and what happens where it cannot be."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import Forks, forks
from running import relocate, sg3
from signers import NAME, Pems, pems

from sg3cli import cli
from sg3cli.drawing.images import write_png
from sg3cli.errors import UsageError
from sg3cli.files import digest_of
from sg3cli.pipeline import credentials
from sg3cli.project import Project
from sg3cli.settings import Settings
from sg3cli.video import VideoReader, packet_digest

needs_c2pa = pytest.mark.skipif(credentials.find_spec("c2pa") is None, reason="the extra c2pa is not installed")
RENDER = ("render", "talk.sg3", "--preset=ultrafast")


@pytest.fixture
def copy(tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a clip and its tuned project, to work in."""
    folder = tmp_path / "copy"
    shutil.copytree(tuned, folder)
    relocate(folder / "talk.sg3", tuned, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def jane(tmp_path_factory: pytest.TempPathFactory) -> Pems:
    pytest.importorskip("cryptography")
    return pems(tmp_path_factory.mktemp("jane"))


@pytest.fixture(scope="module")
def server() -> Iterator[Forks]:
    with forks() as found:
        yield found


def signed_by(files: Pems) -> list[str]:
    return ["--sign", str(files.certificate), "--sign-key", str(files.key)]


def signing(folder: Path, out: str, files: Pems | None = None, source: Path | None = None) -> credentials.Signing:
    """What signs an output of the project in `folder`, or of another one for `source`."""
    project = Project.open(folder / "talk.sg3") if source is None else Project.of_source(source, folder / "x.sg3", {})
    told = {"sign": "self"} if files is None else {"sign": str(files.certificate), "sign_key": str(files.key)}
    found = credentials.signing_of(project, Settings().having(credentials=told), out)
    assert found is not None
    return found


def sign(folder: Path, plain: Path, out: Path, files: Pems | None = None, source: Path | None = None) -> Path:
    """A signed copy of `plain`."""
    out.touch()
    signing(folder, str(out), files, source)(plain, out)
    return out


def tampered(path: Path, at: int) -> Path:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    changed = path.with_name(f"changed-{path.name}")
    changed.write_bytes(data)
    return changed


def streams(path: Path) -> dict[str, Any]:
    """What all packets of a file say, and the times of its frames."""
    with VideoReader(path) as reader:
        return {"times": reader.times.tolist(), "frames": [digest(frame.rgb) for frame in reader.frames(0)]}


def digest(image: np.ndarray) -> int:
    return hash(image.tobytes())


# ---- what a signed file says


@needs_c2pa
@pytest.mark.parametrize("out", ["out.mp4", "out.mov"])
def test_a_signed_render_is_the_unsigned_one_with_credentials(copy: Path, jane: Pems, out: str) -> None:
    assert cli.run([*RENDER, "-o", f"plain{out}"]) == 0
    assert cli.run([*RENDER, "-o", out, *signed_by(jane)]) == 0
    assert streams(copy / out) == streams(copy / f"plain{out}")
    assert packet_digest(copy / out) == packet_digest(copy / f"plain{out}")
    assert credentials.read(copy / f"plain{out}")["status"] == "none"
    found = credentials.read(copy / out)
    assert (found["status"], found["problems"], found["trusted"]) == ("holds", [], False)
    assert found["signed_by"] == f"{NAME}, Example Ltd" and not found["self_made_certificate"]
    opened, edited = found["actions"]
    assert (opened["action"], edited["action"], edited["agent"]) == ("c2pa.opened", "c2pa.edited", "sg3 0.2.0")
    assert edited["digital_source_type"] == credentials.EDITED_BY_AI and "age = 0s:0" in edited["description"]
    (source,) = found["ingredients"]
    assert (source["title"], source["relationship"], source["status"]) == ("talk.mp4", "parentOf", "none")
    record = json.loads((copy / f"{out}.json").read_text())
    assert record["output"]["sha256"] == digest_of(copy / out) and record["credentials"]["signed_by"].startswith(NAME)


@needs_c2pa
def test_who_is_trusted_is_for_the_reader_to_say(copy: Path, jane: Pems, tmp_path: Path) -> None:
    out = sign(copy, copy / "talk.mp4", copy / "signed.mp4", jane)
    assert credentials.read(out, jane.root.read_text())["trusted"]
    assert not credentials.read(out, pems(tmp_path / "stranger").root.read_text())["trusted"]
    own = credentials.read(sign(copy, copy / "talk.mp4", copy / "own.mp4"), jane.root.read_text())
    assert own["status"] == "holds" and own["self_made_certificate"] and not own["trusted"]


@needs_c2pa
def test_a_changed_byte_shows_wherever_it_is(copy: Path, jane: Pems) -> None:
    out = sign(copy, copy / "talk.mp4", copy / "signed.mp4", jane)
    data = out.read_bytes()
    assert credentials.read(tampered(out, data.index(b"mdat") + 500))["status"] == "tampered"
    assert credentials.read(tampered(out, data.index(b"c2pa.edited") + 2))["status"] == "tampered"
    assert credentials.read(tampered(out, data.index(b"jumb")))["status"] in ("tampered", "damaged")


@needs_c2pa
def test_credentials_of_the_source_are_kept_inside(copy: Path, jane: Pems) -> None:
    signed = sign(copy, copy / "talk.mp4", copy / "camera.mp4", jane)
    out = sign(copy, copy / "talk.mp4", copy / "out.mp4", source=signed)
    (source,) = credentials.read(out)["ingredients"]
    assert (source["title"], source["relationship"], source["status"]) == ("camera.mp4", "parentOf", "holds")
    assert source["signed_by"].startswith(NAME) and source["actions"][1]["action"] == "c2pa.edited"
    assert any("are kept, signed by Jane" in text for text in signing(copy, "x.mp4", source=signed).notices())
    broken = tampered(signed, signed.stat().st_size // 2)
    found = credentials.read(sign(copy, copy / "talk.mp4", copy / "out2.mp4", source=broken))
    assert (found["status"], found["ingredients"][0]["status"]) == ("holds", "tampered")
    assert any("do not hold (tampered)" in text for text in signing(copy, "x.mp4", source=broken).notices())


@needs_c2pa
def test_a_source_whose_credentials_cannot_be_read_is_said_and_signed_without_them(copy: Path) -> None:
    signed = sign(copy, copy / "talk.mp4", copy / "camera.mp4")
    broken = tampered(signed, signed.read_bytes().index(b"jumb") + 2)
    assert credentials.read(broken)["status"] == "damaged"
    assert any("cannot be read" in text for text in signing(copy, "x.mp4", source=broken).notices())
    found = credentials.read(sign(copy, copy / "talk.mp4", copy / "out.mp4", source=broken))
    assert (found["status"], found["ingredients"][0]["status"]) == ("holds", "none")


@needs_c2pa
def test_a_folder_of_pictures_is_a_source_too(copy: Path) -> None:
    (copy / "frames").mkdir()
    write_png(copy / "frames" / "1.png", np.zeros((8, 8, 3), np.uint8))
    out = sign(copy, copy / "talk.mp4", copy / "out.mp4", source=copy / "frames")
    (source,) = credentials.read(out)["ingredients"]
    assert (source["title"], source["relationship"], source["status"]) == ("frames", "parentOf", "none")


@needs_c2pa
@pytest.mark.parametrize("name", ["still.png", "still.jpg", "still.tiff"])
def test_pictures_are_signed_too(copy: Path, jane: Pems, name: str) -> None:
    import cv2

    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    assert cv2.imwrite(str(copy / name), image)
    out = sign(copy, copy / name, copy / f"signed-{name}", jane)
    assert credentials.read(out)["status"] == "holds"
    assert (cv2.imread(str(out)) == cv2.imread(str(copy / name))).all()


# ---- when it is signed


@needs_c2pa
def test_a_finished_render_is_signed_without_being_computed_again(copy: Path, jane: Pems) -> None:
    assert cli.run([*RENDER, "-o", "out.mp4"]) == 0
    before, plain = streams(copy / "out.mp4"), digest_of(copy / "out.mp4")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sg3cli.pipeline.render.run", None)  # whoever computes fails
        assert cli.run([*RENDER, "-o", "out.mp4", "--sign", "self"]) == 0
        first = digest_of(copy / "out.mp4")
        assert cli.run([*RENDER, "-o", "out.mp4", "--sign", "self"]) == 0
        assert cli.run([*RENDER, "-o", "out.mp4"]) == 0
        assert digest_of(copy / "out.mp4") == first != plain  # signed once, and not again
        assert cli.run([*RENDER, "-o", "out.mp4", *signed_by(jane)]) == 0
    found = credentials.read(copy / "out.mp4")
    assert found["status"] == "holds" and found["signed_by"].startswith(NAME)
    assert [one["title"] for one in found["ingredients"]] == ["talk.mp4"]  # not what it was signed as before
    assert streams(copy / "out.mp4") == before
    assert {path.name for path in copy.iterdir()} == {"talk.mp4", "talk.sg3", "out.mp4", "out.mp4.json"}
    held = b"".join(path.read_bytes() for path in (copy / "talk.sg3").rglob("*") if path.is_file())
    for secret in (jane.key, jane.certificate):
        assert secret.read_bytes().splitlines()[1] not in held and str(secret).encode() not in held


@needs_c2pa
def test_settings_file_and_environment_sign(copy: Path, jane: Pems) -> None:
    (copy / "sg3.toml").write_text(f"[credentials]\nsign = '{jane.certificate}'\nsign-key = '{jane.key}'\n")
    assert cli.run([*RENDER, "-o", "out.mp4"]) == 0
    assert credentials.read(copy / "out.mp4")["signed_by"].startswith(NAME)
    ran = sg3(*RENDER, "-o", "own.mp4", cwd=copy, SG3_CREDENTIALS_SIGN="self")
    assert ran.code == 0 and "nobody trusts" in ran.err
    assert credentials.read(copy / "own.mp4")["self_made_certificate"]
    assert cli.run([*RENDER, "-o", "plain.mp4", "--sign", "off"]) == 0
    assert credentials.read(copy / "plain.mp4")["status"] == "none"


@needs_c2pa
def test_a_kill_while_signing_leaves_no_half_file(copy: Path, server: Forks) -> None:
    line = [*RENDER, "-o", "out.mp4", "--sign=self"]
    assert server.run(line, copy, at=r"os.rename .*\.part .*\.part")["code"] == -signal.SIGKILL
    assert not (copy / "out.mp4").exists() and len(list(copy.glob(".*.part"))) == 2
    assert server.run(line, copy)["code"] == 0
    assert credentials.read(copy / "out.mp4")["status"] == "holds"
    assert {path.name for path in copy.iterdir()} == {"talk.mp4", "talk.sg3", "out.mp4", "out.mp4.json"}


@needs_c2pa
@pytest.mark.parametrize("at", [r"os.rename .*out\.mp4'", r"os.rename .*out\.mp4\.json'"])
def test_a_kill_while_a_finished_render_is_signed_costs_no_render(copy: Path, server: Forks, at: str) -> None:
    assert cli.run([*RENDER, "-o", "out.mp4"]) == 0
    line, frames = [*RENDER, "-o", "out.mp4", "--sign=self"], streams(copy / "out.mp4")
    assert server.run(line, copy, at=at)["code"] == -signal.SIGKILL
    assert streams(copy / "out.mp4") == frames  # whole, signed or not
    ran = server.run(line, copy)
    assert ran["code"] == 0 and "out.mp4 is up to date, nothing was computed" in ran["err"]
    assert credentials.read(copy / "out.mp4")["status"] == "holds" and streams(copy / "out.mp4") == frames
    assert json.loads((copy / "out.mp4.json").read_text())["output"]["sha256"] == digest_of(copy / "out.mp4")
    assert {path.name for path in copy.iterdir()} == {"talk.mp4", "talk.sg3", "out.mp4", "out.mp4.json"}


@needs_c2pa
def test_a_disk_that_is_full_for_the_signed_file_is_said(copy: Path, server: Forks) -> None:
    assert cli.run([*RENDER, "-o", "plain.mp4"]) == 0
    room = (copy / "plain.mp4").stat().st_size + 500  # credentials take more
    ran = server.run([*RENDER, "-o", "out.mp4", "--sign=self"], copy, file_size=room)
    what, hint = ran["err"].strip().splitlines()[-2:]
    assert ran["code"] == 3 and what.startswith("error: ") and hint.startswith("hint: "), ran["err"]
    assert not list(copy.glob("*out.mp4*")) and not list(copy.glob(".*"))


# ---- where it cannot be


@pytest.mark.parametrize(
    ("out", "encode", "said"),
    [
        ("out.mkv", {}, "matroska is not signed"),
        ("out.mp4", {"format": "matroska"}, "matroska is not signed"),
        ("out.webm", {}, "webm is not signed"),
        ("-", {}, "standard output is not signed"),
        ("frames/", {}, "pictures in a row are not signed"),
        ("f%03d.png", {}, "pictures in a row are not signed"),
    ],
)
def test_what_can_hold_no_credentials_gets_a_notice(tuned: Path, out: str, encode: dict[str, str], said: str) -> None:
    asked = Settings().having(credentials={"sign": "self"}, encode=encode)
    assert credentials.signing_of(Project.open(tuned / "talk.sg3"), asked, out) is None
    assert str(credentials.unsigned_notice(asked, out)).startswith(said)
    assert credentials.unsigned_notice(Settings(), out) is None


def test_a_matroska_file_is_written_with_its_record_alone_which_is_said_first(copy: Path) -> None:
    ran = sg3(*RENDER, "-o", "out.mkv", "--sign=self", cwd=copy)
    lines = ran.err.splitlines()
    assert ran.code == 0 and "matroska is not signed" in lines[0] and "out.mkv.json" in lines[0]
    assert (copy / "out.mkv").is_file() and "credentials" not in json.loads((copy / "out.mkv.json").read_text())


def test_without_the_extra_it_is_said_before_any_work(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(credentials, "find_spec", lambda name: None)
    monkeypatch.setattr("sg3cli.pipeline.render.run", None)
    assert cli.run([*RENDER, "-o", "out.mp4", "--sign=self"]) == 2
    what, hint = capsys.readouterr().err.strip().splitlines()
    assert what == "error: --sign needs the package c2pa-python" and "pip install '.[c2pa]'" in hint
    write_png(copy / "a.png", np.zeros((8, 8, 3), np.uint8))
    found = credentials.read(copy / "a.png")
    assert found["status"] == "not read" and "pip install" in found["why"]


@needs_c2pa
def test_a_certificate_that_cannot_sign_is_refused_before_any_work(copy: Path, jane: Pems, tmp_path: Path) -> None:
    server = pems(tmp_path / "server", purpose="server")
    with pytest.raises(UsageError, match="cannot sign credentials"):
        signing(copy, "out.mp4", server)
    other = pems(tmp_path / "other")
    with pytest.raises(UsageError, match="is not that of the certificate"):
        signing(copy, "out.mp4", Pems(jane.certificate, other.key, jane.root))
    ran = sg3(*RENDER, "-o", "out.mp4", "--sign-key", jane.key, cwd=copy)
    assert ran.code == 2 and "without --sign" in ran.last_two[0]
    ran = sg3(*RENDER, "-o", "out.mp4", "--sign", "gone.pem", cwd=copy)
    assert ran.code == 2 and "gone.pem" in ran.last_two[0]
