"""No name on the allow-list makes much memory of a small file, however often its own results are named again."""

from __future__ import annotations

import io
import tracemalloc
from itertools import product

import pytest
import torch

from sg3cli.weights.safe_pickle import machine
from sg3cli.weights.safe_pickle.machine import Machine
from sg3cli.weights.safe_pickle.reader import _names, read_bytes
from sg3cli.weights.safe_pickle.values import (
    NETWORKS,
    NUMPY,
    PLAIN,
    STORAGE_TYPES,
    TORCH,
    Budget,
    Refused,
    allow_list,
    weight,
)

BIG, SMALL = 100_000, 40  # bytes or items of the value that is named again and again
NESTED = "torch.storage._load_from_bytes"
MAKERS = sorted({*NETWORKS, *NUMPY, *PLAIN, *TORCH, *STORAGE_TYPES, NESTED})


def name_of(full: str) -> bytes:
    module, _, name = full.rpartition(".")
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(value: bytes) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value


def nested_stream(count: int) -> bytes:
    stream = io.BytesIO()
    torch.save(torch.zeros(count)._typed_storage(), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def filled(value: bytes) -> bytes:
    return b"B" + len(value).to_bytes(4, "little") + value


DTYPE = name_of("numpy.dtype") + text(b"u1") + b"K\0K\1\x87R"


def values(count: int) -> dict[str, bytes]:
    """What a call may be given: opcodes that push a value of about `count` bytes or items once."""
    names = b"".join(text(b"%06d" % k) for k in range(count // 10))
    network = {"type": text(b"class"), "version": b"K\6", "class_name": text(b"a"), "state": b"}"}
    return {
        "text": text(b"a" * count),
        "bytes": filled(b"a" * count),
        "stream": filled(nested_stream(count // 4)),
        "names": b"](" + names + b"e",
        "numbers": b"](" + b"K\1" * count + b"e",
        "tuple": b"(" + b"K\1" * count + b"t",
        "dict": b"}(" + b"".join(b"J" + k.to_bytes(4, "little") + b"N" for k in range(count // 6)) + b"u",
        "storage": name_of(NESTED) + filled(nested_stream(count // 4)) + b"\x85R",
        "network": b"}(" + b"".join(text(key.encode()) + value for key, value in network.items()) + b"u",
        "array type": name_of("numpy.ndarray"),
        "dtype": DTYPE,
    }


def places(count: int) -> dict[str, bytes]:
    """How the value, which is stored at 0, stands among the arguments of a call."""
    length = b"J" + count.to_bytes(4, "little")
    scalar = name_of("numpy.dtype") + text(b"u1") + b"K\0K\1\x87R"
    tensor = name_of("torch._utils._rebuild_tensor_v2") + b"(h\0K\0K\1\x85K\1\x85\x89}tR"
    return {
        "nowhere": b")",
        "alone": b"h\0\x85",
        "eight times": b"(" + b"h\0" * 8 + b"t",
        "as latin1": b"h\0" + text(b"latin1") + b"\x86",
        "as a tensor": b"(h\0K\0J" + (count // 4).to_bytes(4, "little") + b"\x85K\1\x85\x89}t",
        "as a parameter": tensor + b"\x89}\x87",
        "as a buffer": b"(h\0" + scalar + length + b"\x85" + text(b"C") + b"t",
        "as a scalar": scalar + filled(b"a") + b"\x86",
        "as an array": b"h\0K\0\x85" + filled(b"b") + b"\x87",
        "as a dtype": text(b"f4") + b"K\0K\1\x87",
    }


def stream_of(maker: str, value: bytes, arguments: bytes, calls: int) -> bytes:
    """A list of `calls` results of calling `maker`."""
    stored = value + b"q\0" + b"0" + name_of(maker) + b"q\1" + b"0"
    return b"\x80\x03" + stored + b"](" + (b"h\1" + arguments + b"R") * calls + b"e."


def takes(maker: str, kind: str, place: str) -> bool:
    """Whether such a value in such a place is an argument of the maker at all."""
    try:
        read_bytes(memoryview(stream_of(maker, values(SMALL)[kind], places(SMALL)[place], 1)))
    except Refused:
        return False
    return True


CALLS = 400
ALONE_COUNTS = ("alone", "eight times", "as latin1", "as a tensor", "as a buffer", "as an array")  # holds the value


def peak(stream: bytes) -> tuple[int, str]:
    """Bytes that reading the stream takes at most, and why it was refused (empty: it was read)."""
    data, cause = memoryview(stream), ""
    tracemalloc.start()
    try:
        kept = read_bytes(data)
        del kept
    except Refused as error:
        cause = str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most, cause


@pytest.mark.parametrize("maker", MAKERS)
def test_a_large_value_that_is_used_again_and_again(maker: str) -> None:
    """Every name, given every kind of large value wherever it takes it: memory keeps in proportion to the file."""
    taken = [(kind, place) for kind, place in product(values(SMALL), places(SMALL)) if takes(maker, kind, place)]
    assert taken or maker in (*STORAGE_TYPES, "numpy.ndarray", "torch.Size")  # never called; at most 16 numbers
    places_taken = {place: kind for kind, place in taken if place not in ALONE_COUNTS}
    for kind, place in [*((k, p) for k, p in taken if p in ALONE_COUNTS), *((k, p) for p, k in places_taken.items())]:
        stream = stream_of(maker, values(BIG)[kind], places(BIG)[place], CALLS)
        most, _ = peak(stream)
        assert most < 8 * len(stream) + (4 << 20), f"{maker} of {kind} {place}: {most} bytes of {len(stream)}"


@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_made_of_its_own_results_does_not_grow(maker: str) -> None:
    """1.2 kB of a path of eight of itself, and so on, were 262 MB."""
    for start in (text(b"a" * 100), filled(b"a" * 100), b"](" + text(b"a") + text(b"b") + b"e", b")"):
        for arguments in (b"(" + b"h\0" * 8 + b"t", b"h\0\x85", b"h\0" + text(b"latin1") + b"\x86"):
            grow = (b"h\1" + arguments + b"Rq\0" + b"0") * 40
            stream = b"\x80\x03" + start + b"q\0" + b"0" + name_of(maker) + b"q\1" + b"0" + grow + b"h\0."
            assert peak(stream)[0] < 16 << 20, maker


def test_paths_are_bombs_no_more() -> None:
    start = b"\x80\x02" + text(b"a" * 100) + b"q\x00" + b"0" + name_of("pathlib.PosixPath") + b"q\x01" + b"0"
    bomb = start + (b"h\x01(" + b"h\x00" * 8 + b"tRq\x00" + b"0") * 7 + b"h\x00."
    most, cause = peak(bomb)
    assert (
        len(bomb) < 1200
        and cause == "what it makes by pathlib.PosixPath would take much more memory than the file is large"
    )
    assert most < 4 << 20


def test_many_tensors_of_one_storage_cost_what_their_copies_would() -> None:
    base = torch.zeros(300_000)
    read_bytes(saved({"whole": base, "other": base.clone(), **{f"view{k}": base[:10] for k in range(50)}}))
    with pytest.raises(Refused, match="its tensors would take much more memory"):
        read_bytes(saved({f"w{k}": base.view(300_000) for k in range(6)}))


def saved(value: object) -> memoryview:
    stream = io.BytesIO()
    torch.save(value, stream)
    return memoryview(stream.getvalue())


def test_a_value_that_was_stored_is_charged_each_time_it_is_given_and_names_are_charged_by_what_sets_take() -> None:
    budget = Budget(0)
    allowed = allow_list({"builtins.set": PLAIN["builtins.set"]})
    stream = (
        b"\x80\x03" + b"](" + text(b"a") + text(b"b") + b"eq\0" + name_of("builtins.set") + b"q\1" + b"h\1h\0\x85R" * 3
    )
    left = budget.left
    with pytest.raises(Refused, match="untidy"):
        Machine(memoryview(stream + b"."), 0, allowed, budget).run()
    assert left - budget.left == 2 + 3 * 128
    assert weight(("abc", b"de", ("x", "y"), {"k": 1}, 5, None)) == 5 + 16 + 64


def test_every_opcode_of_the_machine_pushes_no_more_than_it_reads() -> None:
    """Those that take values off the stack or name them make one container of what is there: nothing is copied."""
    calls = {ord("R"), 0x81, ord("b"), ord("Q")}  # charged, or checked against the file
    for code in machine.STEPS.keys() - calls:
        stream = b"\x80\x03" + filled(b"a" * BIG) + b"q\0(" + bytes([code]) * 2000 + b"0" * 40 + b"."
        assert peak(stream)[0] < 4 * len(stream) + (2 << 20), hex(code)


def test_the_list_of_names_is_all_that_the_reader_knows() -> None:
    """A new name has to stand in one of these tables, and so gets its turn above."""
    assert sorted({*_names({**NETWORKS, **TORCH, **STORAGE_TYPES, NESTED: None})}) == MAKERS
