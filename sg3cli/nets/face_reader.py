"""Reads a face: age, expression, pose and what is worn, and a vector that tells people apart.

The network is EfficientNet-Lite as it was published, frozen; what is learned are linear heads on its feature maps,
averaged over a 4x4 grid so that they know where something is. That is enough for age to within five years on people
never seen (`training.people128.reader_fit` prints the table), takes a minute to fit, and cannot learn the pictures by
heart as a fine-tuned network would with a thousand photographs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sg3cli.errors import ModelError
from sg3cli.files import atomic_path
from sg3cli.nets.efficientnet_lite import STAGES, EfficientNetLite

SIZE = 128  # pixels; what a reader is shown is brought to this
GRID = 4
READ_STAGES = (1, 2, 3, 4, 5, 6)
PLACED_STAGES = READ_STAGES[1:]  # of the first one only how strong each channel is, not where
CHANNELS = tuple(STAGES[k][3] for k in READ_STAGES)
DIMENSION = sum(CHANNELS) + GRID * GRID * sum(CHANNELS[1:])


def describe(net: EfficientNetLite, x: Tensor) -> Tensor:
    """x [N,3,R,R] in [-1,1] -> [N,DIMENSION] float32: `pooled` feature maps."""
    return pooled(net.features(at_size(x), READ_STAGES))


def pooled(maps: Sequence[Tensor]) -> Tensor:
    """The maps of `READ_STAGES` -> [N,DIMENSION] float32: means over a grid and root mean squares."""
    parts = []
    for stage, y in zip(READ_STAGES, maps, strict=True):
        y = y.float()
        if stage in PLACED_STAGES:
            parts.append(F.adaptive_avg_pool2d(y, GRID).flatten(1))
        parts.append((y.square().mean((2, 3)) + 1e-8).sqrt())
    return torch.cat(parts, 1)


def at_size(x: Tensor) -> Tensor:
    """x [N,3,R,R] -> [N,3,SIZE,SIZE], by areas where it gets smaller."""
    if x.shape[-1] == SIZE:
        return x
    if x.shape[-1] > SIZE:
        return F.adaptive_avg_pool2d(x, SIZE)
    return F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


class FaceReader(nn.Module):
    """Aligned faces [N,3,R,R] in [-1,1] -> labels in their own units, [N,K].

    `labels` names the K columns, `spread [K]` is each one's standard deviation over people, `projection [D,E]` takes
    standardised features to where people are told apart.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    spread: Tensor
    projection: Tensor

    def __init__(self, net: EfficientNetLite, labels: tuple[str, ...], embedding: int = 64) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.names = labels
        self.register_buffer("mean", torch.zeros(DIMENSION))
        self.register_buffer("scale", torch.ones(DIMENSION))
        self.register_buffer("weight", torch.zeros(DIMENSION, len(labels)))
        self.register_buffer("bias", torch.zeros(len(labels)))
        self.register_buffer("spread", torch.ones(len(labels)))
        self.register_buffer("projection", torch.zeros(DIMENSION, embedding))

    def features(self, x: Tensor) -> Tensor:
        """[N,DIMENSION], standardised."""
        return self.standardised(describe(self.net, x))

    def standardised(self, described: Tensor) -> Tensor:
        """[N,DIMENSION] of `describe` in standard deviations of what the heads were fitted on."""
        return (described - self.mean) * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """[N,K]: the labels."""
        return self.read(self.features(x))

    def read(self, features: Tensor) -> Tensor:
        """The labels [N,K] from standardised features [N,DIMENSION]."""
        return features @ self.weight + self.bias

    def embed(self, features: Tensor) -> Tensor:
        """Unit vectors [N,E] from standardised features; the scalar product of two says how alike two people are."""
        return F.normalize(features @ self.projection, dim=1)

    def column(self, name: str) -> int:
        """The number of a label. Raises KeyError."""
        if name not in self.names:
            raise KeyError(name)
        return self.names.index(name)


def save_face_reader(path: Path, reader: FaceReader, meta: Mapping[str, Any]) -> None:
    """Write the heads; the backbone is published by others and stays where it is."""
    state = {name: value.cpu().contiguous() for name, value in reader.named_buffers(recurse=False)}
    state = {name: value.half() if value.ndim > 1 else value for name, value in state.items()}
    table = {"labels": list(reader.names), "backbone": reader.net.config.name, **meta}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"sg3": json.dumps(table, sort_keys=True)})


def load_face_reader(path: Path, net: EfficientNetLite) -> FaceReader:
    """A reader from the heads in `path` and its backbone. Raises ModelError."""
    try:
        with safe_open(str(path), framework="pt") as file:
            table = json.loads((file.metadata() or {})["sg3"])
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if table["backbone"] != net.config.name:
            raise ModelError(f"{path} reads with {table['backbone']}, not {net.config.name}", "pull its backbone")
        reader = FaceReader(net, tuple(table["labels"]), state["projection"].shape[1])
        reader.load_state_dict(state, strict=False)
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} is not a face reader: {error}", "make it with `reader_fit`") from error
    return reader.eval()
