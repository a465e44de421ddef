"""`sg3 evaluate generator|spaces|inversion` run in this process, on the tiny model."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_generator

from sg3cli import cli
from sg3cli.drawing.images import read_image, write_png
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.levels import tensor_to_signed
from sg3cli.metrics.perceptual import StructuralLoss
from sg3cli.nets.attribute_net import AttributeNet, AttributeNetConfig, save_attribute_net


def without_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured does not depend on what has been pulled."""
    monkeypatch.setattr("sg3cli.weights.store.is_present", lambda name: False)
    for report in ("generator", "spaces", "inversion"):
        monkeypatch.setattr(f"sg3cli.evaluation.{report}_report.make_perceptual", lambda kind: StructuralLoss())


def evaluate(*arguments: object, folder: Path, code: int = 0) -> tuple[str, dict[str, Any]]:
    """(The table, what stands in `report.json`) of `sg3 evaluate ARGUMENTS`; looks at the picture too."""
    out, table = folder / "report.json", io.StringIO()
    with contextlib.redirect_stdout(table):
        assert cli.run(["evaluate", *map(str, arguments), "-o", str(out), "-q"]) == code
    if code:
        return table.getvalue(), {}
    image = read_image(folder / "report.png")
    assert image.shape[1] == 1280 and 20 < image.std() < 120
    return table.getvalue(), json.loads(out.read_text())


def drawn(count: int, first: int = 0) -> Iterator[np.ndarray]:
    """Pictures of the tiny generator's seeds."""
    return Sampler(tiny_generator(), GenerateConfig()).images(range(first, first + count))


def draw_pictures(folder: Path, count: int, first: int = 0) -> Path:
    """The same in a folder."""
    folder.mkdir()
    for k, image in enumerate(drawn(count, first)):
        write_png(folder / f"{k:03d}.png", image)
    return folder


def lively_reader(path: Path, labels: tuple[str, ...] = ("age", "glow", "frown")) -> Path:
    """An attribute net of chance whose labels differ between the tiny generator's pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = AttributeNet(AttributeNetConfig(labels, 1, (8, 16, 16, 16), 8)).eval()
    images = torch.stack([tensor_to_signed(torch.from_numpy(x)) for x in drawn(24)]).permute(0, 3, 1, 2)
    with torch.no_grad():
        net.labels.weight.div_(net(images)[0].std(0)[:, None])
    save_attribute_net(path, net)
    return path
