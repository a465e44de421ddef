"""An ONNX network written by hand, so that no test needs the onnx package: the mean of each colour, [N, 3]."""

from __future__ import annotations


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """One entry of a protocol buffer message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def node(operator: str, source: str, target: str) -> bytes:
    return field(1, field(1, source) + field(2, target) + field(3, operator) + field(4, operator))


def tensor(name: str, shape: tuple[int, ...]) -> bytes:
    dims = b"".join(field(1, field(1, n)) for n in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def mean_colours(size: int) -> bytes:
    """The file's content; images are [1, 3, size, size]."""
    graph = node("GlobalAveragePool", "x", "pooled") + node("Flatten", "pooled", "y") + field(2, "means")
    graph += field(11, tensor("x", (1, 3, size, size))) + field(12, tensor("y", (1, 3)))
    return field(1, 7) + field(7, graph) + field(8, field(2, 13))
