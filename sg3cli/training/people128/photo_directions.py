"""What ageing looks like in photographs, added to the direction that pairs of renders taught.

Renders keep the colour of the hair and age by a shape and a wrinkle map; people turn grey, and skin and hair line
change. The codes of photographs with known ages are regressed on age, with everything else that is known about them as
further variables (source of the picture, sex, pose, mouth, light, skin), so that the coefficient of age is what differs
between people who are alike otherwise. It hardly overlaps with the direction from pairs (cosine below .2), so the two
are added.

    python -m sg3cli.training.people128.photo_directions --start EMA --photos PHOTOS --out FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sg3cli.nets.restyle import average_image, restyle_codes
from sg3cli.training.people128.pair_data import (
    ATTRIBUTES,
    PictureSet,
    attribute_index,
    first_held_out_person,
    photo_rows,
)
from sg3cli.training.people128.pair_trainer import PairNet, load_start, save_start

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


def ageing_in_photographs(net: PairNet, photos: PictureSet, rows: np.ndarray) -> Tensor:
    """[num_ws,w_dim] for the unit of `age`; zero for the first code, which places the picture."""
    rows = rows[~np.isnan(photos.column("age")[rows])]
    sources = photos.column("source")[rows]
    others = np.stack([photos.column(name)[rows] for name in COVARIATES], 1)
    others = np.c_[others, (sources[:, None] == np.unique(sources)[1:]).astype(np.float32)]
    age = photos.column("age")[rows] / ATTRIBUTES["age"].unit
    direction = torch.from_numpy(partial_direction(codes_of(net, photos, rows).numpy(), age, others))
    direction[0] = 0
    return direction


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`; photographs of people who are held out for judging are not used."""
    parser = argparse.ArgumentParser(description="Add what ages in photographs to the direction `age`.")
    parser.add_argument("--start", type=Path, required=True, help="generator, encoder and directions of a run")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--strength", type=float, default=1.0, help="how much of it; 0 adds nothing")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    photos, net = PictureSet(given.photos), load_start(given.start, 0).eval()
    rows = photo_rows(photos, first_held_out_person(photos.identity))[0]
    added = given.strength * ageing_in_photographs(net, photos, rows)
    with torch.no_grad():
        net.directions[attribute_index()["age"]] += added
    save_start(given.out, net, {"age": f"pairs + {given.strength} x photographs"})


if __name__ == "__main__":
    main()
