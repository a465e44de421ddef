"""Pivotal tuning (Roich et al. 2021): teach the generator this person, at the codes that will be rendered.

The pivots are the smoothed codes, the targets the unaligned crops seen through the windows, each rendered
with its frame's transform. Trained is the synthesis network except its Fourier features, so that where things
are stays with the codes and transforms. Everything random is a function of the step: a tuner restored from
its state goes on bit for bit.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sg3cli.errors import DeviceError, InputError, ModelError, UsageError
from sg3cli.latents.codes import Codes, as_codes
from sg3cli.latents.edit_keeping import EditKeeper
from sg3cli.latents.inversion import spread
from sg3cli.levels import tensor_to_signed, to_uint8
from sg3cli.metrics.perceptual import PerceptualLoss
from sg3cli.nets.generator import Generator
from sg3cli.nets.memory import free_bytes, images_at_once, layers_to_recompute
from sg3cli.nets.ops.allocator import large_blocks_go_back
from sg3cli.settings import FinetuneConfig

FROZEN = "input."  # synthesis.input.weight and .affine.*: the Fourier features
TARGET_BYTES = 1 << 30  # how much memory the targets may take
DESCRIBED_BYTES = 1 << 28  # ... and what the perceptual loss keeps of them
WARM_UP, RAMP_DOWN = 0.05, 0.3  # shares of the steps in which the learning rate rises and falls
LOSS_MEMORY = 0.95  # of the smoothed loss that tells a plateau
IMPROVEMENT = 0.002  # smallest relative fall of the smoothed loss that counts


@dataclass(frozen=True)
class Targets:
    """What the generator is tuned towards: `images [K, N, N, 3]` uint8 of the frames `frames [K]`."""

    images: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True)
class TuneStep:
    """One line of the log: `step` steps are done, the last one met these losses."""

    step: int
    loss: float
    l2: float
    perceptual: float


def select_targets(present: np.ndarray, size: int, limit: int = TARGET_BYTES) -> np.ndarray:
    """Indices `[K]` of the frames to tune on: all with a face (`present [T]`), or as many as `limit` allows.

    A subset is spread evenly over the clip. Raises InputError when no frame has a face.
    """
    frames = np.flatnonzero(present)
    if len(frames) == 0:
        raise InputError("no frame has a face to tune on", "give a clip in which a face is seen")
    return spread(frames, max(1, limit // (size * size * 3)))


def collect_targets(crops: Iterable[np.ndarray | None], frames: np.ndarray) -> Targets:
    """Keep those of `crops` (window crops `[N, N, 3]` in [-1, 1], one per frame) that `frames` names."""
    wanted = {int(frame): k for k, frame in enumerate(frames)}
    images: np.ndarray | None = None
    found = 0
    for index, crop in enumerate(crops):
        if crop is None or index not in wanted:
            continue
        if images is None:
            images = np.empty((len(frames), *crop.shape), dtype=np.uint8)
        images[wanted[index]] = to_uint8(crop)
        found += 1
    if images is None or found < len(frames):
        raise InputError(f"only {found} of {len(frames)} frames to tune on could be read", "check the source video")
    return Targets(images, np.asarray(frames))


class PivotalTuner:
    """Tunes a copy of `G` so that it renders `targets` at the codes of T frames and `transforms [T, 3, 3]`.

    `run()` yields a TuneStep per step until `config.steps` are done or the smoothed loss has not fallen for
    `config.patience` steps; `tuner.G` is then the tuned generator and `delta()` its difference.
    """

    def __init__(
        self,
        G: Generator,
        codes: Codes | np.ndarray,
        transforms: np.ndarray,
        targets: Targets,
        config: FinetuneConfig,
        perceptual: PerceptualLoss,
        directions: np.ndarray | None = None,
    ) -> None:
        """`directions [K, num_ws, w_dim]`: edits that should do after tuning what they did before (`config.keep`)."""
        codes = as_codes(codes)
        transforms = codes.placed(transforms)
        if not (np.isfinite(codes.ws).all() and np.isfinite(transforms).all()):
            raise InputError("the codes or transforms hold values that are not finite", "run `sg3 invert` again")
        self.config = config
        self.base = {name: p.detach().clone() for name, p in trained_parameters(G).items()}
        self.G = copy.deepcopy(G).requires_grad_(False)
        self.parameters = trained_parameters(self.G)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        device = next(G.parameters()).device
        self.perceptual = perceptual.to(device)
        self.ws = torch.from_numpy(np.asarray(codes.ws, dtype=np.float32)).to(device)
        self.shift = None if codes.shift is None else torch.from_numpy(codes.shift).to(device)
        self.transforms = torch.from_numpy(np.asarray(transforms, dtype=np.float32)).to(device)
        self.targets = targets
        self.keeper = EditKeeper(G, directions) if config.keep and directions is not None and len(directions) else None
        self.described = Described(self.perceptual, DESCRIBED_BYTES)
        self.optimizer = torch.optim.Adam(self.parameters.values(), lr=config.lr, betas=(0.9, 0.999))
        self.step = 0
        self.plateau = Plateau(config.patience)
        batch = min(config.batch, len(targets.frames))
        self.part = images_at_once(G.config, batch)
        self.G.synthesis.checkpoint_layers = layers_to_recompute(G.config, self.part, free_bytes(device))

    def run(self) -> Iterator[TuneStep]:
        """Tune until done; what was done before `restore` is not done again."""
        allocator = large_blocks_go_back if self.ws.device.type == "cpu" else contextlib.nullcontext
        while self.step < self.config.steps and not self.plateau.reached(self.step):
            try:
                with allocator():
                    done = self._advance()
                yield done
            except RuntimeError as e:
                if isinstance(e, torch.OutOfMemoryError) or "can't allocate memory" in str(e):  # GPU, CPU
                    raise DeviceError("not enough memory for tuning", "use a smaller batch (--finetune-batch 1)") from e
                raise

    def _advance(self) -> TuneStep:
        chosen = batch_indices(self.step, self.config.batch, len(self.targets.frames), self.config.seed)
        self.optimizer.param_groups[0]["lr"] = learning_rate(self.step, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        l2 = perceptual = 0.0
        for start in range(0, len(chosen), self.part):
            part = chosen[start : start + self.part]
            share = len(part) / len(chosen)
            terms = self._losses(part)
            loss = self.config.l2 * terms[0] + self.config.perceptual * terms[1]
            if not torch.isfinite(loss):
                hint = f"use a smaller learning rate than {self.config.lr:g}"
                raise UsageError(f"tuning diverged at step {self.step}: the loss is {loss.item()}", hint)
            torch.autograd.backward(share * loss)
            if self.keeper is not None:  # after the graph above is gone: two at once would take twice the memory
                kept = self._kept(self.keeper, self.targets.frames[part], terms[2])
                torch.autograd.backward(share * self.config.keep * kept)
            l2, perceptual = l2 + share * terms[0].item(), perceptual + share * terms[1].item()
        self.optimizer.step()
        self.step += 1
        total = self.config.l2 * l2 + self.config.perceptual * perceptual
        self.plateau.update(total, self.step)
        return TuneStep(self.step, total, l2, perceptual)

    def draw(self, frames: np.ndarray) -> Tensor:
        """Images `[B, 3, N, N]` of the codes `frames [B]` as the generator draws them now."""
        shift = None if self.shift is None else self.shift[frames]
        image: Tensor = self.G.synthesis(self.ws[frames], transform=self.transforms[frames], shift=shift)
        return image

    def _kept(self, keeper: EditKeeper, frames: np.ndarray, drawn: Tensor) -> Tensor:
        """[] how far an edit of `frames [B]` is from what it was before tuning; drawn `[B, 3, N, N]` are unedited."""
        shift = None if self.shift is None else self.shift[frames]
        seed = (self.config.seed, self.step)
        return keeper.loss(self.G, self.ws[frames], self.transforms[frames], shift, drawn, seed)

    def _losses(self, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Mean squared error and perceptual distance of the targets `chosen [B]`, and what was drawn."""
        frames = self.targets.frames[chosen]
        levels = torch.from_numpy(self.targets.images[chosen]).to(self.ws.device)
        target = tensor_to_signed(levels.permute(0, 3, 1, 2)).contiguous()
        image = self.draw(frames)
        distance = self.perceptual.compare(image, self.described.of(chosen, target))
        return (image - target).square().mean(), distance.mean(), image.detach()

    def state(self) -> dict[str, Tensor]:
        """Everything a later `restore` needs, as tensors: parameters, Adam's moments, step and plateau."""
        state = {"step": torch.tensor(self.step), "plateau": self.plateau.to_tensor()}
        for name, parameter in self.parameters.items():
            state[f"parameter:{name}"] = parameter.detach().clone()
            for moment in ("exp_avg", "exp_avg_sq"):
                if parameter in self.optimizer.state:
                    state[f"{moment}:{name}"] = self.optimizer.state[parameter][moment].clone()
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go back to a `state()` of a tuner that was made with the same arguments."""
        self.step = int(state["step"])
        self.plateau.from_tensor(state["plateau"])
        self.optimizer.state.clear()
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[f"parameter:{name}"])
                if f"exp_avg:{name}" in state:
                    self.optimizer.state[parameter] = {
                        "step": torch.tensor(float(self.step)),
                        "exp_avg": state[f"exp_avg:{name}"].to(parameter.device, copy=True),
                        "exp_avg_sq": state[f"exp_avg_sq:{name}"].to(parameter.device, copy=True),
                    }

    def delta(self) -> dict[str, Tensor]:
        """Tuned minus base, float32, by the generator's parameter names; see `apply_delta`."""
        return {name: (p.detach() - self.base[name]).cpu() for name, p in self.parameters.items()}


class Described:
    """What a perceptual loss needs of the targets, kept once it is computed as long as all takes at most `limit` bytes.

    Every target is described by itself: what is kept is what would be computed again, bit for bit.
    """

    def __init__(self, perceptual: PerceptualLoss, limit: int) -> None:
        self.perceptual = perceptual
        self.left = limit
        self.kept: dict[int, list[Tensor]] = {}

    def of(self, chosen: np.ndarray, target: Tensor) -> list[Tensor]:
        """Of the targets number `chosen [B]`, which are `target [B, 3, N, N]`, each `[B, ...]`."""
        each = [self._one(int(k), image[None]) for k, image in zip(chosen, target, strict=True)]
        return [torch.cat(maps) for maps in zip(*each, strict=True)]

    def _one(self, number: int, image: Tensor) -> list[Tensor]:
        if number in self.kept:
            return self.kept[number]
        maps = self.perceptual.describe(image)
        size = sum(y.numel() * y.element_size() for y in maps)
        if size <= self.left:
            self.kept[number] = maps
            self.left -= size
        return maps


def trained_parameters(G: Generator) -> dict[str, Tensor]:
    """The parameters pivotal tuning changes, by their names in the generator's state dict."""
    named = G.synthesis.named_parameters(prefix="synthesis")
    return {name: p for name, p in named if not name.startswith(f"synthesis.{FROZEN}")}


def apply_delta(G: Generator, delta: dict[str, Tensor]) -> None:
    """Add a tuning's `delta` to the generator in place. Raises ModelError when it belongs to another one."""
    parameters = trained_parameters(G)
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    if shapes != {name: tuple(d.shape) for name, d in delta.items()}:
        raise ModelError("the tuning does not belong to this generator", "run `sg3 finetune` again")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.add_(delta[name].to(parameter))


def batch_indices(step: int, batch: int, count: int, seed: int) -> np.ndarray:
    """Which of `count` targets step `step` is made on, `[min(batch, count)]`: epochs of seeded permutations.

    A function of its arguments alone. Every target is seen once before any is seen again.
    """
    batch = min(batch, count)
    places = np.arange(step * batch, (step + 1) * batch)
    orders = {e: np.random.default_rng([seed, e]).permutation(count) for e in np.unique(places // count)}
    return np.array([orders[place // count][place % count] for place in places])


def learning_rate(step: int, config: FinetuneConfig) -> float:
    """Linear warm-up, constant, cosine ramp-down to 0, as in StyleGAN's projector (Karras et al. 2020)."""
    done = (step + 0.5) / config.steps
    ramp = min(1.0, (1 - done) / RAMP_DOWN)
    return config.lr * min(1.0, done / WARM_UP) * (0.5 - 0.5 * float(np.cos(np.pi * ramp)))


class Plateau:
    """Tells when an exponentially smoothed loss has not fallen noticeably for `patience` steps."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.smoothed = float("inf")
        self.best = float("inf")
        self.best_step = 0

    def update(self, loss: float, step: int) -> None:
        """Take in the loss of the `step`-th step."""
        first = self.smoothed == float("inf")
        self.smoothed = loss if first else LOSS_MEMORY * self.smoothed + (1 - LOSS_MEMORY) * loss
        if self.smoothed < self.best * (1 - IMPROVEMENT):
            self.best, self.best_step = self.smoothed, step

    def reached(self, step: int) -> bool:
        return step - self.best_step >= self.patience

    def to_tensor(self) -> Tensor:
        """`[3]` float64: smoothed loss, best, step of the best."""
        return torch.tensor([self.smoothed, self.best, self.best_step], dtype=torch.float64)

    def from_tensor(self, values: Tensor) -> None:
        self.smoothed, self.best, best_step = (float(v) for v in values)
        self.best_step = int(best_step)
