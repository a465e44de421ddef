"""What a coded image says beside its pixels: messages (SEI) in H.264 and HEVC.

PyAV has no way to hand them to an encoder, so they are put into the coded image afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

START = re.compile(rb"\x00\x00\x01")
CARRYING = ("264", "hevc", "265")  # in the names of encoders whose images can be given messages
T35 = 4  # the number of messages that a country registered
Message = tuple[int, bytes]  # its number and what it says


def can_carry(encoder: str) -> bool:
    """Whether messages can be put into what this encoder makes."""
    return any(part in encoder for part in CARRYING)


def with_messages(data: bytes, messages: Sequence[Message], hevc: bool) -> bytes:
    """A coded image (Annex B) with messages before its first slice; as it is when it has no such form."""
    for match in START.finditer(data):
        at = match.end()
        kind = data[at] >> 1 & 0x3F if hevc else data[at] & 0x1F
        if kind < 32 if hevc else kind in (1, 5):
            units = b"".join(unit(message, hevc) for message in messages)
            return data[: match.start()] + units + data[match.start() :]
    return data


def unit(message: Message, hevc: bool) -> bytes:
    """The NAL unit of a message, with its start code."""
    number, payload = message
    body = bytes([number]) + b"\xff" * (len(payload) // 255) + bytes([len(payload) % 255]) + payload + b"\x80"
    escaped = re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", body)
    return b"\x00\x00\x01" + (b"\x4e\x01" if hevc else b"\x06") + escaped
