"""A small network that reads attributes of a face, and its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.files import atomic_path


@dataclass(frozen=True)
class AttributeNetConfig:
    """Architecture of an `AttributeNet`."""

    labels: tuple[str, ...]
    people: int
    widths: tuple[int, ...] = (32, 64, 128, 192)
    embedding: int = 64

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def _stage(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
        nn.Conv2d(cout, cout, 3, padding=1, bias=False),
        nn.BatchNorm2d(cout),
        nn.ReLU(inplace=True),
    )


class AttributeNet(nn.Module):
    """[N,3,128,128] in [-1,1] -> labels (standardised), landmarks (-1..1 across the crop), identity embedding."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: AttributeNetConfig) -> None:
        super().__init__()
        self.config = config
        chain = (3, *config.widths)
        self.stages = nn.ModuleList(_stage(a, b) for a, b in pairwise(chain))
        last = config.widths[-1]
        # Flattened, not pooled: where something is says as much about pose and expression as what it is.
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(last * 16, 256), nn.ReLU())
        self.labels = nn.Linear(256, len(config.labels))
        self.landmarks = nn.Linear(256, 136)
        self.embed = nn.Linear(256, config.embedding)
        self.people = nn.Parameter(torch.randn(config.people, config.embedding))
        self.register_buffer("mean", torch.zeros(len(config.labels)))
        self.register_buffer("std", torch.ones(len(config.labels)))

    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps at 32, 16, 8 and 4 px."""
        maps = []
        x = F.adaptive_avg_pool2d(x, 64)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def hidden(self, x: Tensor) -> Tensor:
        """[N,256]: what all heads read; the feature space of `metrics.frechet`."""
        hidden: Tensor = self.trunk(F.adaptive_avg_pool2d(self.features(x)[-1], 4))
        return hidden

    def heads(self, top: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the 4 px map: labels [N,K] standardised, landmarks [N,68,2], unit embedding [N,E]."""
        hidden = self.trunk(F.adaptive_avg_pool2d(top, 4))
        return (
            self.labels(hidden),
            self.landmarks(hidden).view(-1, 68, 2),
            F.normalize(self.embed(hidden.detach()), dim=1),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.heads(self.features(x)[-1])

    def attributes(self, x: Tensor) -> Tensor:
        """Labels in their own units, [N,K]."""
        return self.forward(x)[0] * self.std + self.mean


def perceptual_distance(net: AttributeNet, x: Tensor, y: Tensor) -> Tensor:
    """LPIPS-like: squared difference of channel-normalised features, mean over space, summed over scales; [N].

    `y` is the target and gets no gradient.
    """
    with torch.no_grad():
        targets = net.features(y)
    total = x.new_zeros(len(x))
    for a, b in zip(net.features(x), targets, strict=True):
        unit_a, unit_b = F.normalize(a, dim=1, eps=1e-4), F.normalize(b, dim=1, eps=1e-4)
        total = total + (unit_a - unit_b).square().sum(1).mean((1, 2))
    return total


def load_attribute_net(path: Path) -> AttributeNet:
    """An attribute net saved by `save_attribute_net`, ready to use."""
    import json

    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        config = json.loads(file.metadata()["sg3"])
        state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a mapping)
    net = AttributeNet(
        AttributeNetConfig(tuple(config["labels"]), config["people"], tuple(config["widths"]), config["embedding"])
    )
    net.load_state_dict(state, strict=False)
    return net.eval().requires_grad_(False)


def save_attribute_net(path: Path, net: AttributeNet) -> None:
    """Write an attribute net; its table of people stays behind, the embedding does without."""
    import json

    from safetensors.torch import save_file

    state = {k: v.contiguous() for k, v in net.state_dict().items() if k != "people"}
    state = {k: v.half() if v.is_floating_point() and v.ndim > 1 else v for k, v in state.items()}
    config = net.config.to_dict() | {"people": 1}
    with atomic_path(path) as temp:
        save_file(state, temp, metadata={"sg3": json.dumps(config, sort_keys=True)})
