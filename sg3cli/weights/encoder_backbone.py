"""The EfficientNet-Lite0 that a model's encoder holds, read alone: another network may look with the same eyes."""

from __future__ import annotations

import torch
from safetensors import SafetensorError, safe_open

from sg3cli.errors import ModelError
from sg3cli.nets.efficientnet_lite import LITE0, EfficientNetLite
from sg3cli.nets.feature_branch import GRIDS
from sg3cli.weights import store
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.efficientnet import load_efficientnet_lite

PREFIX = "features.net."  # of its parameters in an encoder with a feature branch


def load_backbone(bundle: Bundle, allow_pull: bool = False) -> EfficientNetLite:
    """That of the encoder of the bundle, up to its last stage; else the published one. Raises `ModelError`."""
    found = _of_encoder(bundle) if bundle.has_encoder else None
    if found is None:
        store.require("perceptual", allow_pull)
        found = load_efficientnet_lite(store.path_of("perceptual"))
    return found.eval().requires_grad_(False)


def _of_encoder(bundle: Bundle) -> EfficientNetLite | None:
    path, _ = bundle.encoder_path(), bundle.encoder_digest
    try:
        with safe_open(str(path), framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118 (not a mapping)
            state: dict[str, torch.Tensor] = {name.removeprefix(PREFIX): file.get_tensor(name) for name in names}
        if not state:
            return None
        net = EfficientNetLite(LITE0, last=GRIDS[-1][0])
        net.load_state_dict(state)
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ModelError(f"{path} is damaged: {error}", "copy the model again") from error
    return net
