"""Colour profiles (ICC) of images -> sRGB: those that are three curves and a matrix, as of cameras and screens.

What sg3 writes carries no profile and is taken for sRGB, so that the numbers of another profile would show other
colours.
"""

from __future__ import annotations

import struct
from functools import cached_property, lru_cache

import numpy as np

LEVELS = 1 << 12  # of the table that encodes light
# Linear sRGB -> XYZ of the profile connection space (D50), IEC 61966-2-1 with Bradford adaptation.
SRGB_TO_PCS = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]], np.float32
)
STEPS = np.arange(0, 256, 15).astype(np.uint8)
PROBES = np.stack(np.meshgrid(STEPS, STEPS, STEPS, indexing="ij"), -1).reshape(-1, 1, 3)
SAME = 2  # levels by which profiles that all mean sRGB differ
CURVE_LENGTHS = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}  # numbers of a parametric curve, by its type


class ColorProfile:
    """A profile's bytes. `name` is its own description; `matrix` is None when it is of another kind."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._tags = self._directory()
        self.name = self._description() or "without a name"
        self.matrix, self.curves = self._matrix(), self._curves()

    @property
    def convertible(self) -> bool:
        """Whether it is three curves and a matrix for R, G, B."""
        return self.matrix is not None and self.curves is not None

    @cached_property
    def is_srgb(self) -> bool:
        """Whether its numbers are those of sRGB."""
        return self.convertible and int(np.abs(self.to_srgb(PROBES).astype(int) - PROBES).max()) <= SAME

    def to_srgb(self, rgb: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` uint8 in this profile -> the same in sRGB; colours that sRGB does not have are clipped."""
        assert self.matrix is not None and self.curves is not None
        result = np.empty_like(rgb)
        for start in range(0, len(rgb), 64):  # bounded memory
            light = np.stack([self.curves[k][rgb[start : start + 64, :, k]] for k in range(3)], -1) @ self.matrix.T
            result[start : start + 64] = _encoded()[np.rint(np.sqrt(light.clip(0, 1)) * (LEVELS - 1)).astype(np.uint16)]
        return result

    def _directory(self) -> dict[bytes, bytes]:
        if self._data[36:40] != b"acsp" or self._data[16:20] != b"RGB " or self._data[20:24] != b"XYZ ":
            return {}
        count = min(int.from_bytes(self._data[128:132], "big"), 100)
        rows = [
            struct.unpack_from(">4sII", self._data.ljust(132 + 12 * count, b"\0"), 132 + 12 * k) for k in range(count)
        ]
        return {name: self._data[at : at + size] for name, at, size in rows}

    def _description(self) -> str:
        data = self._tags.get(b"desc", b"")
        if data[:4] == b"desc":
            return data[12 : 12 + int.from_bytes(data[8:12], "big")].split(b"\0")[0].decode("latin1")[:60]
        if data[:4] == b"mluc" and len(data) >= 28:
            length, at = struct.unpack_from(">II", data, 20)
            return data[at : at + length].decode("utf-16-be", "replace").strip("\0")[:60]
        return ""

    def _matrix(self) -> np.ndarray | None:
        """`[3, 3]`: linear RGB of the profile -> linear sRGB."""
        if any(name in self._tags for name in (b"A2B0", b"A2B1")):  # a table, which says more than the matrix does
            return None
        columns = [self._tags.get(name, b"") for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        if any(len(column) < 20 for column in columns):
            return None
        to_pcs = np.array([struct.unpack_from(">3i", column, 8) for column in columns], np.float32).T / 65536
        return np.linalg.inv(SRGB_TO_PCS) @ to_pcs

    def _curves(self) -> list[np.ndarray] | None:
        """Three times `[256]`: level -> light."""
        found = [_curve(self._tags.get(name, b"")) for name in (b"rTRC", b"gTRC", b"bTRC")]
        curves = [curve.astype(np.float32) for curve in found if curve is not None]
        return curves if len(curves) == 3 else None


def _curve(data: bytes) -> np.ndarray | None:
    """Level 0..255 -> light, of a tag of type `curv` or `para` (ICC.1:2010, 10.5 and 10.15)."""
    x = np.arange(256) / 255
    if data[:4] == b"curv" and len(data) >= 12:
        count = int.from_bytes(data[8:12], "big")
        values = np.frombuffer(data, ">u2", min(count, (len(data) - 12) // 2), 12)
        if len(values) < count:
            return None
        if count < 2:
            return x ** (values[0] / 256) if count else x
        return np.interp(x, np.linspace(0, 1, count), values / 65535)
    kind = int.from_bytes(data[8:10], "big") if data[:4] == b"para" else -1
    if kind not in CURVE_LENGTHS or len(data) < 12 + 4 * CURVE_LENGTHS[kind]:
        return None
    g, a, b, c, d, e, f = (*np.frombuffer(data, ">i4", CURVE_LENGTHS[kind], 12) / 65536, *[0.0] * 7)[:7]
    if kind == 0:
        return x**g
    if kind in (1, 2):  # below -b/a a constant: 0, or what type 2 calls c
        return np.where(x >= -b / (a or 1), np.maximum(a * x + b, 0) ** g, 0) + (c if kind == 2 else 0)
    return np.where(x >= d, np.maximum(a * x + b, 0) ** g + (e if kind == 4 else 0), c * x + f)


@lru_cache(1)
def _encoded() -> np.ndarray:
    """`[LEVELS]` uint8: square root of light 0..1 -> level of sRGB."""
    light = (np.arange(LEVELS) / (LEVELS - 1)) ** 2
    return np.rint(255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)).astype(
        np.uint8
    )
