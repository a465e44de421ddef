"""Adversarial training of a StyleGAN3 generator from images alone.

    D: softplus(D(G(z))) + softplus(-D(x)) + gamma / 2 ||dD/dx||^2 every 16th step   (arXiv 1912.04958, 1801.04406)
    G: softplus(-D(G(z)))

Real and drawn images are blurred alike at the beginning (configuration R needs it: arXiv 2106.12423, appendix F.2),
then augmented alike (`augment.py`). R1 is taken at the augmented images, which is what the discriminator sees.
What is kept of the generator is the average of its weights over the last tens of thousands of images.

Every random number is a function of the seed and the step, drawn for the whole batch: a run continues exactly, and over
N processes (`distributed.py`) it is the run of one. Batches of 4 or more images per process keep the discriminator's
groups the same.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.discriminator import Discriminator, DiscriminatorConfig
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.training.data.images import Images
from sg3cli.training.data.synthface import Batches
from sg3cli.training.distributed import Group
from sg3cli.training.generator.ada import apply_transforms, draw_transforms, next_p
from sg3cli.training.losses import R1_EVERY, gaussian_blur, r1_penalty

ADA_EVERY = 4  # steps between two changes of p


@dataclass(frozen=True)
class AdversarialConfig:
    """One run; `gamma` None follows 0.0002 R^2 / batch, which suits most sets within a factor of four."""

    steps: int = 100_000
    batch: int = 32
    lr_generator: float = 2.5e-3
    lr_discriminator: float = 2e-3
    gamma: float | None = None
    mirror: bool = True
    augment: str = "ada"  # ada | none | fixed
    augment_p: float = 0.0  # at the start, or throughout with "fixed"
    augment_target: float = 0.6
    augment_kimg: float = 500.0
    blur: float | None = None  # standard deviation in pixels at the start; None: no blur
    blur_kimg: float = 200.0  # thousand images after which it is gone
    ema_kimg: float = 10.0  # half-life of the average
    ema_rampup: float = 0.05  # and never longer than this share of the images seen so far
    precision: str = "fp32"  # or bf16
    seed: int = 0

    def gamma_for(self, resolution: int) -> float:
        return 0.0002 * resolution**2 / self.batch if self.gamma is None else self.gamma


class AdversarialTrainer:
    """The loop: `for log in trainer.run(): ...`; `state()` and `restore()` continue exactly."""

    def __init__(
        self,
        images: Images,
        generator: GeneratorConfig,
        discriminator: DiscriminatorConfig,
        config: AdversarialConfig,
        group: Group,
    ) -> None:
        group.check_batch(config.batch)
        torch.manual_seed(config.seed)
        self.images, self.config, self.group = images, config, group
        self.G = Generator(generator).to(group.device).train()
        self.D = Discriminator(discriminator).to(group.device).train()
        self.ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        self.batches = Batches(len(images), config.batch, config.seed)
        self.now, self.p, self.signs = 0, config.augment_p, torch.zeros(2, device=group.device)
        c = R1_EVERY / (R1_EVERY + 1)  # lazy regularisation: arXiv 1912.04958, appendix B
        self.optimiser_G = torch.optim.Adam(self.G.parameters(), config.lr_generator, betas=(0.0, 0.99), eps=1e-8)
        self.optimiser_D = torch.optim.Adam(
            self.D.parameters(), config.lr_discriminator * c, betas=(0.0, 0.99**c), eps=1e-8
        )
        self.begin()

    def begin(self) -> None:
        """After weights were loaded: the same in every process, in the precision asked for."""
        self.group.copy_from_first(self.G, self.D, self.ema)
        if self.group.world > 1:
            self.G.synthesis.share_magnitudes(self.group.mean)
        self.G.synthesis.set_precision(self.config.precision)

    def run(self) -> Iterator[dict[str, float]]:
        """Train to `config.steps`; yields the log of every step."""
        while self.now < self.config.steps:
            rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.now)
            loss_G = self._generator_step(rng)
            log = {"loss_G": loss_G, **self._discriminator_step(rng)}
            self._average()
            self.now += 1
            if self.config.augment == "ada" and self.now % ADA_EVERY == 0:
                self._adapt()
            yield log | {"augment_p": self.p}

    def draw(self, z: Tensor) -> Tensor:
        """Images of the averaged generator, z [N,z_dim] -> [N,3,R,R] on the CPU."""
        with torch.no_grad():
            return torch.cat([self.ema(part.to(self.group.device)).cpu() for part in z.split(16)])

    # ---- the two halves of a step

    def _generator_step(self, rng: torch.Generator) -> float:
        self.G.requires_grad_(True)
        self.D.requires_grad_(False)
        loss = F.softplus(-self._augmented_logits(self._generate(rng, update_emas=True), rng)).mean()
        self._descend(self.optimiser_G, self.G, loss)
        self.G.mapping.w_avg.copy_(self.group.mean(self.G.mapping.w_avg))
        return self._value(loss)

    def _discriminator_step(self, rng: torch.Generator) -> dict[str, float]:
        self.G.requires_grad_(False)
        self.D.requires_grad_(True)
        with torch.no_grad():
            drawn = self._generate(rng)
        fake = self._augmented_logits(drawn, rng)
        x = self._seen(self._reals(rng), rng)
        real = self._logits(x)
        self.signs += torch.stack([real.detach().sign().sum(), real.new_tensor(float(len(real)))])
        loss = F.softplus(fake).mean() + F.softplus(-real).mean()
        log = {"loss_D": self._value(loss), "real": self._value(real.mean()), "fake": self._value(fake.mean())}
        if self.now % R1_EVERY == 0:
            gamma = self.config.gamma_for(self.G.img_resolution)
            penalty = r1_penalty(self.D, x)  # in full precision: it is a derivative of a derivative
            loss = loss + penalty * (gamma / 2 * R1_EVERY)
            log["r1"] = self._value(penalty)
        self._descend(self.optimiser_D, self.D, loss)
        return log

    def _generate(self, rng: torch.Generator, update_emas: bool = False) -> Tensor:
        """This process's share of a batch of new images."""
        z = torch.randn(self.config.batch, self.G.config.z_dim, generator=rng)
        return self.G(self.group.share(z).to(self.group.device), update_emas=update_emas)

    def _reals(self, rng: torch.Generator) -> Tensor:
        rows = self.batches.rows(self.now)
        mirror = torch.rand(len(rows), generator=rng).numpy() < (0.5 if self.config.mirror else -1)
        x = self.images.batch(self.group.share(rows), self.group.share(mirror))
        return x.to(self.group.device)

    def _augmented_logits(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return self._logits(self._seen(x, rng))

    def _logits(self, x: Tensor) -> Tensor:
        half = self.config.precision == "bf16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            logits: Tensor = self.D(x)
        return logits.float()

    def _seen(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """x as the discriminator sees it: blurred, then augmented."""
        images = self.now * self.config.batch
        sigma = (self.config.blur or 0.0) * max(0.0, 1 - images / (self.config.blur_kimg * 1000))
        x = gaussian_blur(x, sigma)
        if self.config.augment == "none":
            return x
        T = draw_transforms(self.config.batch, self.p, x.shape[-1], rng)
        return apply_transforms(x, type(T)(*(self.group.share(part) for part in T)))

    def _descend(self, optimiser: torch.optim.Optimizer, net: torch.nn.Module, loss: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.group.average_gradients(net.parameters())
        optimiser.step()

    def _value(self, loss: Tensor) -> float:
        return float(self.group.mean(loss.detach()))

    # ---- between steps

    def _adapt(self) -> None:
        signs, count = self.group.mean(self.signs).tolist()
        seen = ADA_EVERY * self.config.batch
        self.p = next_p(self.p, signs / count, self.config.augment_target, seen, self.config.augment_kimg)
        self.signs.zero_()

    @torch.no_grad()
    def _average(self) -> None:
        """Weights follow with a half-life; buffers (w_avg, magnitudes) are averages already."""
        seen = (self.now + 1) * self.config.batch
        half_life = min(self.config.ema_kimg * 1000, seen * self.config.ema_rampup)
        keep = 0.5 ** (self.config.batch / max(half_life, 1e-8))
        for shown, trained in zip(self.ema.parameters(), self.G.parameters(), strict=True):
            shown.lerp_(trained, 1 - keep)
        for held, buffer in zip(self.ema.buffers(), self.G.buffers(), strict=True):
            held.copy_(buffer)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs to go on as if nothing had happened."""
        return {
            "G": self.G.state_dict(), "D": self.D.state_dict(), "ema": self.ema.state_dict(),
            "optimiser_G": self.optimiser_G.state_dict(), "optimiser_D": self.optimiser_D.state_dict(),
            "now": self.now, "p": self.p, "signs": self.signs,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        for name in ("G", "D", "ema", "optimiser_G", "optimiser_D"):
            getattr(self, name).load_state_dict(state[name])
        self.now, self.p, self.signs = int(state["now"]), float(state["p"]), state["signs"].to(self.group.device)
        self.begin()
