"""What is trained together on pairs: generator, encoder and directions, and its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sg3cli.errors import ModelError
from sg3cli.files import atomic_path
from sg3cli.nets.checkpoint import load_encoder_file, load_generator_file, save_encoder, save_generator
from sg3cli.nets.encoder import Encoder, with_detail
from sg3cli.nets.generator import Generator
from sg3cli.nets.restyle import average_image, restyle_codes
from sg3cli.training.people128.pair_data import ATTRIBUTES, PictureSet

POSE = ("yaw", "pitch")  # only these may move the picture as a whole, which the first code does


class PairNet(nn.Module):
    """Generator, encoder and directions [K,num_ws,w_dim]: strength 1 of attribute k adds D[k] to the codes."""

    free: Tensor

    def __init__(self, G: Generator, encoder: Encoder, directions: Tensor) -> None:
        super().__init__()
        if directions.shape != (len(ATTRIBUTES), G.num_ws, G.w_dim):
            raise ModelError(f"directions of shape {list(directions.shape)} do not fit the generator", "")
        self.G, self.encoder = G, encoder
        self.directions = nn.Parameter(directions.clone())
        free = torch.ones(len(ATTRIBUTES), G.num_ws, 1)
        free[[k for k, name in enumerate(ATTRIBUTES) if name not in POSE], 0] = 0
        self.register_buffer("free", free, persistent=False)

    def edited(self, ws: Tensor, delta: Tensor) -> Tensor:
        """Codes ws [N,num_ws,w_dim] after a change delta [N,K] in units."""
        return ws + torch.einsum("nk,kld->nld", delta, self.directions * self.free)

    def train(self, mode: bool = True) -> PairNet:
        """Batch norms keep their statistics: a batch mixes renders and photographs, one picture is what is inverted."""
        super().train(mode)
        for module in self.encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self


def load_start(folder: Path, detail: int) -> PairNet:
    """Networks and directions of `folder` (generator, encoder, directions .safetensors); adds the detail branch."""
    G, _ = load_generator_file(folder / "generator.safetensors")
    encoder, _ = load_encoder_file(folder / "encoder.safetensors")
    if detail and not encoder.config.detail:
        encoder = with_detail(encoder, detail)
    with safe_open(str(folder / "directions.safetensors"), framework="pt") as file:
        directions = file.get_tensor("D").float()
    return PairNet(G, encoder, directions).requires_grad_(True)


@torch.no_grad()
def codes_of(net: PairNet, pictures: PictureSet, rows: np.ndarray) -> Tensor:
    """Codes [N,num_ws,w_dim] of pictures after three ReStyle steps."""
    start = average_image(net.G, net.encoder.config.input_size)
    parts = (pictures.tensor(part, net.G.img_resolution) for part in np.array_split(rows, max(1, len(rows) // 24)))
    return torch.cat([restyle_codes(net.encoder, net.G, x, 3, start) for x in parts])


def save_start(folder: Path, net: PairNet, meta: Mapping[str, Any]) -> None:
    """Write what `load_start` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_generator(folder / "generator.safetensors", net.G, dict(meta))
    save_encoder(folder / "encoder.safetensors", net.encoder, dict(meta))
    directions = (net.directions * net.free).detach().float().cpu().contiguous()
    with atomic_path(folder / "directions.safetensors") as temporary:
        save_file({"D": directions}, temporary, metadata={"attributes": json.dumps(list(ATTRIBUTES))})
