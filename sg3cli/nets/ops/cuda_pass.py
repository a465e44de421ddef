"""One launch of kernels/filtered_lrelu.cu: what it is compiled for, what it is told, how large its tiles are."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import astuple, dataclass, fields

import torch

from sg3cli.nets.ops import build, nvrtc

SOURCE = build.FOLDER / "filtered_lrelu.cu"
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
ACTIVATE, MARK, DIFFERENTIATE = range(3)
THREADS = 256
TILES = (32, 24, 16, 12, 8, 4)
SHARED_BYTES = 48 << 10  # what a block may have without asking


class Problem(ctypes.Structure):
    """Mirror of `Problem` in kernels/filtered_lrelu.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("source", "target", "bias", "mask", "up_filter", "down_filter")),
        *((name, ctypes.c_int) for name in ("channels", "in_h", "in_w", "grid_h", "grid_w", "out_h", "out_w")),
        *((name, ctypes.c_int) for name in ("up_offset_x", "up_offset_y", "down_offset_x", "down_offset_y")),
        *((name, ctypes.c_int) for name in ("tiles_x", "tiles_y")),
        *((name, ctypes.c_float) for name in ("scale", "slope", "clamp")),
    )


@dataclass(frozen=True)
class Pass:
    """What a kernel is compiled for: the macros of kernels/filtered_lrelu.cu, where they are explained."""

    up: int
    down: int
    up_taps: int
    down_taps: int
    up_full: bool
    down_full: bool
    up_reversed: bool
    down_reversed: bool
    phase_x: int
    phase_y: int
    mode: int
    type: int

    @functools.cached_property
    def tile(self) -> int:
        """Side of the largest tile whose buffers a block may have."""
        return next((tile for tile in TILES if self._shared_bytes(tile) <= SHARED_BYTES), TILES[-1])

    def _shared_bytes(self, tile: int) -> int:
        """As the source computes it, whose assertion has the last word."""
        taps = -(-self.up_taps // self.up)
        grid = self.down * (tile - 1) + self.down_taps
        row = self.down * -(-grid // self.down)
        high = (-(-grid // 8) - 1) * 8 // self.up + (self.phase_y + 7) // self.up + taps
        patch = high * ((self.phase_x + grid - 1) // self.up + taps)
        first = max(grid * row, 0 if self.up_full else patch)
        second = max(patch if self.up_full else high * row, 0 if self.down_full else tile * row)
        filters = (self.up * taps) ** (1 + self.up_full) + self.down_taps ** (1 + self.down_full)
        return 4 * (first + second + filters)

    def macros(self) -> dict[str, str]:
        """Names and values of all macros."""
        values = {f.name.upper(): str(int(v)) for f, v in zip(fields(self), astuple(self), strict=True)}
        tile = str(self.tile)
        return values | {"TILE_H": tile, "TILE_W": tile, "THREADS": str(THREADS), "KERNEL": "filtered_lrelu"}


@functools.cache
def _compiled(work: Pass, device: int) -> nvrtc.Kernel:
    options = [f"-D{name}={value}" for name, value in work.macros().items()]
    code = nvrtc.compile_cubin(SOURCE.read_text(), options, torch.cuda.get_device_capability(device))
    return nvrtc.Kernel(code, "filtered_lrelu", device)


def launch(work: Pass, problem: Problem, planes: int, device: torch.device) -> None:
    """Run a pass on the stream that is current on its device."""
    kernel = _compiled(work, torch.cuda.current_device() if device.index is None else device.index)
    blocks = planes * problem.tiles_x * problem.tiles_y
    kernel.launch(blocks, THREADS, problem, torch.cuda.current_stream(device).cuda_stream)
