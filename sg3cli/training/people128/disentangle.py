"""Directions that hold the other labels: by measured responses instead of by the label matrix alone.

A column of M holds the other labels only as far as the training taught the columns apart, and encoded faces answer
differently from faces drawn from labels. Here every column is tried on encoded faces, a net reads what moved
(R [A,C]: label x column), and a direction is the mix of columns a that moves what is meant and nothing else:

    min_a  |R a - t|^2 + ridge |a - a0|^2 ,   a0 what the labels say, t = a0 at the labels that are meant, 0 elsewhere.

The ridge keeps to combinations that the labels know; without it the mix would use what the net misreads. Colours
and the size of the face are held in the same way: a smile must not redden the skin or tint the wall.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sg3cli.nets.attribute_net import AttributeNet
from sg3cli.nets.restyle import restyle_codes
from sg3cli.training.data.synthface import FaceSet
from sg3cli.training.people128.autoencoder import Autoencoder
from sg3cli.training.people128.conditions import Conditions
from sg3cli.training.people128.label_directions import SPECS, label_step

RIDGE = 0.25
LAYERS = slice(1, None)  # all but the place of the image
COLOUR_STEP = 0.2  # a shift of the mean colour by 25 of 255 levels is held as a label's standard deviation is
SIZE_STEP = 0.08  # so is a face larger by 8 %
FIRM = {
    "yaw": 3.0,
    "pitch": 3.0,
    "roll": 3.0,
    "smile": 2.0,
}  # are held so much more: a video shows at once if they move
COLOURS = tuple(f"{part}_{channel}" for part in ("back", "face") for channel in "rgb")
HELD = (*COLOURS, "size")  # what no label says and nobody means, unless ...
FREE = {"skin_r": COLOURS[3:], "yaw": (*COLOURS[3:], "size"), "pitch": (*COLOURS[3:], "size")}  # ... it is meant


@torch.no_grad()
def column_responses(
    net: Autoencoder, attribute_net: AttributeNet, faces: FaceSet, layers: slice = LAYERS, step: float = 1.0
) -> Tensor:
    """R [A+7,C]: mean change of each label of the net and of `HELD` per unit of a column of M in the codes `layers`.

    Labels in their standard deviations. Central differences over `step` standard deviations on the inversions of
    `faces`.
    """
    ws = torch.cat([restyle_codes(net.encoder, net.G, faces.batch(rows)) for rows in _batches(len(faces))])

    def read(offset: Tensor) -> Tensor:
        moved = ws.clone()
        moved[:, layers] += offset
        drawn = [net.G.synthesis(part).clamp(-1, 1) for part in moved.split(16)]
        return torch.cat([readings(attribute_net, images) for images in drawn]).mean(0)

    columns = net.M.detach().T
    return torch.stack([(read(step * m) - read(-step * m)) / (2 * step) for m in columns], dim=1)


def readings(attribute_net: AttributeNet, y: Tensor) -> Tensor:
    """[N,A+7]: the labels of images y [N,3,R,R] and, in steps that weigh as much, `HELD`."""
    labels, landmarks, _ = attribute_net(y)
    size = y.shape[-1]
    edge, left, right, top, low = size // 8, 3 * size // 8, 5 * size // 8, 3 * size // 8, 5 * size // 8
    back = torch.cat([y[:, :, : 4 * edge, :edge], y[:, :, : 4 * edge, -edge:]], dim=3).mean((2, 3))
    face = y[:, :, top:low, left:right].mean((2, 3))
    centre = landmarks.mean(1)
    radius = (landmarks - centre[:, None]).square().sum(2).mean(1).sqrt().clamp(min=1e-3)
    return torch.cat([labels, back / COLOUR_STEP, face / COLOUR_STEP, radius.log()[:, None] / SIZE_STEP], dim=1)


def disentangled_step(step: np.ndarray, R: np.ndarray, target: np.ndarray, ridge: float = RIDGE) -> np.ndarray:
    """[C] the mix of columns nearest to `step` [C] whose response R a [A] is `target` [A]; see the module."""
    gram = R.T @ R + ridge * np.eye(len(step))
    return step + np.linalg.solve(gram, R.T @ (target - R @ step))


def disentangled_vectors(
    M: Tensor, conditions: Conditions, R: Tensor, labels: Sequence[str], names: Sequence[str], ridge: float = RIDGE
) -> dict[str, Tensor]:
    """{name: [1,w_dim]}: strength 1 of each direction; `labels` [A] and `HELD` are the rows of R [A+7,C]."""
    vectors = {}
    for name in names:
        step, spec = label_step(conditions, SPECS[name]).astype(np.float64), SPECS[name]
        meant, free = {spec.label, *spec.along}, FREE.get(spec.label, ())
        rows = [k for k, row in enumerate((*labels, *HELD)) if row not in free]
        target = np.array([step[conditions.index(label)] if label in meant else 0.0 for label in (*labels, *HELD)])
        firm = np.array([1.0 if label in meant else FIRM.get(label, 1.0) for label in (*labels, *HELD)])
        response = R.double().numpy() * firm[:, None]
        mix = disentangled_step(step, response[rows], target[rows], ridge)
        vectors[name] = (M @ torch.from_numpy(mix).to(M))[None]
    return vectors


def _batches(count: int, size: int = 16) -> list[np.ndarray]:
    return [np.arange(i, min(i + size, count)) for i in range(0, count, size)]
