"""Generator, encoder and directions trained together on pairs of renders and on photographs.

    ws = E(A)                                  A, B: two pictures of one group, a_A, a_B their attributes in units
    y_A = G(ws),  y_B = G(ws + (a_B - a_A) . D)
    loss = d(y_A, A) + d(y_B, B) + d(G(E(photo)), photo)            d: weighted L1 at three scales + perceptual
         + |(y_B - y_A) - (B - A)|^2 / |B - A|^2 where A and B differ          each pair counts alike
         + spread of the codes over the layers - D(y)                       projected discriminator

The weight is that of the face, more at eyes and mouth, and more where A and B differ: a wrinkle is a hundredth of the
picture. The change term is what the paired-edit score measures; it asks that the drawing changes as the truth does,
whatever the drawing lacks otherwise.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.nets.efficientnet_lite import PerceptualDistance, feature_channels, unit_length
from sg3cli.training.people128.autoencoder import face_weight, feature_weight
from sg3cli.training.people128.pair_data import ATTRIBUTES, Batch
from sg3cli.training.people128.pair_net import PairNet
from sg3cli.training.people128.projected_discriminator import ProjectedDiscriminator

BALANCE_EVERY = 20  # steps
JPEG_NOISE = 0.02  # two pictures of one thing differ by so much, in [-1,1]


@dataclass(frozen=True)
class PairConfig:
    """One run. Learning rates fall to a twentieth from `decay_from` of the run on; what has one of 0 is held."""

    lr_generator: float = 2.5e-3
    lr_encoder: float = 6e-4
    lr_directions: float = 6e-3
    lr_features: float = 1.5e-4  # of the encoder's branch on a backbone's features; whitened inputs bear little more
    warmup: int = 60  # steps
    decay_from: float = 0.6  # of the run
    passes: tuple[float, ...] = (0.3, 0.3, 0.4)  # probability that a step trains the 1st, 2nd, 3rd ReStyle pass
    perceptual: float = 1.5
    adversarial: float = 0.25  # length of its gradient at a drawing, over the perceptual term's; 0 for none
    change: float = 0.6  # weight of the change term
    spread: float = 0.02  # of the codes over the layers
    landmarks: float = 3.0  # eyes and mouth count 1 + this
    changed: float = 6.0  # where A and B differ counts 1 + this
    differs: float = 0.15  # mean difference over the colours, in [-1,1], that counts in full
    ema: float = 0.997
    clip: float = 5.0  # norm of the gradient
    detail: int = 16  # channels of the encoder's detail branch, 0 for none
    bf16: bool = False
    seed: int = 0


def change_mask(a: Tensor, b: Tensor, differs: float) -> Tensor:
    """[N,1,R,R] in 0..1: where two pictures [N,3,R,R] differ; a little wider than the difference."""
    difference = (b - a).abs().mean(1, keepdim=True)
    difference = (difference - JPEG_NOISE).clamp(min=0)
    return F.avg_pool2d(F.max_pool2d(difference, 3, 1, 1), 5, 1, 2, count_include_pad=False).div(differs).clamp(max=1)


def weighted_l1(y: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """[N]: weighted mean of |y - x| at full, quarter and sixteenth size, summed; weight [N,1,R,R]."""
    total = y.new_zeros(len(y))
    for factor in (1, 4, 16):
        w = F.avg_pool2d(weight, factor)
        difference = (F.avg_pool2d(y, factor) - F.avg_pool2d(x, factor)).abs().mean(1, keepdim=True)
        total = total + (w * difference).mean((1, 2, 3)) / w.mean((1, 2, 3))
    return total


def change_error(drawn: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """[N]: squared error of a drawn change [N,3,R,R] against the true one, over the true one's square, in the mask."""
    error = (mask * (drawn - true).square()).sum((1, 2, 3))
    return error / (mask * true.square()).sum((1, 2, 3)).clamp(min=1e-3)


class PairTrainer:
    """`step(batch, progress)` trains once; `state()` and `restore()` continue exactly."""

    def __init__(
        self,
        net: PairNet,
        perceptual: PerceptualDistance,
        config: PairConfig,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config, self.device = config, torch.device(device)
        self.net = net.to(self.device).train()
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.perceptual = perceptual.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        groups = parameter_groups(self.net, config)
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99), fused=True)
        self.base_lr = [float(group["lr"]) for group in groups]
        self.face = face_weight(net.G.img_resolution).to(self.device)
        self.discriminator: ProjectedDiscriminator | None = None
        if config.adversarial:
            self.discriminator = ProjectedDiscriminator(feature_channels(), self.device, share=config.adversarial)
        self.now = 0
        if config.bf16:
            self.net.G.synthesis.set_precision("bf16")

    def step(self, batch: Batch, progress: float) -> dict[str, float]:
        """Train on one batch at `progress` (0..1) of the run; the losses."""
        self._schedule(progress)
        batch = batch.to(self.device)
        losses, learn = self.losses(batch)
        self.optimiser.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = nn.utils.clip_grad_norm_([p for p in self.net.parameters() if p.requires_grad], self.config.clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            self._average()
        told_apart = learn()
        self.now += 1
        values = {name: float(value.detach()) for name, value in losses.items()}
        return values | told_apart | {"gradient": float(norm)}

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Callable[[], dict[str, float]]]:
        """The terms and their weighted sum `total` (terms of single attributes are not part of it), and the step of the
        discriminator that is due afterwards."""
        c, net, n = self.config, self.net, len(batch.a)
        ws = self._encode(batch.seen)
        edited = net.edited(ws[:n], batch.delta)
        y = net.G.synthesis(torch.cat([ws, edited]), update_emas=net.training and self.config.lr_generator > 0)
        targets = torch.cat([batch.a, batch.photos, batch.b])
        mask = change_mask(batch.a, batch.b, c.differs)
        weight = self._weight(batch, mask)
        pixel, (drawn_maps, real_maps) = weighted_l1(y, targets, weight), self._features(y, targets)
        units = [[unit_length(m) for m in maps] for maps in (drawn_maps, real_maps)]
        features = self.perceptual.between(units[0], units[1], weight)
        drawn, true = y[len(ws) :] - y[:n], batch.b - batch.a
        change = change_error(drawn, true, mask)
        losses = {
            "pixel": pixel.mean(),
            "perceptual": features.mean(),
            "change": change.clamp(max=4).mean() if n else y.new_zeros(()),
            "spread": (ws - ws.mean(1, keepdim=True)).square().mean(),
        }
        parts = {"pixel": 1.0, "perceptual": c.perceptual, "change": c.change, "spread": c.spread}
        losses["total"] = torch.stack([share * losses[name] for name, share in parts.items()]).sum()
        where, critic = self.face.expand(len(y), -1, -1, -1), self.discriminator
        if critic is not None and critic.ready:
            losses["adversarial"] = -critic.realism(drawn_maps, where)
            if (net.training and self.now % BALANCE_EVERY == 0) or not critic.weight:
                critic.balance(losses["adversarial"], c.perceptual * losses["perceptual"], y)
            losses["total"] = losses["total"] + critic.weight * losses["adversarial"]
        if len(batch.photos):
            losses["photo_perceptual"] = features[n : len(ws)].mean()
            losses["photo_pixel"] = pixel[n : len(ws)].mean()

        def learn() -> dict[str, float]:
            if critic is None:
                return {}
            return {"told_apart": critic.learn(drawn_maps, real_maps, where), "adversarial_weight": critic.weight}

        return losses | _by_attribute(change, batch.delta), learn

    def _weight(self, batch: Batch, mask: Tensor) -> Tensor:
        """[A, photographs, B][N,1,R,R]; only B knows where it differs from A."""
        c, points = self.config, torch.cat([batch.landmarks_a, batch.landmarks_photos, batch.landmarks_b])
        marked = feature_weight(points.cpu(), self.net.G.img_resolution).to(self.device)
        weight = self.face * (1 + c.landmarks * marked)
        changed = torch.cat([mask.new_zeros(len(points) - len(mask), *mask.shape[1:]), mask])
        return weight * (1 + c.changed * changed)

    def _features(self, y: Tensor, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Maps of the perceptual network for drawings y and, without gradient, for their targets x."""
        y, x = (t.contiguous(memory_format=torch.channels_last) for t in (y, x))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            with torch.no_grad():
                real = self.perceptual.net.features(x)
            drawn = self.perceptual.net.features(y)
        return [m.float() for m in drawn], [m.float() for m in real]

    def _encode(self, seen: Tensor) -> Tensor:
        """Codes [N,num_ws,w_dim] after one to three ReStyle passes; only the last one learns."""
        net, size = self.net, self.net.encoder.config.input_size
        target, ws = F.adaptive_avg_pool2d(seen, size), net.G.mapping.w_avg.expand(len(seen), net.G.num_ws, -1)
        with torch.no_grad():
            previous = net.G.synthesis(ws[:1]).expand(len(seen), -1, -1, -1)
        for left in range(self._draw_passes() - 1, -1, -1):
            with (
                torch.set_grad_enabled(left == 0),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16),
            ):
                residual = net.encoder(torch.cat([target, F.adaptive_avg_pool2d(previous, size)], 1))
            ws = ws.detach() + residual.float()
            if left:
                with torch.no_grad():
                    previous = net.G.synthesis(ws)
        return ws

    def _draw_passes(self) -> int:
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.now)
        return 1 + int(torch.multinomial(torch.tensor(self.config.passes), 1, generator=rng))

    def _schedule(self, progress: float) -> None:
        c = self.config
        decay = 1 - 0.95 * min(max((progress - c.decay_from) / (1 - c.decay_from), 0.0), 1.0)
        for group, lr in zip(self.optimiser.param_groups, self.base_lr, strict=True):
            group["lr"] = lr * decay * min(1.0, (self.now + 1) / c.warmup)

    @torch.no_grad()
    def _average(self) -> None:
        pairs = zip(self.ema.state_dict().values(), self.net.state_dict().values(), strict=True)
        shown, trained = zip(*(pair for pair in pairs if pair[0].dtype.is_floating_point), strict=True)
        torch._foreach_lerp_(list(shown), list(trained), 1 - self.config.ema)

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on."""
        return {
            "net": self.net.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "now": self.now,
            "config": json.dumps(asdict(self.config)),
            "discriminator": self.discriminator.state() if self.discriminator else {},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self.net.load_state_dict(state["net"])
        self.ema.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        for group in self.optimiser.param_groups:
            group["fused"] = True
        self.now = int(state["now"])
        if self.discriminator and state.get("discriminator"):
            self.discriminator.restore(state["discriminator"])


def parameter_groups(net: PairNet, c: PairConfig) -> list[dict[str, Any]]:
    """What is trained, each with its learning rate; everything else is frozen in place."""
    branch = net.encoder.features
    learned = [] if branch is None else branch.learned()
    apart = set() if branch is None else set(branch.parameters())
    parts = [
        (list(net.G.synthesis.parameters()), c.lr_generator),
        ([p for p in net.encoder.parameters() if p not in apart], c.lr_encoder),
        ([net.directions], c.lr_directions),
        (learned, c.lr_features),
    ]
    net.requires_grad_(False)
    groups = [{"params": parameters, "lr": lr} for parameters, lr in parts if parameters and lr]
    for group in groups:
        for parameter in group["params"]:  # type: ignore[attr-defined]
            parameter.requires_grad_(True)
    return groups


def _by_attribute(change: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """Mean change error of the pairs in which an attribute differs."""
    table = {}
    for k, name in enumerate(ATTRIBUTES):
        rows = delta[:, k] != 0
        if rows.any():
            table[f"change_{name}"] = change[rows].mean()
    return table
