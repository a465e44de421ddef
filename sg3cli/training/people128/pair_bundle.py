"""A bundle from networks and directions that were trained on pairs.

    python -m sg3cli.training.people128.pair_bundle --start EMA --photos PHOTOS --probe BUNDLE --out FOLDER

Pairs of renders teach what can be rendered. How a real face ages, smiles, opens its mouth or closes its eyes is fitted
afterwards to what a reader sees in drawings of photographs (`read_edits`). The mapping is fitted to the codes of
photographs, so that `sg3 generate` draws people from noise.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from sg3cli import __version__
from sg3cli.files import atomic_path, digest_of, write_json
from sg3cli.nets.checkpoint import save_encoder, save_generator
from sg3cli.nets.face_reader import FaceReader, load_face_reader, save_face_reader
from sg3cli.training.people128.fit_mapping import fit_mapping
from sg3cli.training.people128.pair_data import (
    PictureSet,
    attribute_index,
    first_held_out_person,
    photo_rows,
    split_groups,
)
from sg3cli.training.people128.pair_net import PairNet, codes_of, load_start
from sg3cli.training.people128.read_edits import Faces, ReadConfig, ReadEdits, fit_directions
from sg3cli.weights.bundle import ATTRIBUTE_NET, READER, load_model, noted_parts
from sg3cli.weights.efficientnet import load_efficientnet_lite
from sg3cli.weights.kept import said
from sg3cli.weights.registry import MODEL_CREDITS, PHOTO_CREDITS

TRAINED = "directions.safetensors"  # as the run has them, so that another one can start from the bundle
BACKBONE_LICENCE = "APACHE-2.0.md"  # of the weights in the encoder's branch
BACKBONE_HELD = "the encoder holds EfficientNet-Lite0, Apache-2.0"
LICENCE = "MIT (weights and code); trained on CC0 renders and on photographs under open licences, see credits"


@dataclass(frozen=True)
class Shipped:
    """A direction of the bundle: what strength 1 is and where it holds.

    `factor` times the direction that pairs taught of `attribute`; without one it is fitted to a reader (`READABLE`),
    and `taught` times what pairs say is added: a reader sees years wherever there are some, pairs know where folds lie.
    """

    aim: str
    range: tuple[float, float]
    attribute: str | None = None
    factor: float = 1.0
    taught: float = 0.0
    keeps: tuple[str, ...] = ()  # what it does not mean to change (`weights.kept`)
    skin: float = 0.0  # the share by which skin shows more of its own structure (`compositing.skin`)


# Factors and ranges are what eight held-out photographs looked right with: a fit shrinks directions where a drawing is
# soft. Raised brows were hardly seen at four units and are left out.
SHIPPED: dict[str, Shipped] = {
    "age": Shipped(
        "10 to 20 years older, the hair excepted",
        (-2.0, 2.0),
        factor=1.0,
        taught=1.0,
        keeps=("hue", "shade", "outside", "eyes", "nose", "mouth"),
        skin=0.25,
    ),
    "smile": Shipped(
        "a smile with closed lips; 2 shows teeth", (-2.0, 2.0), factor=0.9, keeps=("hue", "shade", "outside", "eyes")
    ),
    "mouth-open": Shipped("the mouth opens; 2 opens it wide", (0.0, 2.0), "mouth_open", 0.65, keeps=("hue", "outside")),
    "eyes-closed": Shipped("lids half down; 2 closes them", (0.0, 2.0), "eyes_closed", 1.25, keeps=("hue", "outside")),
    "yaw": Shipped("turned 15 degrees to the right of the picture", (-2.0, 2.0), "yaw"),
    "pitch": Shipped("10 degrees further down", (-2.0, 2.0), "pitch"),
    "glasses": Shipped("a pair of glasses", (0.0, 1.5), "glasses", 1.5),
    "beard": Shipped("a short beard; 2 a full one", (-1.0, 2.0), "beard"),
    "makeup": Shipped("made-up eyes and lips", (-1.0, 2.0), "makeup", 2.0, keeps=("outside",)),
    "gender": Shipped("half of the way from women to men", (-2.0, 2.0), keeps=("hue", "outside")),
}
PASSES = 2  # of the encoder: on held-out photographs a third brings nothing
RENDERS = 600  # codes of renders beside those of photographs, so that both are read


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def directions_of(net: PairNet, read: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Name -> [num_ws,w_dim] float32: what strength 1 adds to the codes."""
    index, trained = attribute_index(), (net.directions * net.free).detach()
    found = {}
    for name, shipped in SHIPPED.items():
        vector = shipped.factor * (read[name] if shipped.attribute is None else trained[index[shipped.attribute]])
        if shipped.taught:
            vector = vector + shipped.taught * trained[index[name.replace("-", "_")]]
        found[name] = vector.numpy().astype(np.float32)
    return found


def write_directions(folder: Path, vectors: Mapping[str, np.ndarray], generator: str) -> None:
    """`NAME.safetensors` for each, with its aim and the strengths within which it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, vector in vectors.items():
        shipped = SHIPPED[name]
        method = "pairs that differ in it alone" if shipped.attribute else "a reader of drawn photographs"
        meta = {"schema": 1, "name": name, "generator": generator, "aim": shipped.aim, "range": shipped.range}
        meta |= {
            **said(shipped.keeps),
            "skin": shipped.skin,
            "method": method,
            "norm": float(np.linalg.norm(vector, axis=-1).max()),
        }
        with atomic_path(folder / f"{name}.safetensors") as temp:
            save_file({"direction": vector}, temp, metadata={"sg3": json.dumps(meta, sort_keys=True)})


@dataclass(frozen=True)
class Sources:
    """What a bundle is made of beside the networks: photographs and pairs, and the reader that judges drawings."""

    photos: PictureSet
    edits: PictureSet
    reader: FaceReader
    probe: Path
    config: ReadConfig = field(default_factory=ReadConfig)


@torch.no_grad()
def write_pair_bundle(folder: Path, net: PairNet, given: Sources, record: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Write the bundle, all in half precision; `record` tells in `model.json` how it was trained. The directions."""
    photos, edits = given.photos, given.edits
    seen = photo_rows(photos, first_held_out_person(photos.identity))[0]
    codes = codes_of(net, photos, seen)
    plain = np.flatnonzero(np.isin(np.asarray(edits.group), split_groups(edits)[0]) & ~np.asarray(edits.altered))
    plain = np.random.default_rng(0).permutation(plain)[:RENDERS]
    rendered = codes_of(net, edits, plain)
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
    points = np.concatenate([photos.landmarks[seen], edits.landmarks[plain]]) * net.G.img_resolution
    faces = Faces(torch.cat([codes, rendered]), torch.from_numpy(points).float())
    with torch.enable_grad():
        read = fit_directions(ReadEdits(given.reader, net.G, given.config), faces, _say)
    vectors = directions_of(net, read)
    write_directions(folder / "directions", vectors, digest)
    save_face_reader(folder / READER, given.reader, {})
    if net.encoder.features is not None:
        shutil.copyfile(load_model("people-128").path / BACKBONE_LICENCE, folder / BACKBONE_LICENCE)
    if given.probe.resolve() != (folder / ATTRIBUTE_NET).resolve():
        shutil.copyfile(given.probe, folder / ATTRIBUTE_NET)
    card = {
        "schema": 1,
        "name": folder.name,
        "resolution": net.G.img_resolution,
        "restyle_steps": PASSES,
        "licence": LICENCE if net.encoder.features is None else f"{LICENCE}; {BACKBONE_HELD}",
        "source": "made by this project: sg3 train",
        "credits": list(PHOTO_CREDITS if net.encoder.features is None else MODEL_CREDITS),
        "tool": __version__,
        "training": {**record, "mapping_holds": round(held, 3)},
    }
    write_json(folder / "model.json", card | {"parts": noted_parts(folder)})
    return vectors


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="Write a bundle from a run on pairs.")
    parser.add_argument("--start", type=Path, required=True, help="generator, encoder and directions of a run")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--edits", type=Path, required=True, help="set of pairs")
    parser.add_argument("--reader", type=Path, required=True, help="heads of a face reader (`reader_fit`)")
    parser.add_argument("--backbone", type=Path, required=True, help="of the reader: EfficientNet-Lite0")
    parser.add_argument("--read-steps", type=int, default=ReadConfig().steps)
    parser.add_argument("--probe", default="people-128", help="bundle whose attribute net reads the pictures")
    parser.add_argument("--record", type=Path, help="JSON on how it was trained, for model.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    record = {} if given.record is None else json.loads(given.record.read_text(encoding="utf8"))
    net = load_start(given.start, 0).eval()
    reader = load_face_reader(given.reader, load_efficientnet_lite(given.backbone))
    probe = load_model(given.probe).path / ATTRIBUTE_NET
    config = ReadConfig(steps=given.read_steps)
    sources = Sources(PictureSet(given.photos), PictureSet(given.edits), reader, probe, config)
    write_pair_bundle(given.out, net, sources, record)


if __name__ == "__main__":
    main()
