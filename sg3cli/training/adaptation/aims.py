"""Where an adaptation goes: features of images, and a direction among them that a text or example pictures say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.errors import UsageError
from sg3cli.files import digest_of
from sg3cli.latents.text_directions import text_direction
from sg3cli.latents.text_model import TextModel
from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.training.directions.encode_images import read_aligned
from sg3cli.weights import store
from sg3cli.weights.efficientnet import load_efficientnet_lite

Embed = Callable[[Tensor], Tensor]  # images [N,3,H,W] in [-1,1] -> [N,D] rows of length 1; gradients go through
MOST_SIDE = 224  # pixels: larger images are reduced for the backbone
STAGES = (0, 1, 2, 4, 6)  # of the backbone: from colour and stroke to what is seen
EPSILON = 1e-4  # variance below which a channel counts as even


@dataclass(frozen=True)
class Aim:
    """A direction `[D]` of length 1; `distance` is how far it goes (None: a text does not say).

    `facts` say where it comes from; runs with other facts do not continue each other.
    """

    embed: Embed
    direction: Tensor
    distance: float | None
    facts: Mapping[str, object] = field(default_factory=dict)


class BackboneFeatures:
    """Mean and deviation of each channel after some stages of EfficientNet-Lite0: how an image is drawn, not where."""

    def __init__(self, net: EfficientNetLite) -> None:
        self.net = net.eval().requires_grad_(False)

    def __call__(self, images: Tensor) -> Tensor:
        """See `Embed`; every stage has the same share."""
        if images.shape[-1] > MOST_SIDE:
            images = F.adaptive_avg_pool2d(images, MOST_SIDE)
        blocks = []
        for maps in self.net.features(images, STAGES):
            flat = maps.flatten(2)
            spread = (flat.var(2, unbiased=False) + EPSILON).sqrt()
            blocks.append(F.normalize(torch.cat([flat.mean(2), spread], 1), dim=1))
        return torch.cat(blocks, 1) / len(blocks) ** 0.5


def backbone(device: torch.device, allow_pull: bool = False) -> BackboneFeatures:
    """The features of `sg3 models pull perceptual`. Raises `ModelError` when it is not here."""
    store.require("perceptual", allow_pull)
    return BackboneFeatures(load_efficientnet_lite(store.path_of("perceptual")).to(device))


def towards_text(model: TextModel, source: str, target: str, device: torch.device) -> Aim:
    """From what `source` says to what `target` says, each the mean over many sentences. Raises `UsageError`."""
    direction = torch.from_numpy(text_direction(model, target, source)).float().to(device)
    return Aim(model.embed, direction, None, {"from": source, "to": target, "features": model.name})


def towards_pictures(embed: Embed, name: str, files: Sequence[Path], drawings: Tensor) -> Aim:
    """From the mean of the model's own `drawings` [N,3,R,R] to that of the pictures, which must be aligned faces.

    Raises `InputError` for a picture that is not square, `UsageError` when they look as the drawings do.
    """
    pictures = read_pictures(files, drawings.shape[-1]).to(drawings.device)
    with torch.no_grad():
        difference = mean_embedding(embed, pictures) - mean_embedding(embed, drawings)
    distance = float(difference.norm())
    if distance < 1e-4:
        raise UsageError("the pictures look as what the model draws", "give pictures of the look that you want")
    facts = {"pictures": [digest_of(path) for path in files], "features": name}
    return Aim(embed, difference / distance, distance, facts)


def read_pictures(files: Sequence[Path], size: int) -> Tensor:
    """[N,3,size,size] in [-1,1]. Raises `InputError` for one that is not square."""
    return torch.from_numpy(np.stack([read_aligned(path, size) for path in files]))


def mean_embedding(embed: Embed, images: Tensor, batch: int = 8) -> Tensor:
    """[D]: the mean over images [N,3,R,R]."""
    return torch.cat([embed(part) for part in images.split(batch)]).mean(0)
