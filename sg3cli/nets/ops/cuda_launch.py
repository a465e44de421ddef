"""One launch of kernels/filtered_lrelu.cu: what it is compiled for, what it is told, how large its tiles are."""

from __future__ import annotations

import ctypes
import functools
from dataclasses import astuple, dataclass, fields

import torch
from torch import Tensor

from sg3cli.nets.ops import build, nvrtc
from sg3cli.nets.ops.lrelu_spec import LreluSpec

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
        count: int = 4 * (first + second + filters)
        return count

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


def run_forward(
    x: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    b: Tensor | None,
    up: int,
    down: int,
    pad: list[int],
    gain: float,
    slope: float,
    clamp: float | None,
    flip: bool,
    sign_mask: bool,
) -> tuple[Tensor, Tensor]:
    """Output [N, C, H', W'] and mask [N C, rows / 4, columns] of the up-sampled grid, uint8 (if `sign_mask`)."""
    case = LreluSpec.of(fu, fd, up, down, pad, gain, slope, clamp, flip)
    (n, c, h, w), taps = x.shape, case.taps
    grid_h, grid_w, out_h, out_w = case.sizes(h, w)
    offset = taps[0] - 1 - pad[0], taps[0] - 1 - pad[2]
    y = x.new_empty([n, c, out_h, out_w])
    mask = x.new_empty([n * c, -(-grid_h // 4), grid_w] if sign_mask else [0], dtype=torch.uint8)
    phases, mode = (offset[0] % up, offset[1] % up), MARK if sign_mask else ACTIVATE
    work = Pass(up, down, *taps, False, case.full, flip, not flip, *phases, mode, TYPES[x.dtype])
    problem = Problem(channels=c, grid_h=grid_h, grid_w=grid_w, up_offset_x=offset[0], up_offset_y=offset[1])
    problem.scale, problem.slope, problem.clamp = gain * up**2, slope, float("inf") if clamp is None else clamp
    _run(work, problem, x, y, mask, fu, fd, b)
    return y, mask


def run_backward(
    dy: Tensor,
    mask: Tensor,
    fu: Tensor | None,
    fd: Tensor | None,
    h: int,
    w: int,
    up: int,
    down: int,
    pad: list[int],
    gain: float,
    slope: float,
    flip: bool,
) -> Tensor:
    """Gradient of the input [N, C, H, W]: the same kernel with the filters' roles exchanged."""
    case = LreluSpec.of(fu, fd, up, down, pad, gain, slope, None, flip)
    (n, c, _, _), taps = dy.shape, case.taps
    grid_h, grid_w, _, _ = case.sizes(h, w)
    offset = pad[0] + 1 - taps[0], pad[2] + 1 - taps[0]
    dx = dy.new_empty([n, c, h, w])
    phases = offset[0] % down, offset[1] % down
    work = Pass(down, up, *taps[::-1], case.full, False, not flip, flip, *phases, DIFFERENTIATE, TYPES[dy.dtype])
    problem = Problem(channels=c, grid_h=grid_h, grid_w=grid_w, down_offset_x=offset[0], down_offset_y=offset[1])
    problem.scale, problem.slope = gain * up**2, slope
    _run(work, problem, dy, dx, mask, fd, fu, None)
    return dx


def _run(
    work: Pass,
    problem: Problem,
    source: Tensor,
    target: Tensor,
    mask: Tensor,
    up_filter: Tensor | None,
    down_filter: Tensor | None,
    b: Tensor | None,
) -> None:
    """Complete the description of a pass [N, C, H, W] -> [N, C, H', W'] with its tensors and run it."""
    device = source.device
    source = source.contiguous()
    floats = [None if f is None else f.to(device, torch.float32).contiguous() for f in (b, up_filter, down_filter)]
    problem.source, problem.target, problem.mask = source.data_ptr(), target.data_ptr(), mask.data_ptr()
    problem.bias, problem.up_filter, problem.down_filter = (None if f is None else f.data_ptr() for f in floats)
    problem.in_h, problem.in_w = source.shape[2:]
    problem.out_h, problem.out_w = target.shape[2:]
    problem.tiles_x, problem.tiles_y = -(-problem.out_w // work.tile), -(-problem.out_h // work.tile)
    launch(work, problem, source.shape[0] * source.shape[1], device)
