"""What happens to a face on its way into a video: the encoder learns to see through it.

Renders are clean; footage is soft, noisy, compressed, and a part of the face may be covered. The encoder is given a
degraded image and has to find the codes of the clean one. Colours are not touched here (`people128/probe.py`
changes them in image and target alike), because the codes have to hold them.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.levels import tensor_to_signed, tensor_to_uint8


def degrade(x: Tensor, rng: torch.Generator, share: float = 0.6) -> Tensor:
    """x [N,3,R,R] in [-1,1] -> the same images, each fault on its own in about half of a `share` of them.

    Faults: fewer pixels (down to a quarter), blur of a moving camera, JPEG of quality 15 to 80, sensor noise, a patch
    that covers up to a fifth of the face. Every number comes from `rng`, in the order of the images.
    """
    return torch.stack([_spoil(image, rng) if _chance(rng, share) else image for image in x])


def _spoil(x: Tensor, rng: torch.Generator) -> Tensor:
    """x [3,R,R]."""
    if _chance(rng):
        x = _fewer_pixels(x, 1 + 3 * _uniform(rng))
    if _chance(rng, 0.3):
        x = _motion_blur(x, 3 + 2 * int(3 * _uniform(rng)), np.pi * _uniform(rng))
    if _chance(rng, 0.3):
        x = _covered(x, rng)
    if _chance(rng):
        x = x + 0.12 * _uniform(rng) * torch.randn(x.shape, generator=rng)
    if _chance(rng):
        x = _jpeg(x, 15 + int(65 * _uniform(rng)))
    return x.clamp(-1, 1)


def _uniform(rng: torch.Generator) -> float:
    return torch.rand(1, generator=rng).item()


def _chance(rng: torch.Generator, p: float = 0.5) -> bool:
    return _uniform(rng) < p


def _fewer_pixels(x: Tensor, factor: float) -> Tensor:
    size = x.shape[-1]
    small = F.interpolate(x[None], size=max(8, round(size / factor)), mode="area")
    return F.interpolate(small, size=size, mode="bilinear", align_corners=False)[0]


def _motion_blur(x: Tensor, length: int, angle: float) -> Tensor:
    """A line of `length` pixels (odd) as the kernel."""
    kernel = np.zeros((length, length), np.float32)
    centre, reach = (length - 1) / 2, (length - 1) / 2
    for t in np.linspace(-reach, reach, 4 * length):
        kernel[round(centre + t * np.sin(angle)), round(centre + t * np.cos(angle))] += 1
    weight = torch.from_numpy(kernel / kernel.sum()).expand(3, 1, -1, -1)
    padded = F.pad(x[None], [length // 2] * 4, mode="reflect")
    return F.conv2d(padded, weight, groups=3)[0]


def _covered(x: Tensor, rng: torch.Generator) -> Tensor:
    """An ellipse of one colour, a hand or a microphone at the rim of the face."""
    size = x.shape[-1]
    cx, cy, rx, ry = torch.rand(4, generator=rng).tolist()
    axis = (torch.arange(size) + 0.5) / size
    inside = ((axis[None] - cx) / (0.08 + 0.17 * rx)) ** 2 + ((axis[:, None] - cy) / (0.08 + 0.17 * ry)) ** 2 < 1
    return torch.where(inside, 2 * torch.rand(3, 1, 1, generator=rng) - 1, x)


def _jpeg(x: Tensor, quality: int) -> Tensor:
    import cv2

    pixels = tensor_to_uint8(x).permute(1, 2, 0).contiguous().numpy()
    coded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return tensor_to_signed(torch.from_numpy(decoded).permute(2, 0, 1))
