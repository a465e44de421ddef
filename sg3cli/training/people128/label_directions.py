"""Directions of the code space, from the label matrix M and from labelled codes.

The generator is trained on w = w_avg + M a with standardised labels a, so a column of M is what one standard deviation
of a label does when every other label is held. That is InterFaceGAN's conditional manipulation (arXiv 1907.10786,
Section 2.3) with all labels as conditions at once. Two corrections make it what a user means by the word:

* wrinkles come with age in life and move along, twice as far as their regression on age over the people says; grey hair
  does not: most of the hair lies outside of the mask and keeps its colour, so a rim that greys would show;
* strength 1 is a unit that reads well (8 years, two fifths of the way from no smile to a full one, 15 degrees), not one
  standard deviation of this data set.

What shapes a face leaves the last codes alone, which colour it: there a direction tints dark hair and the wall (seen).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from sg3cli.files import atomic_path
from sg3cli.training.people128.conditions import Conditions

SHAPE_SHARE = 0.7  # of the codes shape what is seen; the others colour it


@dataclass(frozen=True)
class DirectionSpec:
    """`label` and how much of it strength 1 adds; `along`: labels that follow, in shares of their regression on it.

    `colour`: it acts on all layers; others leave out the last ones, which colour the image.
    """

    label: str
    unit: float
    means: str
    along: Mapping[str, float] = field(default_factory=dict)
    colour: bool = False

    def layers(self, num_ws: int) -> slice:
        """The codes it acts on. Never the first: that is the place of the image."""
        return slice(1, num_ws if self.colour else round(SHAPE_SHARE * num_ws))


SPECS: dict[str, DirectionSpec] = {
    "age": DirectionSpec("age", 8.0, "8 years older", {"wrinkles": 2.0}),
    "smile": DirectionSpec("smile", 0.4, "two fifths of a smile"),
    "gender": DirectionSpec("sex", 0.5, "half of the way from female to male"),
    "mouth-open": DirectionSpec("mouth_open", 0.2, "a fifth of a fully open mouth", {"mouth_gap": 1.0}),
    "yaw": DirectionSpec("yaw", 15.0, "turned 15 degrees to the right of the picture"),
    "pitch": DirectionSpec("pitch", 10.0, "10 degrees further down"),
    "glasses": DirectionSpec("glasses", 0.5, "half of a pair of glasses", colour=True),
    "beard": DirectionSpec("beard", 0.5, "half of a full beard", colour=True),
    "weight": DirectionSpec("weight", 0.4, "heavier by a quarter of the slider"),
    "makeup": DirectionSpec("makeup", 0.5, "half of full makeup", colour=True),
    "eyes-closed": DirectionSpec("eye_closed_left", 0.4, "both eyes closed by 40 %", {"eye_closed_right": 1.0}),
    "hair-light": DirectionSpec(
        "hair_r", 40.0, "hair lighter by 40 of 255 levels of red", {"hair_g": 1.0, "hair_b": 1.0}, True
    ),
    "skin-light": DirectionSpec(
        "skin_r", 30.0, "skin lighter by 30 of 255 levels of red", {"skin_g": 1.0, "skin_b": 1.0}, True
    ),
    "brows-raised": DirectionSpec("brow_raise", 0.35, "brows raised by half of the slider"),
}


def label_step(conditions: Conditions, spec: DirectionSpec) -> np.ndarray:
    """[C] change of the standardised labels that strength 1 of a direction means."""
    step = np.zeros(len(conditions.names), np.float32)
    k = conditions.index(spec.label)
    step[k] = spec.unit / conditions.std[k]
    for name, share in spec.along.items():
        j = conditions.index(name)
        slope = float((conditions.vectors[:, k] * conditions.vectors[:, j]).mean())  # both have unit variance
        step[j] = share * slope * step[k]
    return step


def direction_vectors(M: Tensor, conditions: Conditions, names: Sequence[str]) -> dict[str, Tensor]:
    """{name: [1,w_dim]}: what strength 1 adds to w according to the labels."""
    return {name: (M @ torch.from_numpy(label_step(conditions, SPECS[name])))[None] for name in names}


def regress_codes(codes: Tensor, conditions: Conditions, ridge: float = 1e-3) -> tuple[Tensor, float]:
    """Least squares w - mean = M a on labelled codes [N,w_dim]: (M [w_dim,C], share of the variance explained)."""
    a = torch.from_numpy(conditions.vectors).double()
    w = codes.double() - codes.double().mean(0)
    gram = a.T @ a / len(a) + ridge * torch.eye(a.shape[1], dtype=torch.double)
    M = torch.linalg.solve(gram, a.T @ w / len(a)).T
    explained = 1 - float((w - a @ M.T).square().sum() / w.square().sum())
    return M.float(), explained


def save_directions(folder: Path, vectors: dict[str, Tensor], generator: str, factors: dict[str, float]) -> None:
    """Write `NAME.safetensors` with `direction` [1 or num_ws,w_dim] for each; strength 1 adds it to the codes.

    `factors` have been applied already and are recorded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, direction in vectors.items():
        spec, vector = SPECS[name], direction.numpy().astype(np.float32)
        meta = {
            "schema": 1,
            "name": name,
            "generator": generator,
            "aim": spec.means,  # what the labels say; the response that was measured stands in model.json
            "method": "conditional normals from labels, decoupled and calibrated on encoded faces",
            "calibration": round(factors[name], 3),
            "norm": float(np.linalg.norm(vector, axis=-1).max()),
        }
        with atomic_path(folder / f"{name}.safetensors") as temp:
            save_file({"direction": vector}, temp, metadata={"sg3": json.dumps(meta, sort_keys=True)})
