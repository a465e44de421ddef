"""A start for `pair_run` whose encoder has a `FeatureBranch`, or a wider one: the same codes at first, components from
pictures.

python -m sg3cli.training.people128.feature_start --start EMA --photos PHOTOS --edits EDITS --backbone WHEEL --out DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.encoder import with_features
from sg3cli.nets.feature_branch import HIDDEN, describe, fit_components, grow
from sg3cli.training.people128.pair_data import PictureSet, first_held_out_person, photo_rows, split_groups
from sg3cli.training.people128.pair_net import PairNet, codes_of, load_start, save_start
from sg3cli.weights.efficientnet import load_efficientnet_lite

RENDERS = 600  # beside all photographs
AT_ONCE = 24


@torch.no_grad()
def described(
    net: PairNet, backbone: EfficientNetLite, pictures: PictureSet, rows: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Descriptions [N,DIMENSION] of pictures and of what is drawn of them after three passes."""
    seen, drawn = [], []
    for part in np.array_split(rows, max(1, len(rows) // AT_ONCE)):
        seen.append(describe(backbone, pictures.tensor(part, net.G.img_resolution)))
        drawn.append(describe(backbone, net.G.synthesis(codes_of(net, pictures, part)).clamp(-1, 1)))
    return torch.cat(seen), torch.cat(drawn)


@torch.no_grad()
def add_features(
    net: PairNet,
    backbone: EfficientNetLite,
    photos: PictureSet,
    edits: PictureSet,
    components: int,
    hidden: int = HIDDEN,
) -> float:
    """Give the encoder the branch, in place; the share of the differences that the components hold."""
    people = photo_rows(photos, first_held_out_person(photos.identity))[0]
    known = np.flatnonzero(np.isin(np.asarray(edits.group), split_groups(edits)[0]))
    renders = np.random.default_rng(0).permutation(known)[:RENDERS]
    parts = [described(net, backbone, s, rows) for s, rows in ((photos, people), (edits, renders))]
    targets, drawn = (torch.cat(of) for of in zip(*parts, strict=True))
    old = net.encoder.features
    net.encoder = with_features(net.encoder, components, hidden)
    assert net.encoder.features is not None
    if old is None:
        return fit_components(net.encoder.features, backbone, targets, drawn)
    return grow(net.encoder.features, old, targets, drawn)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="Add a branch on a backbone's features to an encoder.")
    parser.add_argument("--start", type=Path, required=True, help="generator, encoder and directions of a run")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--edits", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True, help=".pth or wheel of EfficientNet-Lite0")
    parser.add_argument("--components", type=int, default=384)
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="width of the branch's small network")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    net, backbone = load_start(given.start, 0).eval(), load_efficientnet_lite(given.backbone).eval()
    photos, edits = PictureSet(given.photos), PictureSet(given.edits)
    held = add_features(net, backbone, photos, edits, given.components, given.hidden)
    save_start(given.out, net, {"components_hold": round(held, 3)})
    sys.stdout.write(f"{given.components} components hold {held:.1%} of the differences\n")


if __name__ == "__main__":
    main()
