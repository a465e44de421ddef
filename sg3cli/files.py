"""Files that are whole or absent: a temporary file that is flushed and renamed, in open formats."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sg3cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

SAVE_SECONDS = 10.0  # of work that a kill may cost
SEAL = "sha256"  # of the content of a file of arrays, in its own metadata
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that becomes `path` when the block ends well, and is removed when it does not.

    A link of the name `path` is replaced, not followed.
    """
    temp = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = create(temp)  # what the user's umask makes of a new file; safetensors would keep it private
        yield temp
        with open(temp, "rb", opener=not_through_a_link) as handle:
            os.fchmod(handle.fileno(), mode)
            os.fsync(handle.fileno())
        os.replace(temp, path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temp.unlink(missing_ok=True)


def temporary_name(path: Path, end: str = ".tmp") -> Path:
    """A name beside `path` that nobody can foresee: who may write in the folder cannot put a link there beforehand."""
    return path.with_name(f"{_temporary_prefix(path)}{os.getpid()}-{secrets.token_hex(8)}{end}")


def _temporary_prefix(path: Path) -> str:
    """What the names of temporary files of `path` begin with on this machine; with the rest within 255 bytes."""
    short = path.name.encode("utf8", "surrogateescape")[:96].decode("utf8", "ignore")
    return f".{short}.{socket.gethostname()[:32].replace('/', '-')}-".replace("%", "_")  # FFmpeg counts at a %


def create(path: Path) -> int:
    """Make an empty file where nothing is, not even a link; returns its mode. Raises `FileExistsError`, `OSError`."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        return os.fstat(descriptor).st_mode & 0o7777
    finally:
        os.close(descriptor)


def not_through_a_link(path: str, flags: int) -> int:
    """An opener for `open`: a link of the name `path` is an `OSError`."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def sweep(path: Path, end: str = ".tmp") -> None:
    """Remove what writers of `path` left beside it in processes of this machine that were killed."""
    pattern = re.compile(rf"{re.escape(_temporary_prefix(path))}(\d+)-[0-9a-f]+{re.escape(end)}")
    for beside in path.parent.iterdir():
        if (left := pattern.fullmatch(beside.name)) and not is_alive(int(left[1])):
            remove(beside)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it; nothing happens when it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_error(
    path: Path, error: OSError, hint: str = "check the folder's permissions, or choose another place"
) -> InputError:
    """The error of a place that cannot be written: full, read-only, forbidden."""
    if error.errno in NO_ROOM:
        return InputError(f"no space left while writing {path}", "free some space; the same command continues")
    reason = error.strerror or str(error)
    return InputError(f"cannot write {path}: {reason}", hint)


@contextlib.contextmanager
def safetensors_errors() -> Iterator[None]:
    """A failed write of the safetensors library, which has an error of its own, as the `OSError` that it was."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code)) from error


def write_json(path: Path, value: Any) -> None:
    """JSON, atomically."""
    with atomic_path(path) as temp:
        temp.write_text(json.dumps(value, indent=1, sort_keys=False) + "\n", encoding="utf8")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any] | None = None) -> None:
    """Arrays as safetensors, atomically; `meta` is one JSON entry, so that equal content gives equal bytes.

    The entry also holds the digest of all that is in the file, by which `read_arrays` sees damage.
    """
    import numpy as np
    from safetensors.numpy import save_file

    plain = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    sealed = {**dict(meta or {}), SEAL: _seal_of(plain, dict(meta or {}))}
    with atomic_path(path) as temp, safetensors_errors():
        save_file(plain, str(temp), metadata={"sg3": json.dumps(sealed, sort_keys=True)})


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and the JSON entry that `write_arrays` stored; `InputError` for a file that is not as it was written."""
    from safetensors import SafetensorError, safe_open

    hint = "delete the file; its stage is then computed again"
    try:
        with safe_open(str(path), framework="np") as file:
            meta = dict(json.loads((file.metadata() or {}).get("sg3", "{}")))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {error}", hint) from error
    seal = meta.pop(SEAL, None)
    if seal is not None and seal != _seal_of(arrays, meta):
        raise InputError(f"{path} is damaged: it is not what was written", hint)
    return arrays, meta


def _seal_of(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> str:
    """Digest of arrays with their names and types, and of what goes with them."""
    import numpy as np

    digest = hashlib.sha256(json.dumps(json.loads(json.dumps(meta)), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return f"sha256:{digest.hexdigest()}"


def digest_of(path: Path) -> str:
    """`sha256:...` of a file's bytes, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


# ---- rows of long arrays -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def npy_writer(path: Path, shape: tuple[int, ...]) -> Iterator[Any]:
    """`write(rows [n, ...])` appends to a float32 `.npy` of the given final shape, atomically, one chunk in memory."""
    import numpy as np

    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(int(n) for n in shape)}
    expected = int(np.prod(shape, dtype=np.int64))
    written = 0
    with atomic_path(path) as temp:
        with open(temp, "wb") as handle:
            np.lib.format.write_array_header_1_0(handle, header)

            def write(rows: np.ndarray) -> None:
                nonlocal written
                handle.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
                written += rows.size

            yield write
        if written != expected:
            raise ValueError(f"{path.name}: {written} values written, the shape {shape} wants {expected}")


class RowFile:
    """Rows of a float32 `.npy`, read when asked for: neither the array nor its pages stay in memory.

    Raises `InputError` for what is no whole file of that kind.
    """

    def __init__(self, path: Path) -> None:
        import numpy as np

        self.path = path
        try:
            with open(path, "rb") as handle:
                version = np.lib.format.read_magic(handle)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                self.shape, _, self.dtype = read(handle)
                self.offset = handle.tell()
            size = path.stat().st_size - self.offset
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {error}", "delete the file; it is then computed again") from error
        if self.dtype.hasobject or size != int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize:
            raise InputError(f"{path} is damaged: it holds {size} bytes of rows", "delete the file")

    def __len__(self) -> int:
        return int(self.shape[0])

    def rows(self, first: int, last: int) -> np.ndarray:
        """`[last-first, ...]`, clipped to the file's rows."""
        import numpy as np

        first, last = max(first, 0), min(last, len(self))
        row = int(np.prod(self.shape[1:], dtype=np.int64))
        count = max(last - first, 0) * row
        offset = self.offset + first * row * self.dtype.itemsize
        flat = np.fromfile(self.path, dtype=self.dtype, count=count, offset=offset)
        return flat.reshape(-1, *self.shape[1:])

    def take(self, index: np.ndarray) -> np.ndarray:
        """The rows `index` `[n]`, in that order -> `[n, ...]`."""
        import numpy as np

        return np.concatenate([self.rows(int(row), int(row) + 1) for row in index])


class ArrayRows(RowFile):
    """Rows in memory, read as those of a file are."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def rows(self, first: int, last: int) -> np.ndarray:
        """See `RowFile.rows`."""
        return self.array[max(first, 0) : max(last, 0)]


# ---- progress inside a stage ---------------------------------------------------------------------------------------


def in_chunks(items: Iterable[T], rows: int, multiple: int = 1, seconds: float = SAVE_SECONDS) -> Iterator[list[T]]:
    """Lists of `rows` items, or earlier of those that came within `seconds`, so that a kill costs no more than that.

    Their lengths are multiples of `multiple`, all but the last one's.
    """
    chunk: list[T] = []
    began = time.monotonic()
    for item in items:
        chunk.append(item)
        due = len(chunk) >= rows or time.monotonic() - began >= seconds
        if due and len(chunk) % multiple == 0:
            yield chunk
            chunk, began = [], time.monotonic()
    if chunk:
        yield chunk


class Chunks:
    """Rows of a running stage, kept in chunks, so that a killed run continues where its last chunk ends.

    Every chunk carries the stage's content key (a chunk of other parameters is discarded) and a JSON state that the
    stage needs to go on (the detector's tracks, for instance). `first` is the number of the first row, where these are
    a range of more; `rows` is the number of the row that comes next.
    """

    def __init__(self, folder: Path, key: str, first: int = 0) -> None:
        self.folder = folder
        self.key = key
        self.paths: list[Path] = []
        self.damaged: list[Path] = []  # what was found, and dropped
        self.rows = first
        self.state: dict[str, Any] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._take(path)

    def _take(self, path: Path) -> None:
        meta: dict[str, Any] = {}
        try:
            meta = read_arrays(path)[1]
        except InputError:
            self.damaged.append(path)
        if meta.get("key") != self.key or meta.get("first") != self.rows:
            path.unlink()
            return
        self.paths.append(path)
        self.rows += int(meta["rows"])
        self.state = meta["state"]

    def append(self, arrays: Mapping[str, np.ndarray], rows: int, state: Mapping[str, Any] | None = None) -> None:
        """Keep `rows` more rows, on disk when this returns."""
        path = self.folder / f"{self.rows:09d}.safetensors"
        meta = {"key": self.key, "first": self.rows, "rows": rows, "state": dict(state or {})}
        write_arrays(path, arrays, meta)
        self.paths.append(path)
        self.rows += rows
        self.state = dict(state or {})

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for path in self.paths:
            yield read_arrays(path)[0]

    def clear(self) -> None:
        """Forget the chunks, once the stage's result stands."""
        for path in self.paths:
            path.unlink(missing_ok=True)
        self.paths, self.rows, self.state = [], 0, {}
        with contextlib.suppress(OSError):
            self.folder.rmdir()
