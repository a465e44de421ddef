"""One correction for all codes of a person: what the encoder misses of somebody, it misses in every frame.

    min_d  mean over frames of  l2 |G(ws_t + d) - x_t|^2 + perceptual LP(G(ws_t + d), x_t)  + keep |d|^2

A few frames of the clip are enough to find d `[1, num_ws, w_dim]`; added to all codes it makes the person more alike
and leaves the motion to the encoder, so nothing flickers. Pivotal tuning begins nearer to its end, and an edit goes on
from a code at which its direction still means what it did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sg3cli.latents.refinement import RAMP_DOWN, RefineConfig, Refiner
from sg3cli.metrics.perceptual import PerceptualLoss
from sg3cli.nets.generator import Generator
from sg3cli.nets.memory import free_bytes, layers_to_recompute
from sg3cli.nets.ops.allocator import large_blocks_go_back

FRAMES = 8  # that stand for a clip
AT_ONCE = 2  # of them in a step: frames of one person differ little
KEEP = 0.02


class Likeness:
    """Finds the correction of codes `ws [K, num_ws, w_dim]` whose aligned images are `x [K, S, S, 3]` in [-1, 1].

    `run()` yields the number of steps done; `correction()` is what they have found, or nothing where it brings nothing.
    Frames follow from the step: restored from its state it goes on bit for bit.
    """

    def __init__(
        self, G: Generator, perceptual: PerceptualLoss | None, ws: np.ndarray, x: np.ndarray, steps: int
    ) -> None:
        self.refiner = Refiner(G, RefineConfig(steps, keep=KEEP, batch=AT_ONCE), perceptual)
        self.G, self.steps, self.step = G, steps, 0
        self.ws, self.target = self.refiner.tensors(ws, x)
        self.described = None if perceptual is None else perceptual.describe(self.target)
        self.d = torch.zeros(1, *self.refiner.unit.shape, device=self.refiner.device, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.d], lr=self.refiner.config.lr)

    def run(self) -> Iterator[int]:
        """Optimise until all steps are done; what was done before `restore` is not done again."""
        allocator = large_blocks_go_back if self.ws.device.type == "cpu" else contextlib.nullcontext
        part = min(self.refiner.part, AT_ONCE)
        self.G.synthesis.checkpoint_layers = layers_to_recompute(self.G.config, part, free_bytes(self.ws.device))
        try:
            while self.step < self.steps:
                with allocator():
                    self._advance(part)
                yield self.step
        finally:
            self.G.synthesis.checkpoint_layers = False

    def _advance(self, part: int) -> None:
        config, count = self.refiner.config, min(AT_ONCE, len(self.ws))
        rows = [(self.step * count + k) % len(self.ws) for k in range(count)]
        self.optimizer.param_groups[0]["lr"] = config.lr * min(1.0, (1 - self.step / self.steps) / RAMP_DOWN)
        self.optimizer.zero_grad(set_to_none=True)
        (config.keep * self.d.square().mean()).backward()  # type: ignore[no-untyped-call]
        for first in range(0, count, part):
            losses = self._losses(rows[first : first + part], self.d)
            (losses.sum() / count).backward()  # type: ignore[no-untyped-call]
        if self.d.grad is not None and torch.isfinite(self.d.grad).all():
            self.optimizer.step()
        self.step += 1

    def _losses(self, rows: list[int], d: Tensor) -> Tensor:
        """[n] losses of the frames `rows`."""
        described = None if self.described is None else [maps[rows] for maps in self.described]
        arguments = self.refiner.corrected(self.ws[rows], d.expand(len(rows), -1, -1))
        return self.refiner.losses(arguments, self.target[rows], described)

    @torch.no_grad()
    def correction(self) -> tuple[np.ndarray, np.ndarray]:
        """What is added to every code `[num_ws, w_dim]`, and the losses `[K, 2]` without it and with it."""
        none = torch.zeros_like(self.d)
        both = torch.stack(
            [torch.cat([self._losses([k], d) for k in range(len(self.ws))]) for d in (none, self.d.detach())], 1
        )
        found = self.d.detach()
        if not bool(both[:, 1].mean() < both[:, 0].mean()):
            found, both = none, both[:, :1].expand(-1, 2)
        return (found[0] * self.refiner.unit).cpu().numpy(), both.double().cpu().numpy()

    def state(self) -> dict[str, np.ndarray]:
        """Everything a later `restore` needs."""
        kept = {"step": np.array(self.step), "d": self.d.detach().cpu().numpy().copy()}
        moments = self.optimizer.state.get(self.d, {})
        return kept | {
            name: moments[name].cpu().numpy().copy() for name in ("exp_avg", "exp_avg_sq") if name in moments
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go back to a `state()` of one that was made with the same arguments."""
        self.step = int(state["step"])
        device = self.ws.device
        with torch.no_grad():
            self.d.copy_(torch.from_numpy(state["d"]).to(device))
        self.optimizer.state.clear()
        if "exp_avg" in state:
            self.optimizer.state[self.d] = {
                "step": torch.tensor(float(self.step)),
                **{name: torch.from_numpy(state[name]).to(device) for name in ("exp_avg", "exp_avg_sq")},
            }
