"""Closed captions (CEA-608 and 708, as ATSC A/53 part 4 puts them into a picture's user data).

A decoder hands them out beside the image. PyAV has no way to hand them to an encoder, so they are put into the coded
image afterwards, as the message (SEI) that H.264 and HEVC have for it.
"""

from __future__ import annotations

import re
from typing import Any

from sg3cli.video.info import side_data

HEAD = b"\xb5\x00\x31GA94\x03"  # United States, ATSC, the kind of data, captions
TRIPLET = 3  # bytes of one caption datum
MOST = 31  # of them in a picture
T35 = 4  # the message's number
START = re.compile(rb"\x00\x00\x01")
SPEAKING = ("h264", "hevc", "mpeg2video", "mpeg1video")  # codecs whose pictures may have captions
CARRYING = ("264", "hevc", "265")  # in the names of encoders whose pictures can be given some


def captions_of(image: Any) -> bytes:
    """The captions of a decoded image, empty when it has none."""
    data = side_data(image).get("A53_CC")
    return b"" if data is None else bytes(data)


def can_carry(encoder: str) -> bool:
    """Whether captions can be put into what this encoder makes."""
    return any(part in encoder for part in CARRYING)


def with_captions(data: bytes, captions: bytes, hevc: bool) -> bytes:
    """A coded image (Annex B) with captions before its first slice; as it is when it has no such form."""
    for match in START.finditer(data):
        at = match.end()
        kind = data[at] >> 1 & 0x3F if hevc else data[at] & 0x1F
        if kind < 32 if hevc else kind in (1, 5):
            return data[: match.start()] + message(captions, hevc) + data[match.start() :]
    return data


def message(captions: bytes, hevc: bool) -> bytes:
    """The NAL unit of a message with these captions, with its start code."""
    count = min(len(captions) // TRIPLET, MOST)
    payload = HEAD + bytes([0xC0 | count, 0xFF]) + captions[: TRIPLET * count] + b"\xff"
    body = bytes([T35]) + b"\xff" * (len(payload) // 255) + bytes([len(payload) % 255]) + payload + b"\x80"
    escaped = re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", body)
    return b"\x00\x00\x01" + (b"\x4e\x01" if hevc else b"\x06") + escaped
