"""The score card of a face model: how it draws, inverts, edits and moves, on people that no training saw.

Everything is read by an attribute net that had no part in training generator, encoder or directions. Two models are
compared by cards of the same data and the same net.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sg3cli.metrics.equivariance import eq_r, eq_t
from sg3cli.metrics.frechet import FaceFeatures, frechet_distance
from sg3cli.nets.attribute_net import AttributeNet
from sg3cli.nets.encoder import Encoder
from sg3cli.nets.generator import Generator
from sg3cli.nets.restyle import restyle_codes
from sg3cli.training.data.synthface import FaceSet
from sg3cli.training.people128.bundle import subset
from sg3cli.training.people128.scores import direction_scores, reconstruction_scores

POSE = ("yaw", "pitch", "roll")


def score_card(
    G: Generator, encoder: Encoder, directions: Mapping[str, Tensor], labels: Mapping[str, str],
    attribute_net: AttributeNet, test: FaceSet, faces: int = 64, drawn: int = 512,
) -> dict[str, Any]:  # fmt: skip
    """Scores on `faces` held-out faces (twice as many for reconstruction); `labels` {direction: label it means}.

    "frechet": drawn at psi 1 from the mapping; "frechet_inverted": the inversions of the faces, which is what edits
    start from. "directions": for each the response, R2, identity, the strongest leaks, all responses.
    """
    shown = subset(test, faces)
    batches = [np.arange(i, min(i + 16, len(shown))) for i in range(0, len(shown), 16)]
    ws = torch.cat([restyle_codes(encoder, G, shown.batch(rows)) for rows in batches])
    table = direction_scores(G, encoder, attribute_net, shown, dict(directions))
    return {
        **_distances(G, encoder, test, drawn),
        **reconstruction_scores(G, encoder, attribute_net, subset(test, 2 * faces)),
        "eq_t": round(eq_t(G, ws[:32]), 2),
        "eq_r": round(eq_r(G, ws[:32]), 2),
        "directions": {name: _summary(table[name], labels[name]) for name in directions},
    }


@torch.no_grad()
def _distances(G: Generator, encoder: Encoder, test: FaceSet, count: int) -> dict[str, float]:
    features, shown = FaceFeatures(), subset(test, count)
    parts = np.array_split(np.arange(len(shown)), -(-len(shown) // 16))
    real = features(shown.batch(rows) for rows in parts)
    noise = torch.Generator().manual_seed(0)
    drawn = features(G(torch.randn(len(rows), G.config.z_dim, generator=noise)) for rows in parts)
    inverted = features(G.synthesis(restyle_codes(encoder, G, shown.batch(rows))) for rows in parts)
    return {
        "frechet": round(frechet_distance(real, drawn), 3),
        "frechet_inverted": round(frechet_distance(real, inverted), 3),
    }


def _summary(row: Mapping[str, Mapping[str, float]], label: str) -> dict[str, Any]:
    """The response that is meant, and what comes along: the largest others, pose (root of squares), smile, identity."""
    slopes = {name: value["slope"] for name, value in row.items() if "slope" in value}
    own = slopes[label]
    others = sorted((name for name in slopes if name != label), key=lambda name: -abs(slopes[name]))
    return {
        "label": label,
        "slope": own,
        "responses": slopes,
        "r2": row[label]["r2"],
        "leaks": {name: slopes[name] for name in others[:3]},
        "pose_leak": round(float(np.sqrt(sum(slopes[p] ** 2 for p in POSE if p in slopes and p != label))), 4),
        "smile_leak": abs(slopes["smile"]) if label != "smile" else 0.0,
        "identity_leak": round(1 - row["identity"]["cosine"], 4),
    }
