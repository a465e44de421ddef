"""Who a face is and what is read off it: by the model's reader on its published backbone, else by its attribute net.

The reader tells photographed people apart (`training.people128.reader_fit`) and its likeness falls when a face is
destroyed; the attribute net has seen renders only. Figures name which of them spoke.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sg3cli.console import Console
from sg3cli.errors import ModelError, UsageError
from sg3cli.levels import to_signed
from sg3cli.nets.attribute_net import load_attribute_net
from sg3cli.nets.efficientnet_lite import LITE0, LITE1, EfficientNetLite
from sg3cli.nets.face_reader import load_face_reader
from sg3cli.weights import store
from sg3cli.weights.bundle import ATTRIBUTE_NET, READER, Bundle
from sg3cli.weights.efficientnet import load_efficientnet_lite

BACKBONE = "perceptual"  # of the table of models


@dataclass(frozen=True)
class Readings:
    """What is read of images: `labels [n, K]` in their own units, unit `embedding [n, E]`."""

    labels: np.ndarray
    embedding: np.ndarray


@dataclass(frozen=True)
class FaceReading:
    """A network that reads aligned faces: its `name`, its `labels`, their standard deviations `spread [K]`."""

    name: str
    labels: tuple[str, ...]
    spread: np.ndarray
    network: Callable[[Tensor], tuple[Tensor, Tensor]]

    def read(self, images: Sequence[np.ndarray]) -> Readings:
        """Readings of aligned crops `[N, N, 3]`, uint8 or float in [-1, 1]."""
        x = np.stack(images)
        x = to_signed(x) if x.dtype == np.uint8 else x.clip(-1, 1)
        with torch.inference_mode():
            labels, embedding = self.network(torch.from_numpy(x).permute(0, 3, 1, 2).contiguous())
        return Readings(labels.double().numpy(), embedding.double().numpy())


def open_reading(bundle: Bundle, console: Console) -> FaceReading | None:
    """The best that a bundle has, None when it has none. Raises `ModelError` for a damaged one."""
    if (bundle.path / READER).is_file():
        if store.is_present(BACKBONE):
            return _reader(bundle)
        console.notice(f"faces are read by the attribute net; `sg3 models pull {BACKBONE}` gives the better reader")
    return _attribute_net(bundle)


def load_reading(path: Path, backbone: Path | None = None) -> FaceReading:
    """A reader or an attribute net in a file; `backbone`: weights of the network that the reader reads with.

    Raises `ModelError`, and `UsageError` where the backbone has to be given.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            table = json.loads((file.metadata() or {})["sg3"])
            table["labels"]  # KeyError where it is something else
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is no network that reads faces: {error}", "give reader.safetensors") from error
    kinds = {config.name: config for config in (LITE0, LITE1)}
    if "backbone" not in table:
        return _attribute_net_of(path, path.name)
    if table["backbone"] not in kinds:
        raise ModelError(f"{path} reads with {table['backbone']}", f"known are: {', '.join(kinds)}")
    if backbone is None and table["backbone"] != LITE0.name:
        raise UsageError(f"{path} reads with {table['backbone']}", "give its published weights with --backbone FILE")
    weights = store.require(BACKBONE) and store.path_of(BACKBONE) if backbone is None else backbone
    net = load_efficientnet_lite(weights, kinds[table["backbone"]])
    return _reader_of(path, net, f"{path.name} on {table['backbone']}")


def _reader(bundle: Bundle) -> FaceReading:
    return _reader_of(bundle.checked(READER), load_efficientnet_lite(store.path_of(BACKBONE)), "reader")


def _reader_of(path: Path, net: EfficientNetLite, name: str) -> FaceReading:
    reader = load_face_reader(path, net)

    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        features = reader.features(x)
        return reader.read(features), reader.embed(features)

    return FaceReading(name, reader.names, reader.spread.double().numpy(), network)


def _attribute_net(bundle: Bundle) -> FaceReading | None:
    if not (bundle.path / ATTRIBUTE_NET).is_file():
        return None
    return _attribute_net_of(bundle.checked(ATTRIBUTE_NET), "attribute net")


def _attribute_net_of(path: Path, name: str) -> FaceReading:
    from safetensors import SafetensorError

    try:
        net = load_attribute_net(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "copy the model again, or remove that file") from error

    def network(x: Tensor) -> tuple[Tensor, Tensor]:
        standard, _, embedding = net(x)
        return standard * net.std + net.mean, embedding

    return FaceReading(name, tuple(net.config.labels), net.std.double().numpy(), network)
