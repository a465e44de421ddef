"""What a pickle of an official file may stand for: tensors, arrays, module records, paths. Nothing here runs its code.

Each global name on the allow-list maps to a function of ours that makes a plain record. Sizes are checked when a record
is made, before anything of that size is; arrays are views of the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

MAX_DIMS = 16
NUMBERS = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))
STORAGES = {  # torch's storage classes -> numpy's names; bfloat16 has none and is read as its bits
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")


class Refused(ValueError):
    """Why a file is not read. The text is the cause and needs no more context than the file's name."""


def shown(value: object, limit: int = 80) -> str:
    """What a file says, fit for one line of a terminal. Of anything nested only the kind: its text may have no end."""
    sizes = type(value) is tuple and len(value) <= MAX_DIMS and all(type(n) is int for n in value)
    text = str(value) if sizes or type(value) in (str, int, float, bool, type(None)) else f"a {type(value).__name__}"
    plain = text[:limit].encode("unicode_escape").decode()
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


class Budget:
    """How many bytes reading one file may make in memory beyond the file itself.

    All that a pickle has made is charged to the one budget of its file, before it is made: a value that was stored
    once can be named again for two bytes, and what is made of it would else grow from step to step.
    """

    def __init__(self, size: int) -> None:
        self.left = 4 * size + (1 << 20)

    def spend(self, count: int, what: str) -> None:
        """Take `count` bytes; raises `Refused` when there are not so many."""
        self.left -= count
        if self.left < 0:
            raise Refused(f"{what} would take much more memory than the file is large")


def weight(arguments: tuple[Any, ...]) -> int:
    """What a call of these arguments is charged, in bytes: no maker of this module makes more of them than that."""
    total = 0
    for value in arguments:
        if isinstance(value, str | bytes | bytearray | memoryview):
            total += len(value)
        elif isinstance(value, list | set | dict):
            total += 64 * len(value)  # what a set takes for each of its names
        elif isinstance(value, tuple):
            total += 8 * len(value)
    return total


@dataclass(frozen=True, eq=False)
class Global:
    """A name on the allow-list and what stands for a call of it: `make(arguments)`."""

    __match_args__ = ("name",)
    name: str
    make: Callable[[tuple[Any, ...]], Any]


# ---- tensors ------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Storage:
    """`count` elements of `dtype`; `data` is their bytes in the file, once it is known where they are."""

    dtype: str
    count: int
    data: memoryview | None = None

    @property
    def itemsize(self) -> int:
        return 2 if self.dtype == "bf16" else int(self.dtype[1:])

    @property
    def nbytes(self) -> int:
        return self.count * self.itemsize


@dataclass(frozen=True, eq=False)
class Tensor:
    """A view of a storage; `array()` shares memory with other tensors of the same storage."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Of its values, if they were copied."""
        return math.prod(self.size) * max(self.storage.itemsize, 4 if self.storage.dtype == "bf16" else 1)

    def array(self) -> np.ndarray:
        """The values `[*size]`, read-only, in the file's type (bfloat16 as float32)."""
        storage = self.storage
        if storage.data is None:
            raise Refused("a tensor's storage is not in the file")
        bits = storage.dtype == "bf16"
        flat = np.frombuffer(storage.data, "<u2" if bits else f"<{storage.dtype}", storage.count)
        steps = tuple(step * storage.itemsize for step in self.stride)
        start = flat[self.offset :] if math.prod(self.size) else flat[:0]
        view = np.lib.stride_tricks.as_strided(start, self.size, steps, writeable=False)
        return (view.astype("<u4") << 16).view("<f4") if bits else view


def is_size(value: object) -> bool:
    """Whether `value` can be a length or an offset (a bool is none)."""
    return type(value) is int and 0 <= value < 1 << 48


def _sizes(values: object, what: str) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > MAX_DIMS or not all(map(is_size, values)):
        raise Refused(f"{what} is {shown(values)}")
    return values


def make_tensor(args: tuple[Any, ...]) -> Tensor:
    """`torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`."""
    match args:
        case (Storage() as storage, offset, size, stride, bool(), *_) if len(args) in (6, 7) and is_size(offset):
            pass
        case _:
            raise Refused("a tensor is not made of a storage, an offset, a size and strides")
    size, stride = _sizes(size, "a tensor's size"), _sizes(stride, "a tensor's stride")
    count = math.prod(size)
    if len(size) != len(stride):
        raise Refused(f"a tensor of size {shown(size)} has the strides {shown(stride)}")
    end = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if count else offset
    if end > storage.count or count > storage.count:
        raise Refused(
            f"a tensor of size {shown(size)}, offset {offset} and strides {shown(stride)} "
            f"reaches beyond its storage of {storage.count} elements"
        )
    return Tensor(storage, offset, size, stride)


def make_parameter(args: tuple[Any, ...]) -> Tensor:
    """`torch._utils._rebuild_parameter(tensor, requires_grad, hooks)`."""
    match args:
        case (Tensor() as tensor, bool(), dict()):
            return tensor
    raise Refused("a parameter is not made of a tensor")


def storage_of(pid: Any, limit: int) -> tuple[str, Storage]:
    """(key, storage without data) of a persistent id; `limit` is how many bytes there can be at all."""
    match pid:
        case ("storage", Global(name), str() as key, str(), count, *view) if is_size(count) and view in ([], [None]):
            storage = Storage(STORAGES.get(name.removeprefix("torch."), ""), count)
        case _:
            raise Refused("a persistent id does not name a storage")
    if not storage.dtype:
        raise Refused(f"a storage has the type {shown(name)}")
    if storage.nbytes > limit:
        raise Refused(f"a storage of {storage.nbytes} bytes is said to be in a file of {limit}")
    return key, storage


# ---- numpy --------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class DType:
    """A numpy dtype of plain numbers, or of objects (`O`)."""

    code: str
    order: str = "<"

    def set_state(self, state: Any) -> None:
        match state:
            case (3, "<" | ">" | "|" | "=" as order, None, None, None, -1, -1, int()):
                self.order = "<" if order == "=" else order
            case _:
                raise Refused("a numpy dtype has fields or an unknown byte order")

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(self.order + self.code)


def make_dtype(args: tuple[Any, ...]) -> DType:
    """`numpy.dtype('f8', False, True)`."""
    match args:
        case (str() as code, int(), int()) if code in NUMBERS:
            return DType(code)
        case ("O8" | "O4" | "O", int(), int()):
            return DType("O")
    raise Refused(f"a numpy dtype is {shown(args[0] if args else 'missing')}, not numbers")


class Array:
    """A numpy array. Pickles make it empty and then set its state: numbers become a view, objects stay a list."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = (0,)
        self.values: np.ndarray | list[Any] = np.empty(0, np.float32)

    def set_state(self, state: Any) -> None:
        match state:
            case (1, shape, DType() as dtype, bool() as fortran, bytes() | bytearray() | memoryview() | list() as data):
                self.fill(data, dtype, shape, "F" if fortran else "C")
            case _:
                raise Refused("a numpy array has an unknown state")

    def fill(self, data: Any, dtype: DType, shape: Any, order: str) -> None:
        """Take `data` as the array's values; their number must be what `shape` says."""
        shape = _sizes(shape, "a numpy array's shape")
        objects = isinstance(data, list)
        if objects != (dtype.code == "O"):
            raise Refused(f"a numpy array of {dtype.code} holds {'objects' if objects else 'bytes'}")
        want = math.prod(shape) * (1 if objects else dtype.numpy.itemsize)
        if len(data) != want:
            raise Refused(f"a numpy array of shape {shown(shape)} has {len(data)} of {want} values or bytes")
        self.shape = shape
        self.values = data if objects else np.frombuffer(data, dtype.numpy).reshape(shape, order=order)  # type: ignore[call-overload]

    def array(self) -> np.ndarray:
        """The numbers `[*shape]`; `Refused` for an array of objects."""
        if isinstance(self.values, list):
            raise Refused("an array holds objects where numbers are expected")
        return self.values


def make_array(args: tuple[Any, ...]) -> Array:
    """`numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), b'b')`, whose state follows."""
    match args:
        case (Global(name="numpy.ndarray"), (0,), b"b" | "b"):
            return Array()
    raise Refused("a numpy array is made of something else than numpy.ndarray")


def make_buffer_array(args: tuple[Any, ...]) -> Array:
    """`numpy.core.numeric._frombuffer(data, dtype, shape, order)` of protocol 5."""
    match args:
        case (bytes() | bytearray() | memoryview() as data, DType() as dtype, tuple() as shape, "C" | "F" as order):
            array = Array()
            array.fill(data, dtype, shape, order)
            return array
    raise Refused("a numpy array has an unknown form")


def make_scalar(args: tuple[Any, ...]) -> bool | int | float:
    """`numpy.core.multiarray.scalar(dtype, data)`, as a number of Python's."""
    match args:
        case (DType() as dtype, bytes() | memoryview() as data) if dtype.code in NUMBERS:
            if len(data) == dtype.numpy.itemsize:
                return np.frombuffer(data, dtype.numpy)[0].item()
    raise Refused("a numpy scalar is not a number")


# ---- containers, modules, paths -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Module:
    """A network of an official `.pkl`: its class' name and its attributes. The source text in the file is dropped."""

    class_name: str
    state: dict[str, Any]


def make_module(args: tuple[Any, ...]) -> Module:
    """`torch_utils.persistence._reconstruct_persistent_obj(meta)`."""
    match args:
        case ({"type": "class", "version": 6, "class_name": str() as name, "state": dict() as state},):
            return Module(name, state)
        case ({"version": int() as version},) if version != 6:
            raise Refused(f"a network was pickled with version {version} of the official mechanism, not 6")
    raise Refused("a network has an unknown form")


def make_dict(args: tuple[Any, ...]) -> dict[str, Any]:
    """`OrderedDict()` and `EasyDict()`, whose items follow."""
    if args:
        raise Refused("a dict is made with arguments")
    return {}


def make_set(args: tuple[Any, ...]) -> set[str]:
    match args:
        case (list() as items,) if all(type(item) is str for item in items):
            return set(items)
    raise Refused("a set holds something else than names")


def make_no_bytes(args: tuple[Any, ...]) -> bytes:
    """`bytes()`, which is how protocol 2 writes bytes of length zero."""
    if args:
        raise Refused("bytes are made with arguments")
    return b""


def encode_latin1(args: tuple[Any, ...]) -> bytes:
    """`_codecs.encode(text, 'latin1')`, which is how protocol 2 writes bytes."""
    match args:
        case (str() as text, "latin1"):
            try:
                return text.encode("latin1")
            except UnicodeEncodeError as error:
                raise Refused("bytes in the pickle are not bytes") from error
    raise Refused("_codecs.encode is asked for something else than latin1")


def make_path(args: tuple[Any, ...]) -> str:
    """A path as text: `PosixPath` cannot be made on Windows, and only its name is of interest."""
    if not all(type(part) is str for part in args):
        raise Refused("a path is not made of text")
    return str(PurePosixPath(*args))


def make_size(args: tuple[Any, ...]) -> tuple[int, ...]:
    """`torch.Size`."""
    match args:
        case (tuple() | list() as sizes,):
            return _sizes(tuple(sizes), "a size")
    raise Refused("a torch.Size has an unknown form")


def _not_called(args: tuple[Any, ...]) -> Any:
    raise Refused("a type is called that is only named in official files")


def allow_list(makers: Mapping[str, Callable[[tuple[Any, ...]], Any]]) -> dict[str, Global]:
    return {name: Global(name, make) for name, make in makers.items()}


NUMPY = {
    f"numpy.{core}.{name}": make
    for core in ("core", "_core")  # before and since numpy 2
    for name, make in (
        ("multiarray._reconstruct", make_array),
        ("multiarray.scalar", make_scalar),
        ("numeric._frombuffer", make_buffer_array),
    )
} | {"numpy.dtype": make_dtype, "numpy.ndarray": _not_called}
PLAIN = {
    "collections.OrderedDict": make_dict,
    "argparse.Namespace": make_dict,  # a training loop's options beside the weights; what is set in it is dropped
    "builtins.set": make_set,
    "__builtin__.set": make_set,
    "__builtin__.bytes": make_no_bytes,
    "_codecs.encode": encode_latin1,
    **{f"{module}.{name}": make_path for module in ("pathlib", "pathlib._local") for name in PATHS},
}
TORCH = {
    "torch._utils._rebuild_tensor_v2": make_tensor,
    "torch._utils._rebuild_parameter": make_parameter,
    "torch.Size": make_size,
}
STORAGE_TYPES = {f"torch.{name}": _not_called for name in STORAGES}
NETWORKS = {
    "torch_utils.persistence._reconstruct_persistent_obj": make_module,
    "dnnlib.util.EasyDict": make_dict,
}
