"""From face crops to codes: the ReStyle loop (Alaluf et al. 2021), and smoothing over time.

The encoder only ever sees aligned faces, crops and feedback alike; where the face is in the frame is left
to the transforms (Alaluf et al. 2022, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from sg3cli.errors import InputError
from sg3cli.nets.restyle import STEPS, average_image, reconstruction, restyle_pass, restyle_steps
from sg3cli.settings import InvertConfig, smoothing_sigma
from sg3cli.smoothing import smooth_paper, smooth_zero_phase

if TYPE_CHECKING:
    from sg3cli.nets.encoder import Encoder
    from sg3cli.nets.generator import Generator


T = TypeVar("T")
GROUP = 8  # frames that may share the code from which their last pass starts, .3 s of most footage
LIMIT = 0.03  # root mean square difference of crops in [-1, 1] up to which the error grows by .5 % at most
BLOCK_PIXELS = 512  # a generator of so many pixels a side inverts one group at a time, one of 128 four
FINE_SHARE = 9 / 16  # rows 9 to 15 of 16 hold colour and texture, which should not change within a shot


def invert(
    crops: Iterable[np.ndarray | None],
    G: Generator,
    encoder: Encoder,
    config: InvertConfig,
    first: int = 0,
) -> Iterator[np.ndarray]:
    """Yield a code `[num_ws, w_dim]` float32 for each aligned crop `[S, S, 3]` in [-1, 1].

    A frame without a face (None) is not shown to the encoder and gets w_avg; see `fill_absent`. `first` is the number
    of the first crop's frame: crops are taken in blocks that end where the number is a multiple of `block_frames`,
    so a run resumed there gives the same bytes. `config.batch` images go through a network at once.
    """
    average = average_image(G, encoder.config.input_size)
    placeholder = G.mapping.w_avg.detach().cpu().float().expand(G.num_ws, -1).numpy()
    for start, block in blocks(crops, first, block_frames(G.img_resolution)):
        shown = np.array([i for i, crop in enumerate(block) if crop is not None], dtype=np.int64)
        codes: Iterator[np.ndarray] = iter(())
        if len(shown):
            faces = np.stack([crop for crop in block if crop is not None])
            leaders = find_leaders(faces, start + shown, LIMIT if config.start == "near" else -1.0)
            x = torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous().to(average.device)
            ws = invert_led(encoder, G, x, leaders, config, average)
            codes = iter(ws.float().cpu().numpy())
        for crop in block:
            yield placeholder.copy() if crop is None else next(codes)


def block_frames(resolution: int) -> int:
    """How many frames are inverted together, and are lost to a kill: fewer where the generator is large."""
    return GROUP * max(1, BLOCK_PIXELS // max(resolution, 128))


def blocks(frames: Iterable[T], first: int, size: int) -> Iterator[tuple[int, list[T]]]:
    """(number of its first frame, frames) of every block; all end at multiples of `size` but the last."""
    block: list[T] = []
    for number, frame in enumerate(frames, start=first):
        block.append(frame)
        if (number + 1) % size == 0:
            yield number + 1 - len(block), block
            block = []
    if block:
        yield number + 1 - len(block), block


def find_leaders(crops: np.ndarray, numbers: np.ndarray, limit: float) -> np.ndarray:
    """For each of `crops [n, S, S, 3]` the index `[n]` of the one from whose code its last pass starts.

    Only frames of one group, `numbers [n] // GROUP`, lead each other, and only where crops differ by at most `limit`
    (root mean square, in [-1, 1]). The frame nearest to a group's middle leads; one that differs too much from
    all leaders so far, after a cut say, leads itself and others. A limit below 0: every frame leads itself.
    """
    leaders = np.arange(len(crops))
    for group in np.unique(numbers // GROUP):
        members = np.flatnonzero(numbers // GROUP == group)
        from_middle = np.abs(numbers[members] - (group * GROUP + GROUP / 2 - 0.25))
        leading: list[int] = []
        for member in members[np.argsort(from_middle, kind="stable")]:
            differences = [_difference(crops[member], crops[leader]) for leader in leading]
            if differences and min(differences) <= limit:
                leaders[member] = leading[int(np.argmin(differences))]
            else:
                leading.append(int(member))
    return leaders


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(float(np.square(a - b).mean()))


def invert_led(
    encoder: Encoder, G: Generator, x: Tensor, leaders: np.ndarray, config: InvertConfig, average: Tensor
) -> Tensor:
    """Codes `[n, num_ws, w_dim]` of aligned images `x [n, 3, S, S]`: ReStyle, all passes but the last on leaders alone.

    The last pass corrects each frame from its leader's code (`leaders [n]`, see `find_leaders`), so that the
    generator, which takes most of the time, draws leaders only. `average` is `average_image(G, S)`.
    """
    steps = config.steps or STEPS
    leading, leader_of = np.unique(leaders, return_inverse=True)
    codes, images = [], []
    with torch.inference_mode():
        ws, current = G.mapping.w_avg.expand(1, G.num_ws, -1), average
        if steps > 1:
            for part in torch.split(x[torch.from_numpy(leading)], config.batch):
                *_, led = restyle_steps(encoder, G, part, steps - 1, average)
                codes.append(led)
                images.append(reconstruction(G, led, encoder.config.input_size))
            chosen = torch.from_numpy(leader_of)
            ws, current = torch.cat(codes)[chosen], torch.cat(images)[chosen]
        else:
            ws, current = (t.expand(len(x), *t.shape[1:]) for t in (ws, current))
        parts = zip(*(torch.split(t, config.batch) for t in (x, ws, current)), strict=True)
        return torch.cat([restyle_pass(encoder, *part) for part in parts])


def spread(frames: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `frames [K]`, evenly spread, the first and last among them."""
    if len(frames) == 0:
        return frames
    return frames[np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(np.int64))]


def fill_absent(ws: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Copy of `ws [T, ...]` in which each frame without a face has the code of the nearest one with.

    `present [T]` bool. Raises InputError when no frame has a face.
    """
    present = np.asarray(present, dtype=bool)
    if not present.any():
        raise InputError("no frame has a face", "give a clip in which a face is seen from the front")
    known = np.flatnonzero(present)
    frames = np.arange(len(ws))
    after = np.searchsorted(known, frames).clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    earlier = np.abs(frames - known[before]) <= np.abs(known[after] - frames)
    return ws[known[np.where(earlier, before, after)]]


def smooth_codes(
    ws: np.ndarray, times: np.ndarray, shots: np.ndarray, mode: str, fine: int | None = None
) -> np.ndarray:
    """Smooth codes `ws [T, num_ws, w_dim]` over time within each shot; as many come out as go in.

    `fine` is the first row that colours rather than shapes (None: `fine_row` of the codes).

    `mode`: "none"; "paper": fine layers averaged over the shot, then a 5-tap kernel over frames with
    reflected ends (Alaluf et al. 2022, section 6); "gauss:SECONDS": a zero-phase Gaussian. All are linear in
    `ws`. Raises UsageError for another mode.
    """
    sigma = smoothing_sigma(mode)
    if mode == "none":
        return ws.copy()
    result = np.empty_like(ws)
    for shot in np.unique(shots):
        frames = np.flatnonzero(shots == shot)
        part = ws[frames].astype(np.float64)
        smooth = _paper_smooth(part, fine) if mode == "paper" else smooth_zero_phase(part, times[frames], sigma)
        result[frames] = smooth
    return result


def fine_row(num_ws: int) -> int:
    """The first of the codes that hold colour and texture."""
    return round(FINE_SHARE * num_ws)


def _paper_smooth(ws: np.ndarray, fine: int | None) -> np.ndarray:
    """Fine layers averaged, then the 5-tap kernel, over one shot `[T, num_ws, w_dim]`."""
    ws = ws.copy()
    fine = fine_row(ws.shape[1]) if fine is None else fine
    ws[:, fine:] = ws[:, fine:].mean(axis=0)
    return smooth_paper(ws)
