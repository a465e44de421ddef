"""The deterministic rule by which the golden encoders were filled: every number follows from a tensor's name.

So that a network of 160 million parameters needs no file. All arithmetic in float64, stored as float32.
"""

from __future__ import annotations

import zlib
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from sg3cli.nets.encoder import Encoder, EncoderConfig

_BLOCK = 1 << 18  # elements at a time: the intermediate arrays stay in the cache


def uniforms(name: str, count: int) -> np.ndarray:
    """`count` float64 in [0, 1): a 32-bit hash of crc32(name) + index."""
    out = np.empty(count)
    start = zlib.crc32(name.encode())
    for at in range(0, count, _BLOCK):
        x = (np.arange(at, min(at + _BLOCK, count), dtype=np.uint64) + np.uint64(start)).astype(np.uint32)
        x ^= x >> np.uint32(16)
        x *= np.uint32(0x7FEB352D)
        x ^= x >> np.uint32(15)
        x *= np.uint32(0x846CA68B)
        x ^= x >> np.uint32(16)
        np.multiply(x, 2.0**-32, out=out[at : at + _BLOCK])
    return out


def signed(name: str, shape: list[int]) -> Tensor:
    """Inputs of single blocks: 2u - 1."""
    return torch.from_numpy((2 * uniforms(name, int(np.prod(shape))) - 1).astype(np.float32).reshape(shape))


def filled_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.long)
    u = uniforms(name, int(np.prod(shape)))
    if name.endswith("running_var"):
        u += 0.5
    elif name.endswith(("running_mean", ".bias")):
        u = 0.04 * (u - 0.5)
    elif len(shape) <= 1:
        u = 0.25 + 0.5 * u
    else:
        half = np.sqrt(3) if name.endswith("linear.weight") else np.sqrt(6 / np.prod(shape[1:]))
        u -= 0.5
        u *= 2 * half
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


def image(name: str, shape: tuple[int, int, int, int]) -> Tensor:
    """Network inputs: a plane wave per channel plus noise, clipped to [-1, 1]."""
    n, c, h, w = shape
    noise = 2 * uniforms(name, n * c * h * w).reshape(shape) - 1
    wave = uniforms(f"{name}/wave", 3 * n * c).reshape(n, c, 3, 1, 1)
    a, b, phase = 12 * wave[:, :, 0] - 6, 12 * wave[:, :, 1] - 6, 6.25 * wave[:, :, 2]
    smooth = np.sin(a * (np.arange(w) / w) + b * (np.arange(h) / h)[:, None] + phase)
    return torch.from_numpy(np.clip(0.7 * smooth + 0.5 * noise, -1, 1).astype(np.float32))


def fill(net: nn.Module) -> nn.Module:
    """Give `net`, which may be on the meta device, its values; eval mode."""
    state = {k: filled_tensor(k, tuple(v.shape)) for k, v in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    return net.eval().requires_grad_(False)


@lru_cache(maxsize=1)
def full_encoder(trunk: str) -> Encoder:
    """A full-size e4e encoder (`trunk` "irse" or "resnet"); pSp has the same parameters, see `as_psp`."""
    config = EncoderConfig(kind="e4e") if trunk == "irse" else EncoderConfig.resnet34(kind="e4e")
    with torch.device("meta"):
        encoder = Encoder(config)
    fill(encoder)
    return encoder


def as_psp(encoder: Encoder) -> Encoder:
    """The pSp encoder that shares all tensors of an e4e one."""
    with torch.device("meta"):
        twin = Encoder(EncoderConfig.from_dict({**encoder.config.to_dict(), "kind": "psp"}))
    twin.load_state_dict(encoder.state_dict(), assign=True)
    return twin.eval().requires_grad_(False)
