"""A pickle machine that can build plain data and nothing else.

It is not the standard one with a filter in front: there is no opcode, and no path in here, by which anything of the
file could be called or imported. A name in the file is looked up in an allow-list of records (`values`); any
other name ends the reading. Work and memory are bounded by limits of its own.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from sg3cli.weights.safe_pickle.values import (
    Array,
    Budget,
    DType,
    Global,
    Module,
    Refused,
    Storage,
    Tensor,
    make_tensor,
    shown,
    weight,
)

MAX_STEPS = 10_000_000  # opcodes; a published model has some 30 000, an hour of codes about three million
MAX_OBJECTS = 2_000_000  # containers and records
MAX_STACK = 1_000_000
MAX_LONG = 64  # bytes of an integer
MAX_NAME = 256  # bytes of a module's or a global's name

MARK = object()
NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
KIND = {Tensor: "tensor", Storage: "storage", Module: "network", Array: "numpy array", DType: "numpy dtype"}


class Machine:
    """Runs one pickle of `data` from position `at`; afterwards `at` is behind its STOP.

    What it makes is charged to `budget`, that of the whole file. `persistent` turns a persistent id into a value;
    without it a persistent id is refused.
    """

    def __init__(
        self,
        data: memoryview,
        at: int,
        allowed: Mapping[str, Global],
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data, self.at, self.end = data, at, len(data)
        self.allowed, self.budget, self.persistent = allowed, budget, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.objects = 0

    def run(self) -> Any:
        """The value of the pickle. Raises `Refused`."""
        for _ in range(MAX_STEPS):
            if self.at >= self.end:
                raise Refused("the pickle stops in the middle: the file is cut off")
            code = self.data[self.at]
            self.at += 1
            step = STEPS.get(code)
            if step is None:
                if code == STOP:
                    return self._result()
                raise self._unknown(code)
            step(self)
            if len(self.stack) > MAX_STACK:
                raise Refused(f"the pickle piles up more than {MAX_STACK} values")
        raise Refused(f"the pickle has more than {MAX_STEPS} steps")

    def _result(self) -> Any:
        if len(self.stack) != 1 or self.marks:
            raise Refused("the pickle stops with an untidy stack")
        return self.stack.pop()

    def _unknown(self, code: int) -> Refused:
        """The error of an opcode that official files do not have; those that name a global tell its name."""
        name = NAMES.get(code)
        if name is None:
            return Refused(f"byte {code:#04x} at {self.at - 1} is no pickle opcode")
        target = f" for {self.name_lines()}" if name == "INST" else ""
        return Refused(f"the pickle uses the opcode {name}{target}, which no official file has")

    # ---- reading

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        if count > self.end - self.at:
            raise Refused(f"the pickle says that {count} bytes follow, but {self.end - self.at} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str) -> Any:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def name_lines(self) -> str:
        """`module.name` of two text lines."""
        parts = []
        for _ in range(2):
            window = bytes(self.data[self.at : self.at + MAX_NAME])
            length = window.find(b"\n")
            if length < 0:
                raise Refused("the pickle names a global without end")
            parts.append(shown(window[:length].decode("utf8", "replace"), MAX_NAME))
            self.at += length + 1
        return ".".join(parts)

    # ---- the stack

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Refused("the pickle takes a value from an empty stack")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        """What was pushed since the last MARK."""
        if not self.marks:
            raise Refused("the pickle lacks a MARK")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def top(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise Refused("the pickle takes a value from an empty stack")
        return self.stack[-1]

    def new(self, value: Any) -> None:
        """Push something that takes memory of its own."""
        self.objects += 1
        if self.objects > MAX_OBJECTS:
            raise Refused(f"the pickle makes more than {MAX_OBJECTS} objects")
        self.stack.append(value)

    # ---- what opcodes do

    def resolve(self, name: str) -> None:
        """Push the record of a global name."""
        known = self.allowed.get(name)
        if known is None:
            raise Refused(f"the file asks for {shown(name, 120)}, which no official file needs")
        self.push(known)

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise Refused("the pickle names a global by something else than text")
        self.resolve(f"{module[:MAX_NAME]}.{name[:MAX_NAME]}")

    def call(self) -> None:
        """REDUCE and NEWOBJ: the record that stands for a call."""
        args, function = self.pop(), self.pop()
        if type(function) is not Global:
            raise Refused(f"the pickle calls a {kind_of(function)}")
        if type(args) is not tuple:
            raise Refused(f"the pickle calls {function.name} without arguments")
        self.budget.spend(weight(args), f"what it makes by {function.name}")
        value = function.make(args)
        if function.make is make_tensor:  # many can share a storage, and each is copied in the end
            self.budget.spend(value.nbytes, "its tensors")
        self.new(value)

    def build(self) -> None:
        """BUILD: the state of a numpy array or dtype; attributes of a dict are dropped."""
        state, target = self.pop(), self.top()
        if type(target) in (Array, DType):
            target.set_state(state)
        elif type(target) is not dict or type(state) not in (dict, tuple):
            raise Refused(f"the pickle sets the state of a {kind_of(target)}")

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise Refused("the pickle refers to something outside of it by a persistent id")
        self.new(self.persistent(self.pop()))

    def set_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise Refused(f"the pickle puts items into a {kind_of(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            small = type(key) is int and abs(key) < 1 << 31  # larger ones can be chosen to collide
            if not small and type(key) not in (str, bool, type(None)):
                raise Refused(f"a dict has a {kind_of(key)} for a key")
            target[key] = value

    def append_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not list:
            raise Refused(f"the pickle appends to a {kind_of(target)}")
        target.extend(items)

    def add_items(self, items: list[Any]) -> None:
        target = self.top()
        if type(target) is not set or not all(type(item) is str for item in items):
            raise Refused("a set holds something else than names")
        target.update(items)

    def tuple_of(self, count: int) -> None:
        self.new(tuple(reversed([self.pop() for _ in range(count)])))

    def text(self, layout: str) -> None:
        raw = self.take(self.number(layout))
        self.budget.spend(len(raw), "its text")
        try:
            self.new(str(raw, "utf8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise Refused(f"a text in the pickle is not UTF-8: {error.reason}") from error

    def long_integer(self, layout: str) -> None:
        size = self.number(layout)
        if not 0 <= size <= MAX_LONG:
            raise Refused(f"the pickle has an integer of {size} bytes")
        self.push(int.from_bytes(self.take(size), "little", signed=True))

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise Refused(f"the pickle refers to value {index}, which it has not stored")
        self.push(self.memo[index])

    def put(self, index: int) -> None:
        self.memo[index] = self.top()

    def protocol(self) -> None:
        version = self.number("<B")
        if not 2 <= version <= 5:
            raise Refused(f"the pickle is of protocol {version}; protocols 2 to 5 are read")

    def frame(self) -> None:
        size = self.number("<Q")
        if size > self.end - self.at:
            raise Refused(f"the pickle says that {size} bytes follow, but {self.end - self.at} are left")


def kind_of(value: Any) -> str:
    """What a value of a pickle is, in a word."""
    return f"reference to {value.name}" if type(value) is Global else KIND.get(type(value), type(value).__name__)


STOP = ord(".")
STEPS: dict[int, Callable[[Machine], Any]] = {
    0x80: Machine.protocol,
    0x95: Machine.frame,
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): Machine.pop,
    ord("1"): Machine.pop_mark,
    ord("2"): lambda m: m.push(m.top()),
    # constants and numbers
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    0x8A: lambda m: m.long_integer("<B"),
    0x8B: lambda m: m.long_integer("<i"),
    ord("G"): lambda m: m.push(m.number(">d")),
    # text and bytes; long bytes stay in the file
    0x8C: lambda m: m.text("<B"),
    ord("X"): lambda m: m.text("<I"),
    0x8D: lambda m: m.text("<Q"),
    ord("C"): lambda m: m.new(bytes(m.take(m.number("<B")))),
    ord("B"): lambda m: m.new(m.take(m.number("<I"))),
    0x8E: lambda m: m.new(m.take(m.number("<Q"))),
    0x96: lambda m: m.new(m.take(m.number("<Q"))),
    # containers
    ord("]"): lambda m: m.new([]),
    ord("}"): lambda m: m.new({}),
    0x8F: lambda m: m.new(set()),
    ord(")"): lambda m: m.push(()),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("t"): lambda m: m.new(tuple(m.pop_mark())),
    ord("a"): lambda m: m.append_items([m.pop()]),
    ord("e"): lambda m: m.append_items(m.pop_mark()),
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    0x90: lambda m: m.add_items(m.pop_mark()),
    # the memo
    ord("h"): lambda m: m.get(m.number("<B")),
    ord("j"): lambda m: m.get(m.number("<I")),
    ord("q"): lambda m: m.put(m.number("<B")),
    ord("r"): lambda m: m.put(m.number("<I")),
    0x94: lambda m: m.put(len(m.memo)),
    # names, records
    ord("c"): lambda m: m.resolve(m.name_lines()),
    0x93: Machine.stack_global,
    ord("R"): Machine.call,
    0x81: Machine.call,
    ord("b"): Machine.build,
    ord("Q"): Machine.persistent_id,
}
