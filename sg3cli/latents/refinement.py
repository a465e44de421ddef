"""Refinement of codes by optimisation: from what the encoder found, closer to the image (Alaluf et al. 2022).

    min_d  l2 |G(c + d) - x|^2 + perceptual LP(G(c + d), x) + keep |d|^2

d is measured in deviations of its space, so one step size suits W, W+ and StyleSpace; of the pose it is a shift, a turn
and a zoom of the whole image, which correct where the face was thought to lie. Frames that look alike share their way:
their leader is refined first, the others start from its correction and take half the steps. The best code that was met
is kept, so no frame gets worse. Nothing depends on other blocks of frames than a frame's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sg3cli.latents.codes import Codes
from sg3cli.latents.inversion import LIMIT, block_frames, blocks, find_leaders
from sg3cli.latents.spaces import statistics
from sg3cli.nets.memory import free_bytes, images_at_once, layers_to_recompute

if TYPE_CHECKING:
    from sg3cli.metrics.perceptual import PerceptualLoss
    from sg3cli.nets.generator import Generator

FOLLOW = 0.5  # share of the steps that a frame takes which starts from its leader's correction
RAMP_DOWN = 0.4  # share of the steps over which the step size falls to 0
POSE_UNITS = (0.02, 0.02, math.radians(2.0), 0.02)  # a deviation of the pose: widths right and down, turn, log of zoom


@dataclass(frozen=True)
class RefineConfig:
    """What is optimised, and how far."""

    steps: int  # of a leader
    space: str = "w+"  # w | w+ | s | pose
    l2: float = 1.0  # weight of the mean squared error
    perceptual: float = 1.0  # weight of the perceptual distance
    keep: float = 0.002  # weight of the mean square of the correction, in deviations
    lr: float = 0.05  # deviations a step of Adam moves at most
    batch: int = 8  # images at once, as far as memory allows


@dataclass(frozen=True)
class Refined:
    """Codes of n frames, and the loss (without `keep`) of each before and after, `[n]`."""

    codes: Codes
    before: np.ndarray
    after: np.ndarray


class Refiner:
    """Refines codes of a generator, which stays as it is; images are compared at its resolution."""

    def __init__(self, G: Generator, config: RefineConfig, perceptual: PerceptualLoss | None) -> None:
        self.G, self.config = G, config
        self.device = G.mapping.w_avg.device
        self.perceptual = None if perceptual is None else perceptual.to(self.device)
        self.part = images_at_once(G.config, config.batch)

    @cached_property
    def unit(self) -> Tensor:
        """One deviation of the space, in the shape of a correction of one frame."""
        if self.config.space == "pose":
            return torch.tensor(POSE_UNITS, device=self.device)
        found = torch.from_numpy(statistics(self.G, "s" if self.config.space == "s" else "w").std).float()
        if self.config.space == "s":
            found[: self.G.config.style_sizes["input"]] = 0  # where the image lies is the pose's
            return found.to(self.device)
        return found.mean().expand(1 if self.config.space == "w" else self.G.num_ws, self.G.w_dim).to(self.device)

    def corrected(self, ws: Tensor, d: Tensor) -> dict[str, Tensor]:
        """Arguments of the synthesis for codes `[n, num_ws, w_dim]` and corrections `d [n, ...]` in deviations."""
        upright = torch.eye(3, device=self.device)
        if self.config.space == "pose":
            return {"ws": ws, "transform": pose_matrices(d * self.unit)}
        if self.config.space == "s":
            return {"ws": ws, "transform": upright, "shift": d * self.unit}
        return {"ws": ws + d * self.unit, "transform": upright}

    def __call__(self, ws: np.ndarray, x: np.ndarray, leaders: np.ndarray) -> Refined:
        """Codes `ws [n, num_ws, w_dim]` for the aligned images `x [n, S, S, 3]` in [-1, 1].

        `leaders [n]`: see `find_leaders`; a frame that is its own starts from its code as it is.
        """
        codes, target = self.tensors(ws, x)
        d = torch.zeros(len(ws), *self.unit.shape, device=self.device)
        losses = np.zeros((2, len(ws)))
        leading = np.flatnonzero(leaders == np.arange(len(ws)))
        following = np.setdiff1d(np.arange(len(ws)), leading)
        for rows, share in ((leading, 1.0), (following, FOLLOW)):
            for part in np.array_split(rows, max(1, -(-len(rows) // self.part))):
                if len(part):
                    start = d[leaders[part]]  # 0 of a leader
                    steps = math.ceil(share * self.config.steps)
                    d[part], losses[:, part] = self.descend(codes[part], target[part], start, steps)
        with torch.no_grad():
            return Refined(self._codes(codes, d), *losses)

    def descend(self, ws: Tensor, target: Tensor, start: Tensor, steps: int) -> tuple[Tensor, np.ndarray]:
        """The best corrections met `[n, ...]`, and the losses `[2, n]` of none and of them."""
        self.G.synthesis.checkpoint_layers = layers_to_recompute(self.G.config, len(ws), free_bytes(self.device))
        described = None if self.perceptual is None else self.perceptual.describe(target)
        with torch.no_grad():
            none = torch.zeros_like(start)
            before = self.losses(self.corrected(ws, none), target, described)
        d = start.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([d], lr=self.config.lr)
        best, least, at = none.clone(), before.clone(), before.clone()  # with what `keep` adds, and without
        for step in range(steps + 1):
            optimizer.param_groups[0]["lr"] = self.config.lr * min(1.0, (1 - step / max(steps, 1)) / RAMP_DOWN)
            with torch.set_grad_enabled(step < steps):
                loss = self.losses(self.corrected(ws, d), target, described)
                total = loss + self.config.keep * d.square().flatten(1).mean(1)
            better = (total < least) & torch.isfinite(total)
            best[better], least[better], at[better] = d.detach()[better], total.detach()[better], loss.detach()[better]
            if step < steps:
                (d.grad,) = torch.autograd.grad(total.sum(), [d])
                optimizer.step()
        self.G.synthesis.checkpoint_layers = False
        return best, torch.stack([before, at]).double().cpu().numpy()

    def losses(self, arguments: dict[str, Tensor], target: Tensor, described: list[Tensor] | None) -> Tensor:
        """`[n]`: each image for itself, so that a frame's way does not depend on its company."""
        image = self.G.synthesis(**arguments)
        loss: Tensor = self.config.l2 * (image - target).square().mean(dim=(1, 2, 3))
        if self.perceptual is not None and described is not None:
            loss = loss + self.config.perceptual * self.perceptual.compare(image, described)
        return loss

    def tensors(self, ws: np.ndarray, x: np.ndarray) -> tuple[Tensor, Tensor]:
        """Codes as they are, and images `[n, 3, N, N]` at the generator's resolution."""
        codes = torch.from_numpy(np.asarray(ws, np.float32)).to(self.device)
        images = torch.from_numpy(np.asarray(x, np.float32)).permute(0, 3, 1, 2).contiguous().to(self.device)
        size = self.G.img_resolution
        mode = "area" if images.shape[-1] >= size else "bilinear"
        return codes, torch.nn.functional.interpolate(images, size=size, mode=mode)

    def _codes(self, ws: Tensor, d: Tensor) -> Codes:
        found = self.corrected(ws, d)
        shift = found["shift"].cpu().numpy() if "shift" in found else None
        pose = found["transform"].cpu().numpy() if self.config.space == "pose" else None
        return Codes(found["ws"].cpu().numpy(), shift, pose)


def pose_matrices(values: Tensor) -> Tensor:
    """`[n, 4]` (right, down, turn in radians, log of zoom) -> `[n, 3, 3]` on the side of the features."""
    right, down, turn, zoom = values.unbind(dim=1)
    a, b = (-zoom).exp() * turn.cos(), (-zoom).exp() * turn.sin()
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return torch.stack([a, -b, -right, b, a, -down, zero, zero, one], dim=1).view(-1, 3, 3)


def refined(
    frames: Iterable[tuple[np.ndarray | None, np.ndarray]], refiner: Refiner, first: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Yield for each (aligned crop or None, code) the parts of its codes, and `loss [2]`: before and after.

    `first` is the number of the first frame; blocks are those of `inversion.invert`, one in memory. A frame without a
    face keeps its code, and its loss is nan.
    """
    for start, block in blocks(frames, first, block_frames(refiner.G.img_resolution)):
        shown = np.array([i for i, (crop, _) in enumerate(block) if crop is not None], dtype=np.int64)
        found, rows = None, iter(range(len(shown)))
        if len(shown):
            crops = np.stack([crop for crop, _ in block if crop is not None])
            ws = np.stack([block[i][1] for i in shown])
            found = refiner(ws, crops, find_leaders(crops, start + shown, LIMIT))
        for crop, code in block:
            row = None if crop is None else next(rows)
            yield _parts(refiner, code, found, row)


def _parts(refiner: Refiner, code: np.ndarray, found: Refined | None, row: int | None) -> dict[str, np.ndarray]:
    """One frame's arrays; those of a frame that was not refined change nothing."""
    if row is None or found is None:
        parts = {"ws": code, "loss": np.full(2, np.nan)}
        if refiner.config.space == "s":
            parts["shift"] = np.zeros(len(refiner.unit), np.float32)
        if refiner.config.space == "pose":
            parts["pose"] = np.eye(3, dtype=np.float32)
        return parts
    one = found.codes[row : row + 1]
    kept = {"ws": one.ws[0]}
    if one.shift is not None:
        kept["shift"] = one.shift[0]
    if one.pose is not None:
        kept["pose"] = one.pose[0]
    return {**kept, "loss": np.array([found.before[row], found.after[row]])}
