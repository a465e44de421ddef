"""The shared store: a folder and a URL do the same; damage and losses are said."""

from __future__ import annotations

from pathlib import Path

import pytest

from sg3cli.errors import InputError, UsageError
from sg3cli.pipeline.batch import store as stores
from sg3cli.pipeline.batch.store import Store, blob, get_file, open_store, put_file, read_note, write_note


@pytest.fixture(params=["folder", "url"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "url":
        pytest.importorskip("fsspec", reason="the extra cluster is not installed")
        return open_store(f"file://{tmp_path / 'shared'}")
    return open_store(str(tmp_path / "shared"))


def test_files_by_content(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    digest = put_file(store, tmp_path / "a")
    assert put_file(store, tmp_path / "a") == digest and store.has(blob(digest))
    get_file(store, digest, tmp_path / "new" / "b")
    assert (tmp_path / "new" / "b").read_bytes() == b"one"
    (tmp_path / "shared" / blob(digest)).write_bytes(b"two")
    with pytest.raises(InputError, match="is damaged"):
        get_file(store, digest, tmp_path / "c")
    assert not (tmp_path / "c").exists()
    store.clear()
    store.clear()
    with pytest.raises(InputError, match="is not in the shared store"):
        get_file(store, digest, tmp_path / "c")


def test_notes(store: Store, tmp_path: Path) -> None:
    assert read_note(store, "tasks/x.json") is None
    for value in ({"a": [1, None]}, {"b": 2}):
        write_note(store, "tasks/x.json", value)
        assert read_note(store, "tasks/x.json") == value
    assert [path.name for path in (tmp_path / "shared").rglob("*") if path.is_file()] == ["x.json"]  # no parts
    (tmp_path / "shared" / "tasks" / "x.json").write_text("{")
    assert read_note(store, "tasks/x.json") is None


def test_urls_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec", reason="the extra cluster is not installed")
    with pytest.raises(UsageError, match="nowhere://x cannot be reached"):
        open_store("nowhere://x")
    monkeypatch.setattr(stores, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package fsspec") as caught:
        open_store("s3://bucket/x")
    assert ".[cluster]" in caught.value.hint
