"""The configuration of a ReStyle encoder from the shapes of its state dict."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any

import torch

from sg3cli.errors import ModelError
from sg3cli.nets.encoder import Encoder, EncoderConfig
from sg3cli.weights.infer_generator import Shapes, first_difference
from sg3cli.weights.safe_pickle.values import shown

KINDS = {  # the checkpoint's `encoder_type`: (trunk, kind); only the trunk shows in the shapes
    "BackboneEncoder": ("irse", "psp"),
    "ProgressiveBackboneEncoder": ("irse", "e4e"),
    "ResNetBackboneEncoder": ("resnet", "psp"),
    "ResNetProgressiveBackboneEncoder": ("resnet", "e4e"),
}
MAX_BLOCKS, MAX_HEADS, MAX_HALVINGS = 256, 128, 16
HINT = "sg3 reads ReStyle-pSp and ReStyle-e4e encoders with IR-SE50 and ResNet-34 trunks"


def infer_encoder(shapes: Shapes, encoder_type: Any) -> EncoderConfig:
    """The configuration that gives back `shapes` exactly. Raises `ModelError` with the first tensor that differs."""
    if not isinstance(encoder_type, str) or encoder_type not in KINDS:
        raise ModelError(f"the checkpoint's encoder_type is {shown(encoder_type)}, not one of {', '.join(KINDS)}", HINT)
    trunk, kind = KINDS[encoder_type]
    config = _config(shapes, trunk, kind)
    difference = first_difference(encoder_shapes(config), shapes)
    if difference:
        raise ModelError(f"its tensors are not those of a {encoder_type}: {difference}", HINT)
    return config


def encoder_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor of an encoder's state dict."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Encoder(config).state_dict().items()}


def _config(shapes: Shapes, trunk: str, kind: str) -> EncoderConfig:
    irse = trunk == "irse"
    stem = _shape(shapes, "input_layer.0.weight" if irse else "conv1.weight", 4)
    last = "res_layer.3.weight" if irse else "conv2.weight"  # a block's second convolution
    blocks = [_shape(shapes, f"body.{i}.{last}", 4)[0] for i in range(_count(shapes, r"body\.(\d+)\..*"))]
    stages = tuple((channels, len(list(same))) for channels, same in groupby(blocks))
    squeeze = shapes.get("body.0.res_layer.5.fc1.weight", ())
    head = _shape(shapes, "styles.0.convs.0.weight", 4)
    linear = _shape(shapes, "styles.0.linear.weight", 2)
    heads = _count(shapes, r"styles\.(\d+)\.linear\.weight")
    halvings = _count(shapes, r"styles\.0\.convs\.(\d+)\.weight") // 2 + 1  # a convolution and its activation
    if not 0 < len(blocks) <= MAX_BLOCKS or heads > MAX_HEADS or halvings + len(stages) > MAX_HALVINGS:
        raise ModelError(f"it is no encoder: {len(blocks)} blocks, {heads} heads of {halvings} convolutions", HINT)
    return EncoderConfig(
        input_nc=stem[1],
        input_size=2 ** (halvings + len(stages)),
        stem=stem[0],
        stages=stages,
        head_dim=head[0],
        num_ws=heads,
        w_dim=linear[0],
        kind=kind,
        se_reduction=blocks[0] // squeeze[0] if len(squeeze) == 4 and 0 < squeeze[0] <= blocks[0] else 0,
        trunk=trunk,
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that `pattern` finds in a name."""
    numbers = [int(match[1][:5]) for name in shapes if (match := re.fullmatch(pattern, name))]
    return min(max(numbers, default=-1) + 1, len(shapes))


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, dims: int) -> tuple[int, ...]:
    shape = tuple(shapes.get(name, ()))
    if len(shape) != dims or not all(0 < n < 1 << 14 for n in shape):
        state = f"has shape {shown(shape)}" if name in shapes else "is missing"
        raise ModelError(f"its tensors are not those of an encoder: {name} {state}", HINT)
    return shape
