"""Files that mean harm, and files that are broken: nothing in them runs, and each ends in an error naming its cause.

An audit hook of the interpreter listens while a file is read, so that an execution is seen even if it does nothing.
"""

from __future__ import annotations

import io
import pickle
import random
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_files import ENCODERS, PICKLES, STATE_DICTS, golden_bytes, save_encoder_checkpoint

from sg3cli import cli
from sg3cli.errors import ModelError
from sg3cli.weights.direction_file import load_direction
from sg3cli.weights.import_arrays import read_codes, read_latents, read_style_statistics
from sg3cli.weights.import_networks import read_official
from sg3cli.weights.safe_pickle.reader import read
from sg3cli.weights.safe_pickle.values import Array, Tensor

FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "exec", "compile")
FORBIDDEN += ("ctypes.dlopen", "socket.connect", "os.remove", "shutil.rmtree", "marshal.loads", "code.__new__")
heard: list[str] | None = None  # what was run, while somebody listens


def listen(event: str, args: tuple[Any, ...]) -> None:
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if heard is not None and (event in FORBIDDEN or writes):
        heard.append(f"{event} {args!r}"[:200])


sys.addaudithook(listen)


@contextmanager
def nothing_runs() -> Iterator[None]:
    global heard
    heard = []
    try:
        yield
        assert heard == []
    finally:
        heard = None


# ---- streams of evil


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def call(target: str, *args: str | bytes) -> bytes:
    """Opcodes that call `module:name` with texts, or with what other opcodes make."""
    module, _, name = target.partition(":")
    made = b"".join(arg if isinstance(arg, bytes) else text(arg) for arg in args)
    return f"c{module}\n{name}\n".encode() + b"(" + made + b"tR"


def named(target: str, *args: str | bytes) -> bytes:
    """The same by STACK_GLOBAL, which takes dotted names."""
    module, _, name = target.partition(":")
    made = b"".join(arg if isinstance(arg, bytes) else text(arg) for arg in args)
    return text(module) + text(name) + b"\x93(" + made + b"tR"


TOUCH, CODE = "touch MARKER", "open('MARKER', 'w').close()"  # MARKER becomes a path in the test's folder
CALLS = {  # what is called -> its arguments
    "os:system": (TOUCH,),
    "posix:system": (TOUCH,),
    "nt:system": (TOUCH,),
    "os:popen": (TOUCH,),
    "os:execvp": ("touch", b"]" + text("touch") + b"a" + text("MARKER") + b"a"),
    "subprocess:Popen": (b"]" + text("touch") + b"a" + text("MARKER") + b"a",),
    "subprocess:getoutput": (TOUCH,),
    "subprocess:check_output": (b"]" + text("touch") + b"a" + text("MARKER") + b"a",),
    "builtins:eval": (CODE,),
    "builtins:exec": (CODE,),
    "__builtin__:eval": (CODE,),
    "__builtin__:execfile": ("MARKER",),
    "builtins:compile": (CODE, "x", "exec"),
    "builtins:__import__": ("antigravity",),
    "builtins:open": ("MARKER", "w"),
    "builtins:getattr": (b"cbuiltins\nopen\n", "__call__"),
    "builtins:map": (b"cbuiltins\neval\n", b"]" + text(CODE) + b"a"),
    "builtins:apply": (b"cos\nsystem\n", text(TOUCH) + b"\x85"),
    "io:open": ("MARKER", "w"),
    "pathlib:Path.write_text": (call("pathlib:PosixPath", "MARKER"), "x"),
    "pathlib:PosixPath.touch": (call("pathlib:PosixPath", "MARKER"),),
    "evil:PosixPath": ("MARKER",),
    "pathlib:Path": ("MARKER",),
    "codecs:open": ("MARKER", "w"),
    "codecs:decode": ("x", "rot13"),
    "importlib:import_module": ("antigravity",),
    "functools:partial": (b"cos\nsystem\n", TOUCH),
    "functools:reduce": (b"cos\nsystem\n", b"]" + text(TOUCH) + b"a"),
    "operator:attrgetter": ("__class__.__base__.__subclasses__",),
    "operator:methodcaller": ("touch",),
    "copyreg:_reconstructor": (b"cos\nsystem\n", b"cbuiltins\nobject\n", b"N"),
    "types:FunctionType": (b"N", b"}"),
    "types:CodeType": (b"K\x00",),
    "marshal:loads": (b"C\x01N",),
    "pickle:loads": (b"C\x02N.",),
    "_pickle:loads": (b"C\x02N.",),
    "dill:loads": (b"C\x02N.",),
    "runpy:run_path": ("MARKER",),
    "webbrowser:open": ("file:///MARKER",),
    "shutil:rmtree": ("MARKER",),
    "numpy:load": ("MARKER", b"N", b"\x88"),
    "numpy:save": ("MARKER", b"K\x00"),
    "numpy:memmap": ("MARKER", "uint8", "w+"),
    "numpy.testing._private.utils:runstring": (CODE, b"}"),
    "numpy.core.multiarray:frombuffer": (b"C\x01a",),
    "torch:load": ("MARKER",),
    "torch.hub:load": ("evil/repo", "model"),
    "torch.serialization:load": ("MARKER",),
    "torch._utils:_rebuild_from_type_v2": (b"cos\nsystem\n", b"cbuiltins\nobject\n", text(TOUCH) + b"\x85", b"}"),
    "torch._utils:_rebuild_wrapper_subclass": (b"cos\nsystem\n",),
    "torch.utils.cpp_extension:load_inline": ("x", CODE),
    "torch.jit:load": ("MARKER",),
    "torch.package:PackageImporter": ("MARKER",),
    "torch_utils.persistence:Decorator": ("MARKER",),
    "torch_utils.persistence:import_hook": ("MARKER",),
    "dnnlib.util:call_func_by_name": ("os.system", TOUCH),
    "sg3cli.weights.safe_pickle.reader:read": ("MARKER",),
}
RAW = {  # opcodes that do without, or misuse names that are allowed -> what the error says of it
    "INST": (b"(" + text(TOUCH) + b"ios\nsystem\n", "INST for os.system"),
    "OBJ": (b"(cos\nsystem\n" + text(TOUCH) + b"o", "os.system"),
    "OBJ of an allowed name": (b"(ccollections\nOrderedDict\no", "opcode OBJ"),
    "EXT1": (b"\x82\x01", "opcode EXT1"),
    "EXT2": (b"\x83\x01\x00", "opcode EXT2"),
    "EXT4": (b"\x84\x01\x00\x00\x00", "opcode EXT4"),
    "PERSID": (b"Pos.system\n", "opcode PERSID"),
    "BINPERSID": (text("os.system") + b"Q", "persistent id"),
    "NEWOBJ_EX": (b"ccollections\nOrderedDict\n)}\x92", "opcode NEWOBJ_EX"),
    "NEXT_BUFFER": (b"\x97", "opcode NEXT_BUFFER"),
    "STRING": (b"S'x'\n", "opcode STRING"),
    "GLOBAL with a long name": (b"c" + b"a" * 300 + b"\n" + b"b" * 300 + b"\n", "without end"),
    "GLOBAL with escapes": (b"c\x1b[31mos\nsystem\n", r"\x1b[31mos.system"),
    "STACK_GLOBAL of numbers": (b"K\x01K\x02\x93", "something else than text"),
    "REDUCE of a text": (text("os.system") + text(TOUCH) + b"\x85R", "calls a str"),
    "REDUCE of a result": (call("pathlib:PosixPath", "a") + b")R", "calls a str"),
    "REDUCE of a type": (b"ctorch\nFloatStorage\n)R", ("FloatStorage", "only named")),
    "BUILD of a name": (b"ccollections\nOrderedDict\n}" + text("__call__") + b"cos\nsystem\nsb", "os.system"),
    "BUILD of a name's record": (b"ccollections\nOrderedDict\n}b", "state of a reference to collections.OrderedDict"),
    "SETITEMS of a name": (b"ccollections\nOrderedDict\n(K\x01K\x02u", "items into a reference"),
    "APPENDS to a path": (call("pathlib:PosixPath", "a") + b"(K\x01e", "appends to a str"),
    "a path of names": (call("pathlib:PosixPath", b"ccollections\nOrderedDict\n"), "not made of text"),
    "a set of lists": (call("__builtin__:set", b"](]e"), ("set", "collections")),
    "a dict of arguments": (call("collections:OrderedDict", b"]"), "made with arguments"),
    "bytes of a size": (call("__builtin__:bytes", b"J\xff\xff\xff\x7f"), "made with arguments"),
    "another codec": (call("_codecs:encode", "x", "rot13"), "something else than latin1"),
    "bytes that are none": (call("_codecs:encode", "\u4e16", "latin1"), "are not bytes"),
    "a dtype of objects' fields": (call("numpy:dtype", "V8", b"\x89", b"\x88"), "V8, not numbers"),
    "an array of another class": (
        call("numpy.core.multiarray:_reconstruct", b"ccollections\nOrderedDict\n", b"K\x00\x85", b"C\x01b"),
        "something else than numpy.ndarray",
    ),
    "a scalar of objects": (
        call("numpy.core.multiarray:scalar", call("numpy:dtype", "O8", b"\x89", b"\x88"), b"C\x08" + bytes(8)),
        "not a number",
    ),
    "a tensor of a path": (
        call("torch._utils:_rebuild_tensor_v2", "a", b"K\x00", b")", b")", b"\x89", b"}"),
        ("not made of a storage", "_rebuild_tensor_v2"),
    ),
}


def evil(marker: Path) -> Iterator[tuple[str, bytes, tuple[str, ...]]]:
    """(label, opcodes, words of which the error has one)."""
    replace = {b"MARKER": str(marker).encode()}

    def placed(code: bytes) -> bytes:
        """Paths are longer than the word, so lengths are written again."""
        (old, new), at, out = next(iter(replace.items())), 0, b""
        while (found := code.find(old, at)) >= 0:
            start = code.rfind(b"X", at, found)
            length = struct.unpack("<I", code[start + 1 : start + 5])[0]
            whole = code[start + 5 : start + 5 + length].replace(old, new)
            out += code[at:start] + b"X" + struct.pack("<I", len(whole)) + whole
            at = start + 5 + length
        return out + code[at:]

    for target, args in CALLS.items():
        dotted = target.replace(":", ".")
        inner = tuple(n for n in ("os.system", "builtins.open", "builtins.eval", "builtins.object") if n != dotted)
        yield target, placed(call(target, *args)), (dotted,)
        yield f"{target} by name", placed(named(target, *args)), (dotted, *inner)
    for label, (code, words) in RAW.items():
        yield label, placed(code), (words,) if isinstance(words, str) else words


# ---- where it may stand in a file


def plain(code: bytes) -> bytes:
    return b"\x80\x02" + code + b"."


def as_pickle(code: bytes) -> bytes:
    return b"\x80\x04" + code + b"."


def as_network(code: bytes) -> bytes:
    """As the averaged generator of an official pickle."""
    return b"\x80\x02}(" + text("G_ema") + code + b"u."


def as_attribute(code: bytes) -> bytes:
    """As an attribute of a network that is otherwise in order."""
    meta = b"}(" + text("type") + text("class") + text("version") + b"K\x06" + text("module_src") + text(CODE)
    meta += text("class_name") + text("Generator") + text("state") + b"}" + text("x") + code + b"s" + b"u"
    reconstruct = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    return b"\x80\x02}" + text("G_ema") + reconstruct + meta + b"\x85Rs."


def as_zip(code: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", plain(code))
        archive.writestr("a/version", "3\n")
    return out.getvalue()


def as_legacy(code: bytes) -> bytes:
    magic, system = 0x1950A86A20F9469CFC6C, {"little_endian": True, "protocol_version": 1001, "type_sizes": {}}
    start = b"".join(pickle.dumps(part, 2) for part in (magic, 1001, system))
    return start + plain(code) + pickle.dumps([], 2)


def as_nested(code: bytes) -> bytes:
    """Inside the stream of a storage inside a pickle."""
    stream = as_legacy(code)
    return plain(call("torch.storage:_load_from_bytes", b"B" + struct.pack("<I", len(stream)) + stream))


def as_npy(code: bytes) -> bytes:
    header = "{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + plain(code)


WRAPPERS = (as_pickle, as_network, as_attribute, as_zip, as_legacy, as_nested, as_npy)


def refused(path: Path, reader: Callable[[Path], Any]) -> str:
    with nothing_runs(), pytest.raises(ModelError) as caught:
        reader(path)
    assert caught.value.code == 4 and caught.value.hint
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    return str(caught.value).replace(str(path), "")


def test_the_listener_hears_what_a_stock_reader_would_run(tmp_path: Path) -> None:
    """Otherwise the silence below would mean nothing."""
    marker = tmp_path / "marker"
    for label, code, _ in evil(marker):
        if label in ("os:system", "builtins:exec"):
            with pytest.raises(AssertionError), nothing_runs():
                pickle.loads(plain(code))
            assert marker.exists()
            marker.unlink()


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_evil_files_run_nothing_and_are_named(tmp_path: Path, wrap: Callable[[bytes], bytes]) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    count = 0
    for label, code, words in evil(marker):
        path.write_bytes(wrap(code))
        cause = refused(path, read_official)
        narrower = wrap in (as_nested, as_legacy, as_zip, as_npy)  # these refuse names that networks may have
        inner = narrower and label in RAW and "the file asks for " in cause
        assert inner or any(word in cause for word in words), f"{label}: {cause}"
        assert not marker.exists(), label
        count += 1
    assert count >= 140


def test_source_text_in_an_official_pickle_is_dropped(tmp_path: Path) -> None:
    """The official mechanism itself: a network with its program beside it."""
    marker, path = tmp_path / "marker", tmp_path / "a.pkl"
    path.write_bytes(as_attribute(b"N"))
    with nothing_runs():
        tree = read(path)
    assert tree["G_ema"].class_name == "Generator" and tree["G_ema"].state == {"x": None}
    assert not marker.exists()


@pytest.mark.parametrize("reader", [load_direction, read_latents, read_codes, read_style_statistics])
def test_evil_array_files(tmp_path: Path, reader: Callable[[Path], Any]) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil_boundary.npy"
    for label, code, _ in evil(marker):
        for wrap in (as_npy, as_pickle):
            path.write_bytes(wrap(code))
            refused(path, reader)
            assert not marker.exists(), label


def test_objects_whose_reduction_is_a_call(tmp_path: Path) -> None:
    """As an attacker would write it: classes with __reduce__, saved by numpy and torch themselves."""
    marker = tmp_path / "marker"

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return exec, (f"open({str(marker)!r}, 'w').close()",)

    np.save(tmp_path / "latents.npy", np.array({"a.jpg": Bomb()}, dtype=object))
    np.save(tmp_path / "array.npy", np.array([np.ones(3), Bomb()], dtype=object))
    torch.save({"state_dict": {"encoder.x": torch.zeros(1)}, "opts": {"x": Bomb()}}, tmp_path / "e.pt")
    torch.save([Bomb()], tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for protocol in range(2, 6):
        (tmp_path / f"{protocol}.pkl").write_bytes(pickle.dumps([1, {"x": Bomb()}], protocol))
    for path in sorted(tmp_path.iterdir()):
        assert "exec" in refused(path, read_official)
    assert not marker.exists()


# ---- broken files


def good_files(folder: Path) -> dict[str, tuple[bytes, Callable[[Path], Any]]]:
    """Small files of every kind and who reads them."""
    save_encoder_checkpoint(folder / "e.pt")
    codes = {f"{n:04}.jpg": np.ones((16, 8), np.float32) for n in range(3)}
    np.save(folder / "age_boundary.npy", np.ones((1, 64), np.float32))
    np.save(folder / "latents.npy", codes)
    np.save(folder / "lists.npy", {name: [code, code] for name, code in codes.items()})
    np.save(folder / "codes.npy", np.ones((4, 16, 8), np.float32))
    layers = {"input": np.ones(4), "L0_36_64": np.ones(64, np.float32)}
    (folder / "s_stats").write_bytes(pickle.dumps([{"theta": np.float64(0)}, layers, layers], 3))
    readers: dict[str, Callable[[Path], Any]] = {
        "e.pt": read_official,
        "age_boundary.npy": load_direction,
        "latents.npy": read_latents,
        "lists.npy": read_latents,
        "codes.npy": read_codes,
        "s_stats": read_style_statistics,
    }
    found = {name: ((folder / name).read_bytes(), reader) for name, reader in readers.items()}
    golden = {name: (golden_bytes(name), read_official) for name in (*PICKLES.values(), *STATE_DICTS)}
    return {**golden, **found, **{name: (golden_bytes(name), read) for name in ENCODERS}}


def mutated(data: bytes, chance: random.Random, marker: Path) -> bytes:
    """The file with one or a few things wrong; the beginning, where the structure is, is hit most."""
    out = bytearray(data)
    reach = len(out) if chance.random() < 0.5 else min(len(out), 2000)
    if data.startswith(b"PK") and chance.random() < 0.3:  # the directory of an archive is at its end
        at = len(out) - 1 - chance.randrange(min(len(out), 3000))
    else:
        at = chance.randrange(reach)
    kind = chance.choice(("flip", "flips", "byte", "cut", "splice", "length", "drop", "repeat", "swap"))
    if kind in ("flip", "flips"):
        for _ in range(1 if kind == "flip" else 20):
            out[at] ^= 1 << chance.randrange(8)
            at = chance.randrange(reach)
    elif kind == "byte":
        out[at] = chance.choice(b"cRbQ.it(}]0h\x81\x93\x94\x8c\x80\xff\x00")
    elif kind == "cut":
        del out[at:]
    elif kind == "splice":
        payload = chance.choice([code for label, code, _ in evil(marker) if label.startswith(("os:sys", "builtins:"))])
        out[at:at] = payload
    elif kind == "length":
        out[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\1\0"))
    elif kind == "drop":
        del out[at : at + chance.randrange(1, 40)]
    elif kind == "repeat":
        out[at:at] = out[at : at + chance.randrange(1, 400)]
    else:
        other = chance.randrange(len(out))
        out[at : at + 8], out[other : other + 8] = out[other : other + 8], out[at : at + 8]
    return bytes(out)


def size_of(value: Any, depth: int = 8) -> int:
    """Bytes of all arrays in what a reader gave."""
    if isinstance(value, Tensor | Array):
        value = value.array() if not isinstance(getattr(value, "values", None), list) else np.empty(0)
    if isinstance(value, np.ndarray):
        return value.nbytes
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    parts = parts or [getattr(value, name) for name in getattr(value, "__dataclass_fields__", ())]
    return sum(size_of(part, depth - 1) for part in parts) if depth else 0


MUTATIONS = {name: 30 for name in PICKLES.values()}  # these take a tenth of a second each
NAMES = [*PICKLES.values(), *STATE_DICTS, *ENCODERS, "e.pt"]
NAMES += ["age_boundary.npy", "latents.npy", "lists.npy", "codes.npy", "s_stats"]


@pytest.mark.parametrize("name", NAMES)
def test_broken_files_are_refused_or_harmless(tmp_path: Path, name: str) -> None:
    (tmp_path / "good").mkdir()
    data, reader = good_files(tmp_path / "good")[name]
    marker, path = tmp_path / "marker", tmp_path / Path(name).with_stem("broken").name
    path.write_bytes(data)
    reader(path)  # unbroken, it is read; and what is imported late has been
    chance, outcomes = random.Random(name), {"refused": 0, "read": 0}
    for number in range(MUTATIONS.get(name, 40)):
        path.write_bytes(mutated(data, chance, marker))
        try:
            with nothing_runs():
                value = reader(path)
            assert size_of(value) <= 2 * len(data) + 1024, f"mutation {number}"
            outcomes["read"] += 1
        except ModelError as error:
            assert str(path) in str(error) and len(str(error)) > len(f"cannot read {path}: ") and error.code == 4
            outcomes["refused"] += 1
        assert not marker.exists(), f"mutation {number}"
    assert outcomes["refused"] >= 10, outcomes


@pytest.mark.parametrize("name", [PICKLES["t"], STATE_DICTS[1], "latents.npy"])
def test_files_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "good").mkdir()
    data, reader = good_files(tmp_path / "good")[name]
    for length in (*range(0, 80, 7), *range(80, len(data) - 1, len(data) // 15), len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:length])
        refused(tmp_path / "cut", reader)


def test_there_are_enough_of_them() -> None:
    assert sum(MUTATIONS.get(name, 40) for name in NAMES) >= 200 and len(CALLS) >= 50


# ---- the command


@pytest.mark.parametrize("label", ["os:system", "builtins:eval", "torch:load", "INST", "functools:partial"])
@pytest.mark.parametrize("wrap", [as_network, as_zip, as_legacy, as_npy])
def test_import_ends_with_code_four(
    label: str, wrap: Callable[[bytes], bytes], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("SG3_MODELS", str(tmp_path / "models"))
    marker = tmp_path / "marker"
    code, words = next((code, words) for each, code, words in evil(marker) if each == label)
    (tmp_path / "evil.pkl").write_bytes(wrap(code))
    assert cli.run(["models", "import", str(tmp_path / "evil.pkl")]) == 4
    error, hint = capsys.readouterr().err.strip().splitlines()[-2:]
    assert error.startswith("error: cannot read ") and any(word in error for word in (*words, "os.system"))
    assert "nothing in the file was executed" in hint and not marker.exists()
    assert not list((tmp_path / "models").glob("*/model.json"))


def test_import_refuses_broken_files_and_evil_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SG3_MODELS", str(tmp_path / "models"))
    data = golden_bytes(PICKLES["r"])
    (tmp_path / "cut.pkl").write_bytes(data[: len(data) // 2])
    (tmp_path / "good.pkl").write_bytes(data)
    code = next(code for label, code, _ in evil(tmp_path / "marker") if label == "os:system")
    (tmp_path / "evil.npy").write_bytes(as_npy(code))
    good, bad = str(tmp_path / "good.pkl"), str(tmp_path / "evil.npy")
    for line in ([str(tmp_path / "cut.pkl")], [good, "--encoder", bad], [good, "--directions", bad]):
        assert cli.run(["models", "import", *line]) == 4
        assert "cannot read" in capsys.readouterr().err
    assert not (tmp_path / "marker").exists() and not list((tmp_path / "models").glob("*/model.json"))
