"""How a screen is to show an image, said beside its pixels: the part that matters (AFD), two eyes in one, a sphere."""

from __future__ import annotations

import struct
from typing import Any

from sg3cli.video.picture_messages import T35, Message

AFD_HEAD = b"\xb5\x00\x31DTG1"  # United States, ATSC, the kind of data: active format description
PACKING = 45  # the message about two images in one
RIGHT_FIRST = ", the right eye first"
TWO_IMAGES = "an image for each eye"
# FFmpeg's numbers of arrangements of two eyes' images; 0 is a plain image
ARRANGEMENTS = (
    "", "side by side", "one above the other", "one after the other", "as a checkerboard", "side by side in quincunx",
    "in turn by rows", "in turn by columns", TWO_IMAGES,
)  # fmt: skip
# Numbers of the message for those that it says once for all images, and whether their samples lie in quincunx. HEVC
# has those from 3 on.
PACKINGS = {
    "side by side": (3, 0),
    "one above the other": (4, 0),
    "as a checkerboard": (0, 0),
    "side by side in quincunx": (3, 1),
    "in turn by rows": (2, 0),
    "in turn by columns": (1, 0),
}
FIRST_OF_HEVC = 3
PROJECTIONS = (
    "equirectangular", "cube map", "tiled equirectangular", "half equirectangular", "rectilinear", "fisheye",
)  # fmt: skip


def active_format_of(data: Any) -> int | None:
    """The active format (0 to 15) in the side data of a decoded image, None when it says none."""
    found = data.get("AFD")
    return None if found is None else bytes(found)[0] & 15


def stereo_of(data: Any) -> str:
    """How the images of two eyes are arranged, by the side data of a decoded image; empty: there is but one."""
    found = data.get("STEREO3D")
    if found is None:
        return ""
    kind, flags = struct.unpack_from("=ii", bytes(found))
    name = ARRANGEMENTS[kind] if 0 <= kind < len(ARRANGEMENTS) else f"number {kind}"
    return name + RIGHT_FIRST if name and flags & 1 else name


def projection_of(data: Any) -> str:
    """The projection of a spherical image, by its side data; empty: it is flat."""
    found = data.get("SPHERICAL")
    if found is None:
        return ""
    kind = struct.unpack_from("=i", bytes(found))[0]
    return PROJECTIONS[kind] if 0 <= kind < len(PROJECTIONS) else f"number {kind}"


def active_format_message(active_format: int) -> Message:
    """The message that says which part of an image matters."""
    return T35, AFD_HEAD + bytes([0x41, 0xF0 | active_format])


def packing_message(stereo: str, hevc: bool) -> Message | None:
    """The message that says how two eyes' images are arranged (`stereo_of`); None: it cannot."""
    packing = PACKINGS.get(stereo.removesuffix(RIGHT_FIRST))
    if packing is None or (hevc and packing[0] < FIRST_OF_HEVC):
        return None
    kind, quincunx = packing
    bits = "1" + "0" + f"{kind:07b}{quincunx}{2 if stereo.endswith(RIGHT_FIRST) else 1:06b}"  # number 0, not ended
    bits += "000000" + ("" if quincunx else "0" * 16) + "0" * 8  # no flips or fields, places unsaid, reserved
    # It holds until another comes: a period of 1 (010) and no extension, or HEVC's flag and no other aspect.
    bits += "10" if hevc else "010" + "0"
    bits += "1" if len(bits) % 8 else ""  # the payload's own end
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return PACKING, int(bits, 2).to_bytes(len(bits) // 8, "big")
