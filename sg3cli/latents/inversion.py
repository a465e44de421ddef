"""From face crops to codes: the ReStyle loop (Alaluf et al. 2021), optional refinement, smoothing over time.

The encoder only ever sees aligned faces, crops and feedback alike; where the face is in the frame is left
to the transforms (Alaluf et al. 2022, section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sg3cli.errors import InputError
from sg3cli.nets.restyle import average_image, restyle_codes
from sg3cli.settings import InvertConfig, smoothing_sigma
from sg3cli.smoothing import smooth_paper, smooth_zero_phase

if TYPE_CHECKING:
    from sg3cli.metrics.perceptual import PerceptualLoss
    from sg3cli.nets.encoder import Encoder
    from sg3cli.nets.generator import Generator


FINE_SHARE = 9 / 16  # rows 9 to 15 of 16 hold colour and texture, which should not change within a shot


def invert(
    crops: Iterable[np.ndarray | None],
    G: Generator,
    encoder: Encoder,
    config: InvertConfig,
    refine_steps: int = 0,
    perceptual: PerceptualLoss | None = None,
) -> Iterator[np.ndarray]:
    """Yield a code `[num_ws, w_dim]` float32 for each aligned crop `[S, S, 3]` in [-1, 1].

    A frame without a face (None) is not shown to the encoder and gets w_avg; see `fill_absent`. The crops are
    taken in batches of `config.batch` from the first: a run resumed at a multiple of it gives the same bytes.
    """
    device = next(G.parameters()).device
    average = average_image(G, encoder.config.input_size)
    placeholder = G.mapping.w_avg.detach().cpu().float().expand(G.num_ws, -1).numpy()
    for batch in _batches(crops, config.batch):
        faces = [crop for crop in batch if crop is not None]
        codes: Iterator[np.ndarray] = iter(())
        if faces:
            x = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).contiguous().to(device)
            with torch.inference_mode():
                ws = restyle_codes(encoder, G, x, steps=config.steps, avg_image=average)
            if refine_steps:
                ws = refine(G, ws, x, refine_steps, perceptual)
            codes = iter(ws.float().cpu().numpy())
        for crop in batch:
            yield placeholder.copy() if crop is None else next(codes)


def _batches(crops: Iterable[np.ndarray | None], size: int) -> Iterator[list[np.ndarray | None]]:
    batch: list[np.ndarray | None] = []
    for crop in crops:
        batch.append(crop)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def refine(
    G: Generator,
    ws: Tensor,
    x: Tensor,
    steps: int,
    perceptual: PerceptualLoss | None = None,
    lr: float = 0.01,
) -> Tensor:
    """Improve codes `ws [N, num_ws, w_dim]` for the aligned images `x [N, 3, S, S]` by `steps` of Adam.

    Each code is moved on its own (Adam works element by element and the loss is a sum over images); the
    generator stays as it is. Returns the codes, detached.
    """
    target = torch.nn.functional.interpolate(x, size=G.img_resolution, mode="area")
    upright = torch.eye(3, device=ws.device)
    ws = ws.detach().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([ws], lr=lr)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, 2 * (1 - step / steps))
        image = G.synthesis(ws, transform=upright)
        loss = (image - target).square().mean(dim=(1, 2, 3))
        if perceptual is not None:
            loss = loss + perceptual(image, target)
        (ws.grad,) = torch.autograd.grad(loss.sum(), [ws])
        optimizer.step()
    return ws.detach()


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


def smooth_codes(ws: np.ndarray, times: np.ndarray, shots: np.ndarray, mode: str) -> np.ndarray:
    """Smooth codes `ws [T, num_ws, w_dim]` over time within each shot; as many come out as go in.

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
        result[frames] = _paper_smooth(part) if mode == "paper" else smooth_zero_phase(part, times[frames], sigma)
    return result


def _paper_smooth(ws: np.ndarray) -> np.ndarray:
    """Fine layers averaged, then the 5-tap kernel, over one shot `[T, num_ws, w_dim]`."""
    ws = ws.copy()
    fine = round(FINE_SHARE * ws.shape[1])
    ws[:, fine:] = ws[:, fine:].mean(axis=0)
    return smooth_paper(ws)
