"""A bundle from networks and directions that were trained on pairs.

    python -m sg3cli.training.people128.pair_bundle --start EMA --photos PHOTOS --probe BUNDLE --out FOLDER

What pairs teach is joined by what photographs tell: how people age (`photo_directions`), and the difference between
women and men. The mapping is fitted to the codes of the photographs, so that `sg3 generate` draws people from noise.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from sg3cli import __version__
from sg3cli.files import atomic_path, digest_of, write_json
from sg3cli.nets.checkpoint import save_encoder, save_generator
from sg3cli.training.people128.fit_mapping import fit_mapping
from sg3cli.training.people128.pair_data import PictureSet, attribute_index, first_held_out_person, photo_rows
from sg3cli.training.people128.pair_trainer import PairNet, load_start
from sg3cli.training.people128.photo_directions import COVARIATES, codes_of, partial_direction
from sg3cli.weights.bundle import ATTRIBUTE_NET, load_model
from sg3cli.weights.registry import PHOTO_CREDITS

# Where hair is looked for: (along, aside) in distances from the chin to the brows, from the middle of the brows.
HAIR_PLACES = (
    (0.4, 0.0),
    (0.55, 0.0),
    (0.7, 0.0),
    (0.4, 0.25),
    (0.4, -0.25),
    (0.3, 0.45),
    (0.3, -0.45),
    (0.1, 0.55),
    (0.1, -0.55),
)
TRAINED = "directions.safetensors"  # as the run has them, so that another one can start from the bundle
LICENCE = "MIT (weights and code); trained on CC0 renders and on photographs under open licences, see credits"


@dataclass(frozen=True)
class Shipped:
    """A direction of the bundle: what strength 1 is, where it holds, and what it is made of.

    `factor` times the direction that pairs taught of `attribute`, and `change` of the label `column` of photographs.
    """

    aim: str
    range: tuple[float, float]
    attribute: str | None = None
    factor: float = 1.0
    column: str | None = None
    change: float = 0.0


# Factors and ranges are what eight held-out photographs looked right with: directions from pairs are fitted by least
# squares, which shrinks them where the drawing is soft. Raised brows were hardly seen at four units and are left out.
SHIPPED: dict[str, Shipped] = {
    "age": Shipped("visibly older, the hair excepted", (-2.5, 3.0), "age", 1.08, "age", 16.8),
    "smile": Shipped("a smile that begins; 2 shows teeth", (-2.0, 2.5), "smile", 1.5),
    "mouth-open": Shipped("the lips part; 2 opens the mouth", (0.0, 2.0), "mouth_open"),
    "eyes-closed": Shipped("lids half down; 2 nearly closes them", (0.0, 2.0), "eyes_closed", 1.5),
    "yaw": Shipped("turned 15 degrees to the right of the picture", (-2.0, 2.0), "yaw"),
    "pitch": Shipped("10 degrees further down", (-2.0, 2.0), "pitch"),
    "glasses": Shipped("a pair of glasses", (0.0, 1.5), "glasses", 1.5),
    "beard": Shipped("a short beard; 2 a full one", (-1.0, 2.0), "beard"),
    "makeup": Shipped("made-up eyes and lips", (-1.0, 2.0), "makeup", 2.0),
    "gender": Shipped("half of the way from women to men", (-2.0, 2.0), column="sex", change=0.5),
}


def hair_levels(photos: PictureSet, rows: np.ndarray, size: int = 64) -> np.ndarray:
    """[N,P] mean level, 0 to 1, of small squares where hair is or was: above the forehead and beside it."""
    import cv2

    levels = np.empty((len(rows), len(HAIR_PLACES)), np.float32)
    for k, row in enumerate(rows):
        grey = cv2.cvtColor(
            cv2.resize(photos.picture(int(row)), (size, size), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
        )
        points = photos.landmarks[row] * size
        brows, up = points[17:27].mean(0), points[17:27].mean(0) - points[8]
        across = np.array([-up[1], up[0]])
        for p, (along, aside) in enumerate(HAIR_PLACES):
            x, y = np.clip(np.rint(brows + along * up + aside * across), 1, size - 2).astype(int)
            levels[k, p] = grey[y - 1 : y + 2, x - 1 : x + 2].mean() / 255
    return levels


def photo_difference(photos: PictureSet, rows: np.ndarray, codes: np.ndarray, name: str) -> np.ndarray:
    """[num_ws,w_dim]: change of the codes [N,num_ws,w_dim] of photographs with a label, everything else that is known
    about them being held. The first code, which places the picture, stays.

    The hair is held, too: most of it lies outside of what an edit may change, and a rim that turns grey would show.
    """
    known = ~np.isnan(photos.column(name)[rows])
    rows, codes = rows[known], codes[known]
    sources = photos.column("source")[rows]
    others = np.stack([photos.column(other)[rows] for other in ("age", *COVARIATES) if other != name], 1)
    hair = hair_levels(photos, rows)
    others = np.c_[others, hair, hair**2, (sources[:, None] == np.unique(sources)[1:]).astype(np.float32)]
    direction = partial_direction(codes, photos.column(name)[rows], others)
    direction[0] = 0
    return direction


def directions_of(net: PairNet, photos: PictureSet, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> [num_ws,w_dim] float32: what strength 1 adds to the codes."""
    index, trained = attribute_index(), (net.directions * net.free).detach().numpy()
    found: dict[str, np.ndarray] = {}
    for name, shipped in SHIPPED.items():
        vector = np.zeros(trained.shape[1:], np.float32)
        if shipped.attribute is not None:
            vector += shipped.factor * trained[index[shipped.attribute]]
        if shipped.column is not None:
            vector += shipped.change * photo_difference(photos, rows, codes, shipped.column)
        found[name] = vector
    return found


def write_directions(folder: Path, vectors: Mapping[str, np.ndarray], generator: str) -> None:
    """`NAME.safetensors` for each, with its aim and the strengths within which it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, vector in vectors.items():
        shipped = SHIPPED[name]
        ways = ("pairs that differ in it alone" if shipped.attribute else "", "photographs" if shipped.column else "")
        method = " and ".join(filter(None, ways))
        meta = {"schema": 1, "name": name, "generator": generator, "aim": shipped.aim, "range": shipped.range}
        meta |= {"method": method, "norm": float(np.linalg.norm(vector, axis=-1).max())}
        with atomic_path(folder / f"{name}.safetensors") as temp:
            save_file({"direction": vector}, temp, metadata={"sg3": json.dumps(meta, sort_keys=True)})


@torch.no_grad()
def write_pair_bundle(
    folder: Path, net: PairNet, photos: PictureSet, probe: Path, record: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Write the bundle, all in half precision; `record` tells in `model.json` how it was trained. The directions."""
    rows = photo_rows(photos, first_held_out_person(photos.identity))[0]
    codes: Tensor = codes_of(net, photos, rows)
    start = net.G.mapping.w_avg.clone()
    held = fit_mapping(net.G, codes.mean(1))
    net.G.mapping.w_avg.copy_(start)  # the code from which the encoder learned to go on; another one costs .6 dB
    folder.mkdir(parents=True, exist_ok=True)
    save_generator(folder / "generator.safetensors", net.G, {"name": folder.name}, dtype=torch.float16)
    save_encoder(folder / "encoder.safetensors", net.encoder, {"name": folder.name}, dtype=torch.float16)
    digest = digest_of(folder / "generator.safetensors")
    with atomic_path(folder / TRAINED) as temp:
        save_file({"D": net.directions.detach().numpy().astype(np.float16)}, temp)
    shutil.rmtree(folder / "directions", ignore_errors=True)
    vectors = directions_of(net, photos, rows, codes.numpy())
    write_directions(folder / "directions", vectors, digest)
    if probe.resolve() != (folder / ATTRIBUTE_NET).resolve():
        shutil.copyfile(probe, folder / ATTRIBUTE_NET)
    card = {
        "schema": 1,
        "name": folder.name,
        "resolution": net.G.img_resolution,
        "licence": LICENCE,
        "source": "made by this project: sg3 train",
        "credits": list(PHOTO_CREDITS),
        "tool": __version__,
        "training": {**record, "mapping_holds": round(held, 3)},
    }
    write_json(folder / "model.json", card)
    return vectors


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="Write a bundle from a run on pairs.")
    parser.add_argument("--start", type=Path, required=True, help="generator, encoder and directions of a run")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--probe", default="people-128", help="bundle whose attribute net reads the pictures")
    parser.add_argument("--record", type=Path, help="JSON on how it was trained, for model.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    record = {} if given.record is None else json.loads(given.record.read_text(encoding="utf8"))
    net = load_start(given.start, 0).eval()
    write_pair_bundle(given.out, net, PictureSet(given.photos), load_model(given.probe).path / ATTRIBUTE_NET, record)


if __name__ == "__main__":
    main()
