"""What the machines of a batch share: files by name, in a folder or at any URL that fsspec reaches.

A file appears whole or not at all. The only module that imports fsspec, an extra that URLs alone need.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sg3cli.errors import InputError, UsageError
from sg3cli.files import atomic_path, digest_of, remove

INSTALL = "in the clone: pip install '.[cluster]'"


class Store(Protocol):
    """Files by names such as `files/4f2a`. All raise `InputError` when the place cannot be used."""

    def has(self, name: str) -> bool:
        """Whether the file is there."""

    def put(self, name: str, path: Path) -> None:
        """Store the file at `path` under a name, in the place of what had it."""

    def get(self, name: str, path: Path) -> None:
        """Write the stored file to `path`."""

    def clear(self) -> None:
        """Remove all that is in the store."""


class FolderStore:
    """A folder that all machines see under the same path."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def has(self, name: str) -> bool:
        return (self.root / name).is_file()

    def put(self, name: str, path: Path) -> None:
        with atomic_path(self.root / name) as temp:
            shutil.copyfile(path, temp)

    def get(self, name: str, path: Path) -> None:
        if not self.has(name):
            raise lost(str(self.root / name))
        with atomic_path(path) as temp:
            shutil.copyfile(self.root / name, temp)

    def clear(self) -> None:
        remove(self.root)


class UrlStore:
    """A place that fsspec reaches, such as `s3://bucket/batch`. Raises `UsageError` where it does not."""

    def __init__(self, url: str) -> None:
        if find_spec("fsspec") is None:
            raise UsageError(f"a store at {url} needs the package fsspec", INSTALL)
        import fsspec

        self.url = url
        try:
            self._system, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"the store {url} cannot be reached: {error}", "give a folder, or another URL") from error

    def _place(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(f"the store {self.url} failed: {error}", "the same command goes on from there") from error

    def has(self, name: str) -> bool:
        with self._reached():
            return bool(self._system.isfile(self._place(name)))

    def put(self, name: str, path: Path) -> None:
        place = self._place(name)
        part = f"{place}.{uuid.uuid4().hex}.part"  # not every system shows a file only when it is whole
        with self._reached():
            self._system.makedirs(place.rpartition("/")[0], exist_ok=True)
            self._system.put_file(str(path), part)
            self._system.mv(part, place)

    def get(self, name: str, path: Path) -> None:
        if not self.has(name):
            raise lost(f"{self.url}/{name}")
        with atomic_path(path) as temp, self._reached():
            self._system.get_file(self._place(name), str(temp))

    def clear(self) -> None:
        with self._reached():
            if self._system.exists(self._root):
                self._system.rm(self._root, recursive=True)


def open_store(address: str) -> Store:
    """The store in a folder, or at a URL. Raises `UsageError` for a URL that cannot be used."""
    return UrlStore(address) if is_url(address) else FolderStore(Path(address))


def is_url(address: str) -> bool:
    """Whether a store is reached by fsspec."""
    return "://" in address


def lost(name: str) -> InputError:
    """The error of a file that should be there."""
    return InputError(f"{name} is not in the shared store", "is the store seen by all machines? see --store")


# ---- files by their content, and notes


def put_file(store: Store, path: Path, known: str | None = None) -> str:
    """Store a file under its content, once; returns its digest, `sha256:...`, which may be `known`."""
    digest = known or digest_of(path)
    if not store.has(blob(digest)):
        store.put(blob(digest), path)
    return digest


def get_file(store: Store, digest: str, path: Path) -> None:
    """Write the file of this digest to `path`; raises `InputError` when it is not what was stored."""
    store.get(blob(digest), path)
    if digest_of(path) != digest:
        path.unlink()
        raise InputError(f"{blob(digest)} in the shared store is damaged", "remove the store; the same command goes on")


def blob(digest: str) -> str:
    """The name of a file of this content."""
    return f"files/{digest.partition(':')[2]}"


def write_note(store: Store, name: str, value: Any) -> None:
    """Store plain data as JSON."""
    with tempfile.TemporaryDirectory(prefix="sg3-") as folder:
        path = Path(folder) / "note.json"
        path.write_text(json.dumps(value), encoding="utf8")
        store.put(name, path)


def read_note(store: Store, name: str) -> Any:
    """What `write_note` stored; None where there is nothing that can be read."""
    if not store.has(name):
        return None
    with tempfile.TemporaryDirectory(prefix="sg3-") as folder:
        path = Path(folder) / "note.json"
        store.get(name, path)
        try:
            return json.loads(path.read_text(encoding="utf8"))
        except ValueError:
            return None
