"""Models that put texts and images into one space: what a text edit asks of them, and CLIP through open_clip.

`clip:ViT-B-32` is the model that StyleCLIP's published tables were made with. The package open_clip is an extra; its
weights are those of `sg3 models pull clip-vit-b-32`, read as safetensors. `embedded` is the small one that comes with a
generator (`embedded_text`). Another model fits in by the same protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.errors import ModelError
from sg3cli.metrics.torchvision_compat import import_torchvision
from sg3cli.weights import store

DEFAULT = "clip:ViT-B-32"
EMBEDDED = "embedded"
AUTO = "auto"  # the one that comes with the generator, where there is one
CLIP_SIDE = 224
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class TextModel(Protocol):
    """Texts and images as directions of one space."""

    name: str  # `clip:ViT-B-32`; tables and directions carry it
    width: int  # D

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """`[n, D]` float32 rows of length 1."""
        ...

    def images(self, images: Tensor) -> np.ndarray:
        """Images `[n, 3, H, W]` in [-1, 1] -> `[n, D]` float32 rows of length 1."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """The same `[n, D]` as a tensor through which gradients go back to the images."""
        ...

    def unknown(self, text: str) -> list[str]:
        """Words of the text that lie outside of what the model knows; empty where it cannot tell."""
        ...


class ClipModel:
    """CLIP ViT-B/32 of OpenAI. Raises `ModelError` when open_clip or its weights are not here."""

    name = DEFAULT
    width = 512

    def __init__(self, device: torch.device, allow_pull: bool = False) -> None:
        if find_spec("open_clip") is None:
            raise ModelError(f"{self.name} needs the package open_clip_torch", "in the clone: pip install '.[clip]'")
        import_torchvision()  # which open_clip imports
        import open_clip

        weights = store.require("clip-vit-b-32", allow_pull)
        self.device = device
        net = open_clip.create_model("ViT-B-32-quickgelu", pretrained=str(weights), device=device)
        self._net: Any = net.eval().requires_grad_(False)
        self._tokenizer: Any = open_clip.get_tokenizer("ViT-B-32-quickgelu")

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `TextModel`."""
        with torch.inference_mode():
            return unit_rows(self._net.encode_text(self._tokenizer(list(texts)).to(self.device)))

    def images(self, images: Tensor) -> np.ndarray:
        """See `TextModel`."""
        with torch.inference_mode():
            return unit_rows(self.embed(images))

    def embed(self, images: Tensor) -> Tensor:
        """See `TextModel`."""
        rows: Tensor = F.normalize(self._net.encode_image(clip_input(images.to(self.device))).float(), dim=1)
        return rows

    def unknown(self, text: str) -> list[str]:
        """It has been shown nearly everything."""
        return []


def clip_input(images: Tensor) -> Tensor:
    """Images `[n, 3, H, W]` in [-1, 1] as CLIP takes them: `[n, 3, 224, 224]`, its mean and deviation taken out."""
    levels = (images.clamp(-1, 1) + 1) / 2
    levels = F.interpolate(levels, (CLIP_SIDE, CLIP_SIDE), mode="bicubic", align_corners=True)
    mean, std = (levels.new_tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (levels - mean) / std


def unit_rows(values: Tensor) -> np.ndarray:
    """Rows of length 1, float32."""
    rows: np.ndarray = F.normalize(values.float(), dim=1).cpu().numpy()
    return rows


MODELS: Mapping[str, Callable[[torch.device, bool], TextModel]] = {DEFAULT: ClipModel}
