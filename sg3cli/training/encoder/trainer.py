"""Training of ReStyle encoders for a frozen generator (Alaluf et al. 2021, arXiv:2104.02699), pSp's or e4e's.

    w_k = w_{k-1} + E(x, G(w_{k-1})),  w_0 = w_avg;   every pass k has its loss and is back-propagated by itself

The loss compares G(w_k) with x: pixels, a perceptual distance, identity if a network for it is given; e4e adds a
discriminator of codes and the length of the codes' offsets, which come in one after another. (The published ReStyle
code never runs these stages, and measures the offsets before the last stage only, which is never; e4e means both, and
here the offsets are measured to the end.)
Every random number comes from the seed, the step and the image's place in the batch: a run that was interrupted, or
shared by several processes, goes the way of an unbroken one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.errors import UsageError
from sg3cli.metrics.perceptual import PerceptualLoss
from sg3cli.nets.encoder import Encoder, EncoderConfig, StyleHead
from sg3cli.nets.generator import Generator
from sg3cli.nets.restyle import average_image, restyle_steps
from sg3cli.training.config import TrainEncoderConfig
from sg3cli.training.data.degradation import degrade
from sg3cli.training.data.synthface import Batches
from sg3cli.training.distributed import Group
from sg3cli.training.encoder.identity_loss import IdentityLoss
from sg3cli.training.encoder.latent_discriminator import LatentDiscriminator
from sg3cli.training.encoder.ranger import Ranger
from sg3cli.training.encoder.sync_batch_norm import gather, share_batch_norm

LOSS_SIZE = 256  # images are compared at this size at most


class Images(Protocol):
    """Training images of one size (`training.images` opens them)."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray, mirror: np.ndarray | None) -> Tensor:
        """[B, 3, R, R] in [-1, 1]; those where `mirror` [B] is true are flipped."""
        ...


def image_size(G: Generator, encoder: EncoderConfig) -> int:
    """Size at which the images are read: enough for the losses and for the encoder."""
    return max(min(G.img_resolution, LOSS_SIZE), encoder.input_size)


def new_encoder(config: EncoderConfig, seed: int) -> Encoder:
    """Random weights. The heads begin small: a first guess far from the mean code would have to be unlearned."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(config)
    for head in encoder.styles:
        assert isinstance(head, StyleHead)
        head.linear.weight.data.mul_(0.1)
    return encoder


def split(count: int, held_out: int) -> tuple[int, np.ndarray]:
    """(images to train on, rows of the others): the last `held_out`, a tenth at most, one at least."""
    if count < 2:
        raise UsageError(
            f"{count} pictures are too few to train on", "give at least two; thousands are needed in earnest"
        )
    kept = max(1, min(held_out, count // 10))
    return count - kept, np.arange(count - kept, count)


def with_stages(config: TrainEncoderConfig) -> TrainEncoderConfig:
    """The stages' steps spelt out: shares of the run, as the published 20000 and 2000 of 500000 are."""
    start = config.steps // 25 if config.stage_start is None else config.stage_start
    every = max(config.steps // 250, 1) if config.stage_every is None else config.stage_every
    return replace(config, stage_start=start, stage_every=every)


def tint(x: Tensor, rng: torch.Generator) -> Tensor:
    """x [3,R,R] under another light: contrast, brightness and colour cast."""
    contrast, brightness = torch.randn(2, generator=rng).tolist()
    cast = torch.randn(3, 1, 1, generator=rng)
    return (x * (1 + 0.15 * contrast) + 0.1 * brightness + 0.05 * cast).clamp(-1, 1)


class EncoderTrainer:
    """The loop: `for log in trainer.run(): ...`; `state()`/`restore()` continue exactly."""

    def __init__(
        self,
        G: Generator,
        encoder: Encoder,
        images: Images,
        config: TrainEncoderConfig,
        perceptual: PerceptualLoss,
        identity: IdentityLoss | None = None,
        group: Group | None = None,
    ) -> None:
        """`G` is frozen. Raises UsageError when the batch or the data do not fit."""
        self.group = group or Group()
        self.group.check_batch(config.batch)
        device = self.group.device
        self.G = G.to(device).eval().requires_grad_(False)
        self.encoder = encoder.to(device).train().requires_grad_(True)
        share_batch_norm(self.encoder, self.group)
        config = with_stages(config)
        self.images, self.config = images, config
        self.perceptual = perceptual.to(device)
        self.identity = identity.to(device) if identity else None
        self.optimiser = Ranger(self.encoder.parameters(), config.lr)
        self.discriminator = self._make_discriminator() if config.kind == "e4e" else None
        count, self.held_out = split(len(images), config.held_out)
        self.batches = Batches(count, config.batch, config.seed)
        self.loss_size = min(G.img_resolution, LOSS_SIZE)
        self.average = average_image(self.G, encoder.config.input_size)
        self.now = 0

    def _make_discriminator(self) -> LatentDiscriminator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed + 1)
            return LatentDiscriminator(self.G.w_dim, self.group.device, self.config.critic_lr)

    def run(self, until: int | None = None) -> Iterator[dict[str, Tensor]]:
        """Train to step `until`; yields the losses of every step, those of this process's share."""
        while self.now < (until or self.config.steps):
            log = self._train_step()
            self.now += 1
            yield log

    def _train_step(self) -> dict[str, Tensor]:
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.now)
        seen, target = self._images(rng)
        self.optimiser.zero_grad(set_to_none=True)
        codes, log = self.accumulate(seen, target)
        self.group.average_gradients(self.encoder.parameters())
        self.optimiser.step()
        if self.discriminator:
            fake = torch.cat([gather(self.group, ws) for ws in codes])
            log |= self.discriminator.step(self._real_codes(len(fake), rng), fake, rng)
        return log

    def accumulate(self, seen: Tensor, target: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Add the gradients of all passes; (codes [N,num_ws,w_dim] of each pass, losses of the last one).

        seen [N,3,*,*] is what the encoder looks at, target [N,3,*,*] what it should find. The image that one pass
        hands to the next carries no gradient, nor do the codes.
        """
        x, target = self._pool(seen), F.adaptive_avg_pool2d(target, self.loss_size)
        current = self.average.expand(len(x), -1, -1, -1)
        ws = self.G.mapping.w_avg.expand(len(x), self.G.num_ws, -1)
        codes, losses = [], dict[str, Tensor]()
        for k in range(self.config.passes):
            ws = ws.detach() + self.encoder(torch.cat([x, current], dim=1), self.stage(self.now))
            y = self.G.synthesis(ws, transform=torch.eye(3, device=ws.device))
            losses = self._losses(F.adaptive_avg_pool2d(y, self.loss_size), target, ws)
            losses["total"].backward()
            current = self._pool(y.detach())
            codes.append(ws.detach())
            if k == 0:
                first = losses["l2"].detach()
        return codes, {name: value.detach() for name, value in losses.items()} | {"l2_first": first}

    def stage(self, step: int) -> int | None:
        """How many codes have an offset of their own at `step`; None: all, as always with pSp."""
        start, every = self.config.stage_start, self.config.stage_every
        if self.config.kind != "e4e" or start is None or every is None:
            return None
        return 0 if step < start else min((step - start) // max(every, 1) + 1, self.G.num_ws - 1)

    def _pool(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.encoder.config.input_size)

    def _images(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """This process's share of a batch: (what the encoder sees, what it should find), both [n,3,R,R]."""
        mirror = (torch.rand(self.config.batch, generator=rng) < 0.5).numpy()
        rows = self.group.share(self.batches.rows(self.now))
        x = self.images.batch(rows, self.group.share(mirror))
        pairs = [
            self._augment(p, int(place)) for p, place in zip(x, self.group.share(np.arange(len(mirror))), strict=True)
        ]
        seen, target = (torch.stack(side).to(self.group.device) for side in zip(*pairs, strict=True))
        return seen, target

    def _augment(self, x: Tensor, place: int) -> tuple[Tensor, Tensor]:
        """x [3,R,R] -> (the same as a camera and a codec spoil it, clean); new colours are on both."""
        if not self.config.augment:
            return x, x
        state = np.random.SeedSequence((self.config.seed, self.now, place)).generate_state(2)
        rng = torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
        if torch.rand(1, generator=rng).item() < self.config.augment:
            x = tint(x, rng)
        return degrade(x[None], rng, self.config.augment)[0], x

    def _losses(self, y: Tensor, x: Tensor, ws: Tensor) -> dict[str, Tensor]:
        """Images y, x [N,3,S,S] drawn and wanted, codes ws [N,num_ws,w_dim]; `total` is their weighted sum."""
        c = self.config
        losses = {"l2": F.mse_loss(y, x), "perceptual": self.perceptual(y, x).mean()}
        weights = {"l2": c.l2, "perceptual": c.perceptual}
        if self.identity:
            losses["identity"], weights["identity"] = self.identity(y, x), c.identity
        if c.w_norm:
            losses["w_norm"] = (ws - self.G.mapping.w_avg).flatten(1).norm(dim=1).mean()
            weights["w_norm"] = c.w_norm
        if self.discriminator:
            losses["adversarial"], weights["adversarial"] = self.discriminator.adversarial(ws), c.adversarial
            losses["delta"], weights["delta"] = offsets(ws, self.stage(self.now)), c.delta
        losses["total"] = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return losses

    @torch.no_grad()
    def _real_codes(self, count: int, rng: torch.Generator) -> Tensor:
        """[count, w_dim] of the mapping, truncated."""
        z = torch.randn(count, self.G.config.z_dim, generator=rng).to(self.group.device)
        label = None
        if self.G.config.c_dim:
            classes = torch.randint(self.G.config.c_dim, (count,), generator=rng)
            label = F.one_hot(classes, self.G.config.c_dim).float().to(self.group.device)
        return self.G.mapping(z, label, psi=self.config.truncation)[:, 0]

    @torch.no_grad()
    def reconstruct(self, rows: np.ndarray) -> tuple[Tensor, list[Tensor]]:
        """Source images [n,3,S,S] and what each pass makes of them, with the encoder as it will be used."""
        x = self.images.batch(rows, None).to(self.group.device)
        self.encoder.eval()
        codes = restyle_steps(self.encoder, self.G, x, self.config.passes, self.average)
        drawn = [self.G.synthesis(ws, transform=torch.eye(3, device=ws.device)) for ws in codes]
        self.encoder.train()
        size = self.loss_size
        return F.adaptive_avg_pool2d(x, size), [F.adaptive_avg_pool2d(y, size) for y in drawn]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss, its parts and PSNR (dB) of the last pass, over the images that are held out."""
        sums: dict[str, float] = {}
        for start in range(0, len(self.held_out), self.config.batch):
            x, drawn = self.reconstruct(self.held_out[start : start + self.config.batch])
            y, n = drawn[-1], len(x)
            errors = (y.clamp(-1, 1) - x).square().mean((1, 2, 3)).clamp(min=1e-10)
            values = {"l2": F.mse_loss(y, x), "perceptual": self.perceptual(y, x).mean()}
            values["loss"] = self.config.l2 * values["l2"] + self.config.perceptual * values["perceptual"]
            values["psnr"] = (10 * torch.log10(4 / errors)).mean()
            if self.identity:
                values["identity"] = self.identity(y, x)
                values["loss"] = values["loss"] + self.config.identity * values["identity"]
            for name, value in values.items():
                sums[f"val_{name}"] = sums.get(f"val_{name}", 0.0) + float(value) * n
        return {name: value / len(self.held_out) for name, value in sums.items()}

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs to continue as if nothing had happened."""
        state = {"encoder": self.encoder.state_dict(), "optimiser": self.optimiser.state_dict(), "now": self.now}
        return state | ({"critic": self.discriminator.state()} if self.discriminator else {})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.encoder.load_state_dict(state["encoder"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.discriminator:
            self.discriminator.restore(state["critic"])
        self.now = int(state["now"])


def offsets(ws: Tensor, stage: int | None) -> Tensor:
    """[] sum over the codes after the first of ws [N,num_ws,w_dim] of their distance from it, mean over N.

    Only codes that have an offset at this `stage` count: the others are the first one.
    """
    active = ws.shape[1] - 1 if stage is None else stage
    if not active:
        return ws.new_zeros(())
    return (ws[:, 1 : active + 1] - ws[:, :1]).norm(dim=2).sum(1).mean()
