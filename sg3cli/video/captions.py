"""Closed captions (CEA-608 and 708, as ATSC A/53 part 4 puts them into a picture's user data).

A decoder hands them out beside the image; the message (SEI) that H.264 and HEVC have for it carries them on.
"""

from __future__ import annotations

from typing import Any

from sg3cli.video.info import side_data
from sg3cli.video.picture_messages import T35, Message, with_messages

HEAD = b"\xb5\x00\x31GA94\x03"  # United States, ATSC, the kind of data, captions
TRIPLET = 3  # bytes of one caption datum
MOST = 31  # of them in a picture
SPEAKING = ("h264", "hevc", "mpeg2video", "mpeg1video")  # codecs whose pictures may have captions


def captions_of(image: Any) -> bytes:
    """The captions of a decoded image, empty when it has none."""
    data = side_data(image).get("A53_CC")
    return b"" if data is None else bytes(data)


def with_captions(data: bytes, captions: bytes, hevc: bool) -> bytes:
    """A coded image (Annex B) with captions before its first slice; as it is when it has no such form."""
    return with_messages(data, [caption_message(captions)], hevc)


def caption_message(captions: bytes) -> Message:
    """The message that says these captions."""
    count = min(len(captions) // TRIPLET, MOST)
    return T35, HEAD + bytes([0xC0 | count, 0xFF]) + captions[: TRIPLET * count] + b"\xff"
