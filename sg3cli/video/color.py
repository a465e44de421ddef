"""What the numbers of a video mean as colours: matrix, range, primaries and transfer (ITU-T H.273 code points).

Images inside sg3 are RGB, 8 bits, full range. A file stores Y'CbCr in one of several ways and says which in four
tags; half of the files say nothing. Reading follows the tags and guesses what is missing the way players do; writing
converts as the tags that it writes say: a file that is only tagged shows pure red as (255, 23, 0).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

UNSPECIFIED = 2  # of matrix, primaries and transfer
RGB, BT709, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 0, 1, 4, 5, 6, 7, 9  # matrix
PQ, HLG = 16, 18  # transfer: SMPTE ST 2084, ARIB STD-B67
# What H.273 defines for Y'CbCr and encoders take.
KNOWN_MATRICES = (1, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14)
KNOWN_PRIMARIES = (1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22)
KNOWN_TRANSFERS = (1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)
RGB_FORMATS = ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "x2rgb", "x2bgr")
LIMITED, FULL = 1, 2  # range; 0 is unspecified

MATRICES = {0: "rgb", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc"}
# Matrices that are no weights of R, G and B in gamma-coded light: not converted, and not to be taken for others.
UNHANDLED = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "Y'D'zD'x (SMPTE 2085)",
    12: "of its primaries",
    13: "of its primaries with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}
RANGES = {0: "unspecified", 1: "limited", 2: "full"}

# H.273 table 4: Kr and Kb of R'G'B' -> Y'CbCr.
KR_KB = {
    BT709: (0.2126, 0.0722),
    FCC: (0.30, 0.11),
    BT470BG: (0.299, 0.114),
    SMPTE170M: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}


@dataclass(frozen=True)
class ColorTags:
    """The four colour tags of a stream, as H.273 numbers; the default is a stream that says nothing."""

    matrix: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    range: int = 0

    @property
    def hdr(self) -> bool:
        """PQ or HLG: values that are no display-referred R'G'B' of a usual screen."""
        return self.transfer in (PQ, HLG)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, and the names of those two that decide how pixels are converted."""
        names = {"matrix_name": MATRICES.get(self.matrix, "unspecified"), "range_name": RANGES.get(self.range, "?")}
        return asdict(self) | names


BT709_LIMITED = ColorTags(matrix=BT709, primaries=BT709, transfer=BT709, range=LIMITED)
RGB_FULL = ColorTags(matrix=RGB, primaries=BT709, transfer=BT709, range=FULL)


def resolve(tags: ColorTags, width: int, height: int, pix_fmt: str = "") -> ColorTags:
    """Fill in what a stream does not say: BT.601 up to standard definition, BT.709 above; limited range.

    `yuvj*` formats are full range by name. A matrix that H.273 does not define is treated as unspecified. RGB
    stays RGB. Those that have no Kr/Kb form (`UNHANDLED`) are for the caller to refuse.
    """
    if pix_fmt.startswith(RGB_FORMATS):
        return ColorTags(RGB, BT709, BT709, FULL)
    matrix = tags.matrix
    if matrix not in KR_KB and (matrix != RGB or pix_fmt.startswith("yuv")):
        matrix = BT709 if width >= 1280 or height > 576 else SMPTE170M
    full = tags.range or (FULL if pix_fmt.startswith("yuvj") or matrix == RGB else LIMITED)
    primaries = matrix if tags.primaries == UNSPECIFIED else tags.primaries
    usual = BT709 if matrix == BT2020 else matrix  # the numbers are the same up to 7; 9 is another transfer
    transfer = usual if tags.transfer == UNSPECIFIED else tags.transfer
    return ColorTags(matrix, primaries, transfer, full)


def rgb_to_ycbcr(rgb: np.ndarray, tags: ColorTags = BT709_LIMITED, bits: int = 8) -> np.ndarray:
    """R'G'B' `[..., 3]` in 0..255 -> Y'CbCr `[..., 3]` code values (float, unrounded) of `bits` (H.273 8.3)."""
    kr, kb = KR_KB[tags.matrix]
    r, g, b = np.moveaxis(np.asarray(rgb, np.float64) / 255, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    scale, offset = _quantisation(tags.range, bits)
    return np.stack([y, cb, cr], -1) * scale + offset


def ycbcr_to_rgb(ycbcr: np.ndarray, tags: ColorTags = BT709_LIMITED, bits: int = 8) -> np.ndarray:
    """Y'CbCr `[..., 3]` code values of `bits` -> R'G'B' `[..., 3]` in 0..255 (float, clipped)."""
    kr, kb = KR_KB[tags.matrix]
    scale, offset = _quantisation(tags.range, bits)
    y, cb, cr = np.moveaxis((np.asarray(ycbcr, np.float64) - offset) / scale, -1, 0)
    r, b = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    g = (y - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.stack([r, g, b], -1) * 255, 0, 255)


def _quantisation(color_range: int, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of (Y', Cb, Cr) code values: 219/224 steps in limited range, all of them in full."""
    unit = 2 ** (bits - 8)
    if color_range == FULL:
        peak = 2**bits - 1
        return np.array([peak, peak, peak]), np.array([0, 128, 128]) * unit
    return np.array([219, 224, 224]) * unit, np.array([16, 128, 128]) * unit
