"""Networks whose features tell sets of images apart: FID, KID, precision and recall are measured in them.

Figures in one network's features say nothing about figures in another's; every report names its own. Published FIDs
are Inception's, in the official TorchScript file, which takes levels and says its features (`return_features`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from sg3cli.errors import ModelError, UsageError
from sg3cli.files import digest_of
from sg3cli.levels import tensor_to_signed
from sg3cli.metrics.frechet import FaceFeatures
from sg3cli.training.encoder.identity_loss import load_torchscript
from sg3cli.weights import store
from sg3cli.weights.efficientnet import load_efficientnet_lite

KINDS = ("auto", "lite0", "face")
LAST_STAGE = 6  # of EfficientNet-Lite0: 320 channels, before the head
SIZE = 2.1  # root mean square of its features of photographed faces: divided by it they suit the kernel of KID


class ImageFeatures(Protocol):
    """Images `[n, R, R, 3]` uint8 -> `[n, D]` float64; `name` is what reports call the network."""

    name: str

    def __call__(self, images: np.ndarray) -> np.ndarray: ...


class Lite0Features:
    """EfficientNet-Lite0's last stage, mean over the image: 320 features. Raises `ModelError` when it is not here."""

    name = "EfficientNet-Lite0, last stage, 320 features"

    def __init__(self, device: torch.device) -> None:
        store.require("perceptual")
        self.net, self.device = load_efficientnet_lite(store.path_of("perceptual")).to(device), device

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        x = tensor_to_signed(_channels_first(images).to(self.device))
        (last,) = self.net.features(x, (LAST_STAGE,))
        return np.asarray(last.mean((2, 3)).double().cpu().numpy() / SIZE)


class AttributeFeatures:
    """The 256 hidden units of the attribute net that the package brings; it has seen rendered faces only."""

    name = "attribute net of people-128, 256 features"

    def __init__(self, device: torch.device) -> None:
        self.net = FaceFeatures(device)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return self.net([tensor_to_signed(_channels_first(images))])


class ProgramFeatures:
    """A TorchScript network of the user's: `net(levels [n,3,R,R] uint8, return_features=True) -> [n, D]`.

    That is how the official `inception-2015-12-05.pt` is called. Raises `ModelError` when this one is not.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self.path, self.device = path, device
        self.net = load_torchscript(path, "--features").to(device)
        self.name = f"{path.name} ({digest_of(path)[:19]})"

    @torch.no_grad()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        try:
            found = self.net(_channels_first(images).to(self.device), return_features=True)
            return np.asarray(found.reshape(len(images), -1).double().cpu().numpy())
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            hint = "it has to take uint8 pictures [n,3,R,R] and return_features=True, as the official detectors do"
            raise ModelError(f"{self.path} gives no features: {reason}", hint) from error


def open_features(wanted: str, device: torch.device) -> ImageFeatures:
    """`lite0`, `face`, a TorchScript file, or `auto`: Lite0 where it has been pulled, else the face features."""
    if wanted == "auto":
        wanted = "lite0" if store.is_present("perceptual") else "face"
    if wanted == "lite0":
        return Lite0Features(device)
    if wanted == "face":
        return AttributeFeatures(device)
    path = Path(wanted)
    if path.suffix == ".pkl":
        hint = "give the .pt file of the same network; a pickle runs whatever is in it and is never opened"
        raise UsageError(f"{path} is a pickle", hint)
    if path.suffix not in (".pt", ".ts", ".pth"):
        raise UsageError(f"unknown features {wanted!r}", f"choose {', '.join(KINDS)}, or a TorchScript file (.pt)")
    return ProgramFeatures(path, device)


def _channels_first(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
