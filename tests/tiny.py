"""A model bundle small enough for any test: a 32 px StyleGAN3-R, an encoder and two directions, all random."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sg3cli.files import digest_of
from sg3cli.nets.checkpoint import save_encoder, save_generator
from sg3cli.nets.encoder import Encoder, EncoderConfig
from sg3cli.nets.generator import Generator
from sg3cli.nets.generator_config import GeneratorConfig

RESOLUTION = 32
W_DIM = 32
DIRECTIONS = ("age", "smile")


def tiny_config(**changes: object) -> GeneratorConfig:
    base = GeneratorConfig(
        z_dim=W_DIM,
        w_dim=W_DIM,
        img_resolution=RESOLUTION,
        channel_base=256,
        channel_max=16,
        num_layers=6,
        margin_size=6,
        conv_kernel=1,
        use_radial_filters=True,
    )
    return GeneratorConfig.from_dict(base.to_dict() | changes)


def tiny_generator(seed: int = 0, **changes: object) -> Generator:
    """Random R generator [N, 8, 32] -> [N, 3, 32, 32], eval mode; w_avg is the mean of its own codes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        G = Generator(tiny_config(**changes)).eval().requires_grad_(False)
        G.mapping.w_avg.copy_(G.mapping(torch.randn(256, G.config.z_dim))[:, 0].mean(dim=0))
        for layer in G.synthesis.layers():
            layer.bias.normal_(0, 0.1)
    return G


def tiny_encoder(seed: int = 1) -> Encoder:
    """Random encoder for 32 px images; its residuals are smaller than the spread of codes."""
    config = EncoderConfig(
        input_size=RESOLUTION, stem=8, stages=((8, 1), (16, 1)), head_dim=16, num_ws=8, w_dim=W_DIM, se_reduction=4
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = Encoder(config).eval().requires_grad_(False)
    return encoder


def random_direction(seed: int) -> Tensor:
    """A unit vector, the same for each of the 8 codes: [8, 32]."""
    noise = torch.Generator().manual_seed(seed)
    vector = torch.randn(1, W_DIM, generator=noise)
    return (vector / vector.norm()).repeat(8, 1)


def make_tiny_bundle(folder: Path | str) -> Path:
    """Write the bundle into `folder` (made if need be) and return it; the same bytes at every call."""
    folder = Path(folder)
    (folder / "directions").mkdir(parents=True, exist_ok=True)
    save_generator(folder / "generator.safetensors", tiny_generator())
    save_encoder(folder / "encoder.safetensors", tiny_encoder())
    digest = digest_of(folder / "generator.safetensors")
    for seed, name in enumerate(DIRECTIONS):
        meta = {"name": name, "generator": digest, "unit": 1.0}
        save_file(
            {"direction": random_direction(seed)},
            folder / "directions" / f"{name}.safetensors",
            metadata={"sg3": json.dumps(meta, sort_keys=True)},
        )
    model = {
        "schema": 1,
        "name": "tiny",
        "resolution": RESOLUTION,
        "licence": "CC0-1.0",
        "source": "random weights made by the tests",
    }
    (folder / "model.json").write_text(json.dumps(model, indent=2) + "\n", encoding="utf8")
    return folder
