"""Generator and ReStyle encoder trained together on labelled renders.

A GAN from noise needs days of a GPU. Renders come with exact labels, so a CPU can do something better: the encoder
maps a face to W+, the generator draws it back, and the loss is what the eye and the labels say about the difference.
What comes out is an ordinary StyleGAN3 generator with an encoder that belongs to it; `fit_mapping.py` fits z -> w to
the codes afterwards.

    codes_1 = w_avg + E(x, G(w_avg));  codes_2 = codes_1 + E(x, G(codes_1))       (ReStyle, arXiv 2104.02699 eq. 1)
    loss    = weighted L1 over three scales + attribute net features + ||w - w_avg - M a||^2 + ||delta||^2 - D(G(codes))

The encoder sees x as a camera would spoil it (`data/degradation.py`), the loss compares with x itself. A discriminator
joins for the last part of a run (`image_discriminator.py`): a mean of all faces that fit is what the other terms ask
for, and it is blurred.

A share of every batch is drawn from its labels alone, w = w_avg + M a (`conditions.py`). The quadratic term makes the
encoder's w follow M a as far as the labels reach, so the columns of M are directions of the encoder's codes as well.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.nets.attribute_net import AttributeNet, perceptual_distance
from sg3cli.nets.encoder import Encoder, EncoderConfig
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.training.data.degradation import degrade
from sg3cli.training.data.synthface import Batches, FaceSet
from sg3cli.training.people128.conditions import Conditions
from sg3cli.training.people128.image_discriminator import ImageDiscriminator
from sg3cli.training.people128.probe import augment

PEOPLE_128 = GeneratorConfig(
    z_dim=256, w_dim=256, img_resolution=128, channel_base=3072, channel_max=192, num_layers=8,
    first_cutoff=6.0,  # the input's frequencies: twice the cycles of the official 2 and more, which a short run needs
    first_stopband=16.0,
    margin_size=8, conv_kernel=1, use_radial_filters=True,
)  # fmt: skip
PEOPLE_128_ENCODER = EncoderConfig(
    input_size=64, stem=24, stages=((32, 1), (64, 2), (128, 2), (192, 2)), head_dim=128,
    num_ws=PEOPLE_128.num_ws, w_dim=PEOPLE_128.w_dim, kind="e4e", se_reduction=8,
)  # fmt: skip


@dataclass(frozen=True)
class AutoencoderConfig:
    """One run. Weights are those of the terms of the loss; shares and points of the run are from 0 to 1."""

    steps: int = 1600
    batch: int = 8  # images a step that the generator draws
    encoded: int = 16  # images a step that the encoder sees in a first pass; later passes see `batch`
    lr_generator: float = 8e-3  # Adam's learning rate
    lr_labels: float = 5e-4  # of the label matrix
    lr_encoder: float = 2e-3
    warmup: int = 100  # steps until the rates are reached
    decay_from: float = 0.65  # point of the run from which the rates fall
    second_pass_share: float = 0.2  # of the steps, which train a later ReStyle pass instead of the first
    second_pass_from: float = 0.35  # point of the run from which they do
    third_pass_share: float = 0.0  # of those steps, which train the third pass
    degraded: float = 0.0  # share of the images that the encoder sees spoiled
    adversarial: float = 0.0  # weight; 0: no discriminator
    adversarial_from: float = 0.5  # point of the run from which the discriminator takes part
    landmark_weight: float = 0.0  # how much more than the rest of the face eyes and mouth count
    perceptual: float = 0.3  # weight
    perceptual_every: int = 2  # steps between two that compute it
    residual: float = 0.3  # weight of the distance between code and labels, at the start
    residual_end: float = 0.05  # ... and from the middle of the run on
    delta: float = 0.05  # weight of the differences between a face's codes
    label_code_share: float = 0.5  # of the drawn images, which are drawn from their labels, at the start
    label_code_share_end: float = 0.25  # ... and from the middle of the run on
    delta_dropout: float = 0.3  # share of the codes that are drawn without those differences
    ema: float = 0.998  # decay a step of the averaged weights
    seed: int = 0


def bf16_in_hardware() -> bool:
    """True where the CPU multiplies bfloat16 itself; elsewhere torch emulates it, thirty times slower than float32."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return supported is not None and bool(supported())


def face_weight(size: int) -> Tensor:
    """[1,1,R,R], mean 1: the aligned face counts about four times as much as the corners, which are background."""
    axis = (torch.arange(size) + 0.5) / size - 0.5
    r2 = axis[None, :] ** 2 + (axis[:, None] - 0.05) ** 2
    weight = 0.35 + torch.exp(-r2 / (2 * 0.22**2))
    return (weight / weight.mean())[None, None]


def feature_weight(landmarks: Tensor, size: int) -> Tensor:
    """landmarks [N,68,2] in pixels -> [N,1,R,R], 1 at the eyes and the mouth: small, but what a face says."""
    centres = torch.stack([landmarks[:, part].mean(1) for part in (slice(36, 42), slice(42, 48), slice(48, 68))], 1)
    spread = size * torch.tensor([0.05, 0.05, 0.075])
    axis = torch.arange(size) + 0.5
    dx, dy = axis - centres[..., 0, None], axis - centres[..., 1, None]  # [N,3,R]
    r2 = dx[:, :, None, :] ** 2 + dy[:, :, :, None] ** 2
    return torch.exp(-r2 / (2 * spread[:, None, None] ** 2)).sum(1, keepdim=True).clamp(max=1)


def pixel_loss(y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Weighted L1 at full, quarter and sixteenth size: sharp edges and right colours both pull."""
    total = (weight * (y - x).abs()).mean()
    for factor in (4, 16):
        pooled = F.avg_pool2d(weight, factor)
        total = total + (pooled * (F.avg_pool2d(y, factor) - F.avg_pool2d(x, factor)).abs()).mean()
    return total


def label_matrix(w_dim: int, conditions: int) -> nn.Parameter:
    """M [w_dim, C], random. Small: styles of 1 + 0.15 n make a network that is nearly linear in `a` at the start."""
    return nn.Parameter(0.15 * torch.randn(w_dim, conditions) / conditions**0.5)


class Autoencoder(nn.Module):
    """Encoder, generator and the label matrix M [w_dim, C], with the mean of w (which becomes `mapping.w_avg`)."""

    def __init__(self, G: Generator, encoder: Encoder, conditions: int) -> None:
        super().__init__()
        self.G, self.encoder = G, encoder
        self.M = label_matrix(G.w_dim, conditions)
        self.bf16 = False
        with torch.no_grad():
            for name, weight in encoder.named_parameters():
                if name.endswith("linear.weight"):
                    weight.mul_(0.1)  # codes are small (see `label_matrix`)
        self.pool = nn.AdaptiveAvgPool2d(encoder.config.input_size)

    @torch.no_grad()
    def average_image(self) -> Tensor:
        """G(w_avg) at the encoder's size, [1,3,S,S]."""
        ws = self.G.mapping.w_avg.expand(1, self.G.num_ws, -1)
        return self.pool(self.G.synthesis(ws))

    def step(self, x: Tensor, previous: Tensor, ws: Tensor | None) -> Tensor:
        """One ReStyle update: image [N,3,R,R], last image [N,3,S,S], last codes -> codes [N,num_ws,w_dim]."""
        start = self.G.mapping.w_avg if ws is None else ws
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training and self.bf16):
            residual = self.encoder(torch.cat([self.pool(x), previous], 1))
        return residual.float() + start


class AutoencoderTrainer:
    """The loop: `for log in trainer.run(): ...`; `state()`/`restore()` continue exactly."""

    def __init__(
        self, faces: FaceSet, conditions: Conditions, attribute_net: AttributeNet | None, config: AutoencoderConfig,
        generator: GeneratorConfig = PEOPLE_128, encoder: EncoderConfig = PEOPLE_128_ENCODER,
    ) -> None:  # fmt: skip
        torch.manual_seed(config.seed)
        self.faces, self.config = faces, config
        self.attribute_net = attribute_net.eval().requires_grad_(False) if attribute_net else None
        self.conditions = torch.from_numpy(conditions.vectors)
        self.net = Autoencoder(Generator(generator), Encoder(encoder), len(conditions.names))
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        synthesis = list(self.net.G.synthesis.parameters())
        groups = [
            {"params": synthesis, "lr": config.lr_generator},
            {"params": [self.net.M], "lr": config.lr_labels},
            {"params": list(self.net.encoder.parameters()), "lr": config.lr_encoder},
        ]
        self.optimiser = torch.optim.Adam(
            groups,
            betas=(0.9, 0.99), eps=1e-8,
        )  # fmt: skip
        self.base_lr = [group["lr"] for group in self.optimiser.param_groups]
        self.batches = Batches(len(faces), config.encoded, config.seed)
        self.weight = face_weight(generator.img_resolution)
        self.discriminator = ImageDiscriminator(generator.img_resolution) if config.adversarial else None
        self.now, self.average = 0, torch.zeros(0)

    def start_from(self, G: dict[str, Tensor], M: Tensor, encoder: dict[str, Tensor] | None = None) -> None:
        """Take over generator and label matrix of a coarse init, or these and the encoder of another run."""
        for net in (self.net, self.ema):
            net.G.load_state_dict(G)
            net.M.data.copy_(M)
            if encoder is not None:
                net.encoder.load_state_dict(encoder)

    def use_bf16(self) -> None:
        """Encoder and convolutions in bfloat16 while training; averages and what is shipped stay float32."""
        self.net.bf16 = True
        self.net.G.synthesis.set_precision("bf16")

    def run(self, until: int | None = None) -> Iterator[dict[str, float]]:
        """Train to step `until`; yields the log of every step."""
        while self.now < (until or self.config.steps):
            log = self._train_step()
            self.now += 1
            yield log

    def _train_step(self) -> dict[str, float]:
        self._schedule()
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.now)
        rows = self.batches.rows(self.now)
        if (passes := self._passes(rng)) > 1:
            rows = rows[: self.config.batch]
        x, a = augment(self.faces.batch(rows), rng), self.conditions[rows]
        count = round(self._fading(self.config.label_code_share, self.config.label_code_share_end) * self.config.batch)
        drawn = slice(0, self.config.batch)  # the others only teach the encoder
        codes = self._encode(degrade(x, rng, self.config.degraded), passes, rng)
        label_codes = self._label_codes(a[:count])
        y = self.net.G.synthesis(torch.cat([label_codes, codes[count : drawn.stop]]), update_emas=True)
        losses = self._losses(x[drawn], y, codes, a, self._weight(rows[drawn]))
        if self.discriminator is not None and self.now >= self.config.adversarial_from * self.config.steps:
            losses |= self.discriminator.step(x[drawn], y, rng)
            losses["total"] = losses["total"] + self.config.adversarial * losses["adversarial"]
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        self._update_averages(codes)
        return {name: float(value.detach()) for name, value in losses.items()}

    def _label_codes(self, a: Tensor) -> Tensor:
        """a [N,C] -> w_avg + M a for every layer, [N,num_ws,w_dim]."""
        w = self.net.G.mapping.w_avg + a @ self.net.M.T
        return w[:, None].expand(-1, self.net.G.num_ws, -1)

    def _passes(self, rng: torch.Generator) -> int:
        """How many ReStyle passes this step makes; only the last one learns."""
        begun = self.now >= self.config.second_pass_from * self.config.steps
        if not begun or torch.rand(1, generator=rng).item() >= self.config.second_pass_share:
            return 1
        third = self.config.third_pass_share
        return 3 if third and torch.rand(1, generator=rng).item() < third else 2

    def _encode(self, x: Tensor, passes: int, rng: torch.Generator) -> Tensor:
        """One to three ReStyle passes; a share of the codes without deltas, so that W alone draws a face too."""
        if self.now % 50 == 0 or not len(self.average):
            self.average = self.net.average_image()
        ws = self.net.step(x, self.average.expand(len(x), -1, -1, -1), None)
        for _ in range(passes - 1):
            with torch.no_grad():
                previous = self.net.pool(self.net.G.synthesis(ws))
            ws = self.net.step(x, previous, ws.detach())
        flat = torch.rand(len(x), 1, 1, generator=rng) < self.config.delta_dropout
        return torch.where(flat, ws[:, :1].expand_as(ws), ws)

    def _weight(self, rows: np.ndarray) -> Tensor:
        """What a pixel of these images counts, [1 or n,1,R,R]."""
        if not self.config.landmark_weight:
            return self.weight
        landmarks = torch.from_numpy(self.faces.landmarks[rows]).float()
        return self.weight * (1 + self.config.landmark_weight * feature_weight(landmarks, self.net.G.img_resolution))

    def _losses(self, x: Tensor, y: Tensor, ws: Tensor, a: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """x, y [n,3,R,R] images and renders; ws [N,num_ws,w_dim] the encoder's codes; a [N,C] conditions."""
        c = self.config
        from_label = (a @ self.net.M.T).detach()  # the images teach M, the encoder follows
        expected, spread = self.net.G.mapping.w_avg + from_label, from_label.square().mean()
        losses = {
            "pixel": pixel_loss(y, x, weight),
            "perceptual": self._perceptual(y, x),
            "residual": (ws[:, 0] - expected).square().mean() / spread,
            "delta": (ws - ws[:, :1]).square().mean() / spread,
        }
        weights = {
            "pixel": 1.0,
            "perceptual": c.perceptual,
            "residual": self._fading(c.residual, c.residual_end),
            "delta": c.delta,
        }
        losses["total"] = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        return losses

    def _perceptual(self, y: Tensor, x: Tensor) -> Tensor:
        """Every few steps only: the attribute net costs as much as a third of the generator."""
        if self.attribute_net is None or self.now % self.config.perceptual_every:
            return x.new_zeros(())
        return perceptual_distance(self.attribute_net, y, x).mean() * self.config.perceptual_every

    def _fading(self, start: float, end: float) -> float:
        """From `start` to `end` over the first half of the run."""
        return start + (end - start) * min(1.0, 2 * self.now / self.config.steps)

    def _schedule(self) -> None:
        """Linear warm-up, flat, then linear decay to 5 %."""
        c = self.config
        done = self.now / c.steps
        decay = 1.0 if done < c.decay_from else 1 - 0.95 * (done - c.decay_from) / (1 - c.decay_from)
        for group, lr in zip(self.optimiser.param_groups, self.base_lr, strict=True):
            group["lr"] = lr * min(1.0, (self.now + 1) / c.warmup) * max(decay, 0.05)

    @torch.no_grad()
    def _update_averages(self, ws: Tensor) -> None:
        """w_avg follows the mean code; the shipped weights are an exponential average of the trained ones."""
        decay = min(self.config.ema, (self.now + 1) / (self.now + 10))
        self.net.G.mapping.w_avg.lerp_(ws[:, 0].mean(0), 0.01)
        for shown, trained in zip(self.ema.state_dict().values(), self.net.state_dict().values(), strict=True):
            if shown.dtype.is_floating_point:
                shown.lerp_(trained, 1 - decay)
            else:
                shown.copy_(trained)

    def state(self) -> dict[str, object]:
        """Everything that `restore` needs to continue as if nothing had happened."""
        return {
            "net": self.net.state_dict(), "ema": self.ema.state_dict(), "optimiser": self.optimiser.state_dict(),
            "now": self.now, "average": self.average,
            "critic": self.discriminator.state() if self.discriminator else {},
        }  # fmt: skip

    def restore(self, state: dict[str, object]) -> None:
        self.net.load_state_dict(state["net"])  # type: ignore[arg-type]
        self.ema.load_state_dict(state["ema"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.now, self.average = int(state["now"]), state["average"]  # type: ignore[call-overload,assignment]
        if self.discriminator:
            self.discriminator.restore(state["critic"])  # type: ignore[arg-type]
