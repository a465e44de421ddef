"""Scores of a model on labelled renders."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sg3cli.nets.attribute_net import AttributeNet, perceptual_distance
from sg3cli.nets.encoder import Encoder
from sg3cli.nets.generator import Generator
from sg3cli.nets.restyle import restyle_codes, restyle_steps
from sg3cli.training.data.synthface import FaceSet

UNRESPONSIVE = 0.02  # standard deviations of the label per unit: less cannot be told from nothing


def psnr(y: Tensor, x: Tensor) -> Tensor:
    """[N] dB for images in [-1, 1]."""
    return 10 * torch.log10(4 / (y.clamp(-1, 1) - x).square().mean((1, 2, 3)))


@torch.no_grad()
def reconstruction_scores(
    G: Generator, encoder: Encoder, attribute_net: AttributeNet, faces: FaceSet
) -> dict[str, float]:
    """Means over a test set after each of three ReStyle steps: PSNR, feature distance, identity cosine."""
    totals: dict[str, float] = {}
    for first in range(0, len(faces), 32):
        x = faces.batch(np.arange(first, min(first + 32, len(faces))))
        who = attribute_net(x)[2]
        for step, ws in enumerate(restyle_steps(encoder, G, x, steps=3), start=1):
            y = G.synthesis(ws).clamp(-1, 1)
            values = {
                f"psnr_step{step}": psnr(y, x),
                f"features_step{step}": perceptual_distance(attribute_net, y, x),
                f"identity_step{step}": (attribute_net(y)[2] * who).sum(1),
            }
            for name, value in values.items():
                totals[name] = totals.get(name, 0.0) + float(value.sum())
    return {name: round(total / len(faces), 4) for name, total in totals.items()}


@torch.no_grad()
def direction_scores(
    G: Generator, encoder: Encoder, attribute_net: AttributeNet, faces: FaceSet, directions: dict[str, Tensor],
    strengths: tuple[float, ...] = (-2, -1, 0, 1, 2),
) -> dict[str, dict[str, dict[str, float]]]:  # fmt: skip
    """{direction: {label: {slope, r2}}}: label change per unit of strength, in the label's standard deviations.

    R2 is that of a straight line through each face's own zero, over faces and strengths. `identity` is the mean cosine
    between the unedited and the edited face at the ends.
    """
    batches = [np.arange(i, min(i + 16, len(faces))) for i in range(0, len(faces), 16)]
    ws = torch.cat([restyle_codes(encoder, G, faces.batch(rows), steps=3) for rows in batches])
    table = {}
    for name, direction in directions.items():
        readings, identities = [], []
        for strength in strengths:
            edited = ws.clone()
            edited[:, 1:] += strength * (direction if direction.shape[0] == 1 else direction[1:])
            heads = [attribute_net(G.synthesis(part).clamp(-1, 1)) for part in edited.split(16)]
            readings.append(torch.cat([h[0] for h in heads]))
            identities.append(torch.cat([h[2] for h in heads]))
        table[name] = _response(torch.stack(readings), strengths, attribute_net.config.labels)
        centre = identities[strengths.index(0)]
        ends = [(identities[k] * centre).sum(1).mean() for k in (0, -1)]
        table[name]["identity"] = {"cosine": round(float(sum(ends) / 2), 4)}
    return table


def calibration(
    G: Generator, encoder: Encoder, attribute_net: AttributeNet, faces: FaceSet, directions: dict[str, Tensor],
    wanted: dict[str, tuple[str, float]], limit: float = 1.5,
) -> dict[str, float]:  # fmt: skip
    """Factor for each direction after which strength 1 moves its label by the `wanted` (label, amount).

    Encoded faces respond less than faces drawn from labels do. The factor stays within [1, limit]: a direction that
    hardly acts is not blown up until it tears the face; one that moves its label by less than `UNRESPONSIVE` has none.
    """
    table = direction_scores(G, encoder, attribute_net, faces, directions, strengths=(-1, 0, 1))
    std = dict(zip(attribute_net.config.labels, attribute_net.std.tolist(), strict=True))
    factors = {}
    for name, (label, amount) in wanted.items():
        measured = table[name][label]["slope"] * std[label]
        if measured * amount > UNRESPONSIVE * std[label] * abs(amount):
            factors[name] = float(np.clip(amount / measured, 1.0, limit))
    return factors


def _response(readings: Tensor, strengths: tuple[float, ...], labels: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """readings [S,N,K] standardised labels -> slope and R2 of each label against the strength."""
    s = torch.tensor(strengths)
    change = readings - readings[strengths.index(0)]
    slope = (change * s[:, None, None]).sum((0, 1)) / (s.square().sum() * change.shape[1])
    residual = (change - s[:, None, None] * slope).square().sum((0, 1))
    spread = (change - change.mean((0, 1))).square().sum((0, 1)).clamp(min=1e-9)
    r2 = 1 - residual / spread
    return {label: {"slope": round(float(slope[k]), 4), "r2": round(float(r2[k]), 4)} for k, label in enumerate(labels)}
