"""A backbone for tests of text models: maps of the right shapes that hold the picture's colours, in no time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.drawing.images import write_png
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.levels import tensor_to_uint8
from sg3cli.nets.efficientnet_lite import STAGES
from sg3cli.nets.generator import Generator


class CheapEyes(torch.nn.Module):
    """Has the `features` of an EfficientNetLite."""

    def features(self, x: Tensor, stages: tuple[int, ...]) -> list[Tensor]:
        rng = torch.Generator().manual_seed(0)
        small = F.adaptive_avg_pool2d(x, 8)
        mixed = [torch.randn(STAGES[k][3], 3, generator=rng) for k in stages]
        return [F.conv2d(small, m[:, :, None, None]) for m in mixed]


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every text model look with them."""
    for module in ("latents.embedded_text", "weights.encoder_backbone"):
        monkeypatch.setattr(f"sg3cli.{module}.load_backbone", lambda bundle, allow_pull=False: CheapEyes())


def drawn(G: Generator, count: int, truncation: float = 1.0) -> Tensor:
    """`[count,3,R,R]`: drawings of the first seeds."""
    ws = torch.from_numpy(Sampler(G, GenerateConfig(truncation=truncation)).codes(range(count)))
    with torch.inference_mode():
        return G.synthesis(ws).clamp(-1, 1).clone()


def green_and_red(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """How much greener than blue and how much redder than both pictures `[N,3,R,R]` are."""
    means = x.mean((2, 3))
    return (means[:, 1] - means[:, 2]).numpy(), (means[:, 0] - means[:, 1:].mean(1)).numpy()


def labelled(G: Generator, folder: Path, count: int = 96) -> Path:
    """A table that calls green drawings of the generator smiling, and red ones bespectacled."""
    x = drawn(G, count)
    ranks = [np.argsort(np.argsort(values)) / (count - 1) for values in green_and_red(x)]
    lines = ["file,smile,glasses"]
    for k, image in enumerate(x):
        write_png(folder / f"{k}.png", tensor_to_uint8(image[None]).permute(0, 2, 3, 1).numpy()[0])
        lines.append(f"{k}.png,{ranks[0][k]:.3f},{ranks[1][k]:.3f}")
    table = folder / "labels.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf8")
    return table
