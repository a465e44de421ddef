"""Files of others, read without executing anything in them: `.pkl`, `.pt` (both formats) and `.npy`.

`read` gives the plain tree that a file holds: dicts, lists, tuples, numbers and text, with `Tensor`, `Array` and
`Module` records (see `values`) in it. Whatever is wrong with a file ends in a `ModelError` that names the cause.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sg3cli.errors import ModelError
from sg3cli.weights.safe_pickle.machine import Machine
from sg3cli.weights.safe_pickle.values import (
    NETWORKS,
    NUMBERS,
    NUMPY,
    PLAIN,
    STORAGE_TYPES,
    TORCH,
    Array,
    Budget,
    DType,
    Refused,
    Storage,
    allow_list,
    shown,
    storage_of,
)
from sg3cli.weights.safe_pickle.zip_entries import read_entries

MAGIC = 0x1950A86A20F9469CFC6C  # of torch.save before 1.6
FORMAT = 1001
LEGACY_START = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little")
MAX_HEADER = 4096  # bytes of an .npy file's description
HEADER = re.compile(
    r"\s*\{\s*'descr':\s*'(?P<order>[<>|=]?)(?P<code>\w{1,4})',\s*'fortran_order':\s*(?P<fortran>True|False),"
    r"\s*'shape':\s*\((?P<shape>[\d\sL,]*)\),?\s*\}\s*"
)
HINT = "nothing in the file was executed; compare it with the publisher's, or get it again"


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Causes found while `path` is read, as `ModelError`."""
    try:
        yield
    except Refused as cause:
        raise ModelError(f"cannot read {path}: {cause}", HINT) from cause
    except MemoryError as error:
        raise ModelError(f"cannot read {path}: it does not fit the memory", "use a machine with more memory") from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", "check the path and its permissions") from error


def read(path: Path) -> Any:
    """What the file holds; its kind is told by its first bytes. Raises `ModelError`."""
    with explained(path):
        return read_bytes(_bytes_of(path))


def _bytes_of(path: Path) -> memoryview:
    """The file, paged in where it is looked at."""
    if not path.is_file():
        raise Refused("there is no such file")
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise Refused("the file is empty")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_bytes(data: memoryview) -> Any:
    """`read` of what is in memory. Raises `Refused`."""
    start = bytes(data[:16])
    if start.startswith(b"PK\3\4"):
        return _read_zip(data)
    if start.startswith(b"\x93NUMPY"):
        return _read_npy(data)
    if start.startswith(LEGACY_START):
        return _read_legacy(data, _names(TORCH | STORAGE_TYPES), Budget(len(data)))
    if start.startswith(b"\x80"):
        return _read_pickle(data)
    raise Refused(
        _other_kind(bytes(data[:512])) or "it is neither a pickle of protocol 2 to 5, nor a .pt, nor an .npy file"
    )


def _other_kind(start: bytes) -> str:
    """What a file is that is no model, if that can be told by its beginning."""
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        return "it is the pointer of a file in Git LFS, not the file: run `git lfs pull` where it came from"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")):
        return "it is a web page, which a server sent instead of the file: download it by hand"
    if text.startswith((b"{", b"[")):
        return "it is JSON text, perhaps a server's answer instead of the file"
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 27:
        return "it is a safetensors file; files of others are read as .pkl, .pt and .npy"
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")):
        return "it is a compressed archive: unpack it first"
    if text.startswith((b"quota", b"access denied", b"not found", b"error")):
        return "it is a server's error message instead of the file"
    return ""


# ---- plain pickles: official networks, StyleCLIP's statistics -------------------------------------------------------


def _read_pickle(data: memoryview) -> Any:
    budget = Budget(len(data))

    def nested(args: tuple[Any, ...]) -> Storage:
        """`torch.storage._load_from_bytes(bytes)`: a storage is a stream of its own inside."""
        match args:
            case (bytes() | memoryview() as stream,):
                storage = _read_legacy(memoryview(stream), allow_list(STORAGE_TYPES), budget)
                if isinstance(storage, Storage):
                    return storage
        raise Refused("a nested stream does not hold a storage")

    makers = {**NETWORKS, **TORCH, "torch.storage._load_from_bytes": nested}
    return Machine(data, 0, _names(makers), budget).run()


def _names(more: dict[str, Any]) -> dict[str, Any]:
    """The allow-list of numpy's and plain values, and `more`."""
    return allow_list({**NUMPY, **PLAIN, **more})


# ---- torch.save, before 1.6 and since -------------------------------------------------------------------------------


class _Storages:
    """The storages a pickle asks for, each once however often it is asked for."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.known: dict[str, Storage] = {}

    def __call__(self, pid: Any) -> Storage:
        key, storage = storage_of(pid, self.limit)
        known = self.known.setdefault(key, storage)
        if (known.dtype, known.count) != (storage.dtype, storage.count):
            raise Refused(f"storage {shown(key)} is said to be of two sizes")
        return known


def _read_legacy(data: memoryview, allowed: dict[str, Any], budget: Budget) -> Any:
    """Five pickles (magic, format, machine, value, keys), then for each key a count and the values."""
    storages = _Storages(len(data))
    at, parts = 0, []
    for number in range(5):
        machine = Machine(data, at, allowed if number == 3 else {}, budget, storages if number == 3 else None)
        parts.append(machine.run())
        at = machine.at
    magic, version, system, value, keys = parts
    if magic != MAGIC or version != FORMAT:
        raise Refused("a stream of torch.save has an unknown format")
    if type(system) is not dict or system.get("little_endian") is not True:
        raise Refused("it was written on a big-endian machine")
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages.known):
        raise Refused("the storages that follow are not those that the tensors need")
    for key in keys:
        storage = storages.known[key]
        if at + 8 + storage.nbytes > len(data):
            raise Refused(f"storage {shown(key)} of {storage.nbytes} bytes is cut off")
        (count,) = struct.unpack_from("<q", data, at)
        if count != storage.count:
            raise Refused(f"storage {shown(key)} has {count} elements, its tensors were told {storage.count}")
        storage.data = data[at + 8 : at + 8 + storage.nbytes]
        at += 8 + storage.nbytes
    return value


def _read_zip(data: memoryview) -> Any:
    """An archive of `NAME/data.pkl` and `NAME/data/KEY`."""
    entries = read_entries(data)
    roots = [name.removesuffix("/data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise Refused("the archive holds no data.pkl, so torch.save did not write it")
    root = roots[0]
    order = entries.get(f"{root}/byteorder")
    if order is not None and bytes(order.read()) != b"little":
        raise Refused("it was written on a big-endian machine")
    if f"{root}/constants.pkl" in entries:
        raise Refused("it is a TorchScript program, not weights")
    storages = _Storages(len(data))
    pickled = entries[f"{root}/data.pkl"].read()
    value = Machine(pickled, 0, _names(TORCH | STORAGE_TYPES), Budget(len(data)), storages).run()
    for key, storage in storages.known.items():
        entry = entries.get(f"{root}/data/{key}")
        if entry is None or len(entry.view) != storage.nbytes:
            found = "is missing" if entry is None else f"has {len(entry.view)} bytes"
            raise Refused(f"storage {shown(key)} of {storage.nbytes} bytes {found}")
        storage.data = entry.read()
    return value


# ---- numpy ----------------------------------------------------------------------------------------------------------


def _read_npy(data: memoryview) -> np.ndarray | Any:
    """An array of numbers; of an object array, which is a pickle, the list of its objects (or the one object)."""
    version, layout = data[6] if len(data) > 12 else 0, {1: "<H", 2: "<I", 3: "<I"}
    if version not in layout:
        raise Refused(f".npy format {version} is unknown")
    (length,) = struct.unpack_from(layout[version], data, 8)
    start = 8 + struct.calcsize(layout[version])
    if length > min(MAX_HEADER, len(data) - start):
        raise Refused(f"the .npy header is said to have {length} bytes")
    header = HEADER.fullmatch(bytes(data[start : start + length]).decode("latin1"))
    if header is None:
        raise Refused("the .npy header is not that of an array of numbers or objects")
    shape = tuple(int(n.rstrip("L")) for n in header["shape"].replace(" ", "").split(",") if n)
    body = data[start + length :]
    if header["code"] == "O":
        return _objects(body, shape)
    if header["code"] not in NUMBERS:
        raise Refused(f"the array holds {shown(header['code'])}, not numbers")
    array, dtype = Array(), DType(header["code"], header["order"].replace("=", "<") or "<")
    array.fill(body, dtype, shape, "F" if header["fortran"] == "True" else "C")
    return array.array()


def _objects(body: memoryview, shape: tuple[int, ...]) -> Any:
    if not bytes(body[:1]) == b"\x80":
        raise Refused("an array of objects is not followed by a pickle of protocol 2 to 5")
    array = Machine(body, 0, _names({}), Budget(len(body))).run()
    if not isinstance(array, Array) or array.shape != shape or not isinstance(array.values, list):
        raise Refused(f"the objects of an array of shape {shown(shape)} are not in the file")
    return array.values if shape else array.values[0]
