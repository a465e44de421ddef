"""What a label means in the codes of photographs, everything else that is known about them being held.

The codes are regressed on the label and on what else is known (source of the picture, sex, pose, mouth, light, skin);
the coefficient of the label is what differs between people who are alike otherwise. For age it hardly overlaps with the
direction that pairs of renders teach (cosine below .2), so the two are added (`pair_bundle`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sg3cli.nets.restyle import average_image, restyle_codes
from sg3cli.training.people128.pair_data import PictureSet
from sg3cli.training.people128.pair_net import PairNet

COVARIATES = (
    "sex", "yaw", "pitch", "mouth_gap", "mouth_corner_lift", "mouth_width", "luminance",
    "skin_mean_r", "skin_mean_g", "skin_mean_b", "eye_open_left", "padding",
)  # fmt: skip
RIDGE = 5.0


@torch.no_grad()
def codes_of(net: PairNet, photos: PictureSet, rows: np.ndarray, size: int = 128) -> Tensor:
    """Codes [N,num_ws,w_dim] of pictures after three ReStyle steps."""
    start = average_image(net.G, net.encoder.config.input_size)
    parts = np.array_split(rows, max(1, len(rows) // 24))
    return torch.cat([restyle_codes(net.encoder, net.G, photos.tensor(part, size), 3, start) for part in parts])


def partial_direction(codes: np.ndarray, value: np.ndarray, others: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """codes [N,...], value [N], others [N,C] -> [...]: change of the codes with `value` when the others are held.

    The others are standardised here and their unknown values (NaN) set to the mean; only their coefficients are shrunk.
    """
    known = np.where(np.isnan(others), np.nanmean(others, 0), others)
    spread = known.std(0)
    known = (known - known.mean(0))[:, spread > 1e-9] / spread[spread > 1e-9]
    design = np.c_[value - value.mean(), known]
    flat = codes.reshape(len(codes), -1).astype(np.float64)
    shrink = ridge * np.diag([0.0, *np.ones(known.shape[1])])
    solved = np.linalg.solve(design.T @ design + shrink, design.T @ (flat - flat.mean(0)))
    return solved[0].reshape(codes.shape[1:]).astype(np.float32)
