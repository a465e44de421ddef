"""From a training state to a model bundle: mapping, directions, scores and the record of how it was made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sg3cli import __version__
from sg3cli.errors import ModelError
from sg3cli.files import atomic_path, digest_of, write_json
from sg3cli.nets.attribute_net import AttributeNet, save_attribute_net
from sg3cli.nets.checkpoint import save_encoder, save_generator
from sg3cli.nets.restyle import restyle_codes
from sg3cli.training.data.synthface import FaceSet
from sg3cli.training.people128.autoencoder import Autoencoder
from sg3cli.training.people128.conditions import Conditions
from sg3cli.training.people128.disentangle import column_responses, disentangled_vectors
from sg3cli.training.people128.fit_mapping import fit_mapping
from sg3cli.training.people128.label_directions import SPECS, regress_codes, save_directions
from sg3cli.training.people128.scores import calibration, direction_scores, reconstruction_scores
from sg3cli.weights.bundle import ATTRIBUTE_NET, noted_parts

REACH = 0.46  # of the spread of the codes, which M's norm is: no direction is longer
LABEL_MATRIX = "label_matrix.safetensors"


@torch.no_grad()
def encode(net: Autoencoder, faces: FaceSet, rows: np.ndarray, steps: int = 3) -> Tensor:
    """Codes [N,num_ws,w_dim] of the images `rows`."""
    parts = [
        restyle_codes(net.encoder, net.G, faces.batch(rows[i : i + 32]), steps=steps) for i in range(0, len(rows), 32)
    ]
    return torch.cat(parts)


def write_bundle(
    folder: Path,
    net: Autoencoder,
    faces: FaceSet,
    conditions: Conditions,
    attribute_net: AttributeNet,
    record: dict[str, Any],
    vectors: dict[str, Tensor],
    factors: dict[str, float],
    codes: int = 2000,
) -> None:
    """Write the bundle: fit the mapping on `codes` encoded training faces, save all in half precision.

    `vectors` {name: [1 or num_ws,w_dim]} are the directions, `factors` the calibration that is in them already.
    """
    rows = np.random.default_rng(0).choice(len(faces), min(codes, len(faces)), replace=False)
    ws = encode(net, faces, rows)
    labelled = Conditions(conditions.names, conditions.mean, conditions.std, conditions.vectors[rows])
    w = ws.mean(1)
    _, explained = regress_codes(w, labelled)
    variance_explained = fit_mapping(net.G, w)
    folder.mkdir(parents=True, exist_ok=True)
    save_generator(folder / "generator.safetensors", net.G, {"name": folder.name}, dtype=torch.float16)
    save_encoder(folder / "encoder.safetensors", net.encoder, {"name": folder.name}, dtype=torch.float16)
    digest = digest_of(folder / "generator.safetensors")
    save_directions(folder / "directions", vectors, digest, factors)
    save_label_matrix(folder / LABEL_MATRIX, net.M.detach(), conditions)
    description = {
        "schema": 1,
        "name": folder.name,
        "resolution": net.G.img_resolution,
        "licence": "MIT (weights and code); trained on CC0 renders of synthetic people",
        "source": "made by this project: sg3 train",
        "tool": __version__,
        "training": record
        | {"labels_explain_codes": round(explained, 3), "mapping_holds": round(variance_explained, 3)},
    }
    save_attribute_net(folder / ATTRIBUTE_NET, attribute_net)
    write_json(folder / "model.json", description | {"parts": noted_parts(folder)})


def save_label_matrix(path: Path, M: Tensor, conditions: Conditions) -> None:
    """M [w_dim,C] with the names of its columns: what another training run needs to go on from this bundle."""
    names = {"names": json.dumps(conditions.names)}
    with atomic_path(path) as temp:
        save_file({"M": M.contiguous()}, temp, metadata=names)


def load_label_matrix(path: Path) -> tuple[Tensor, list[str]]:
    """M [w_dim,C] and the names of its columns. Raises `ModelError`."""
    if not path.is_file():
        raise ModelError(f"there is no {path}", "only models that `sg3 train bundle` made can be gone on from")
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.get_tensor("M").float(), json.loads((file.metadata() or {})["names"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}", "make the model again") from error


def subset(faces: FaceSet, count: int) -> FaceSet:
    """`count` faces spread evenly over a set."""
    keep = np.zeros(len(faces), bool)
    keep[:: max(1, len(faces) // count)] = True
    return faces.subset(keep)


def calibrated(
    net: Autoencoder,
    attribute_net: AttributeNet,
    faces: FaceSet,
    conditions: Conditions,
    names: Sequence[str],
    count: int = 32,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Directions {name: [num_ws,w_dim]} that hold the other labels, scaled to their unit on `count` encoded faces, and
    the factors of that scaling. What the model does not answer to is left out."""
    tried, num_ws, M = subset(faces, count), net.G.num_ws, net.M.detach()
    vectors: dict[str, Tensor] = {}
    for colour in sorted({SPECS[name].colour for name in names}):
        group = [name for name in names if SPECS[name].colour == colour]
        layers = SPECS[group[0]].layers(num_ws)
        R = column_responses(net, attribute_net, tried, layers)
        for name, vector in disentangled_vectors(M, conditions, R, attribute_net.config.labels, group).items():
            vectors[name] = torch.zeros(num_ws, M.shape[0])
            vectors[name][layers] = vector
    wanted = {name: (SPECS[name].label, SPECS[name].unit) for name in names}
    factors = calibration(net.G, net.encoder, attribute_net, tried, vectors, wanted)
    longest = REACH * float(M.norm())
    factors = {name: min(factor, longest / float(vectors[name][1].norm())) for name, factor in factors.items()}
    return {name: vectors[name] * factor for name, factor in factors.items()}, factors


def score(
    net: Autoencoder, attribute_net: AttributeNet, test: FaceSet, vectors: dict[str, Tensor], count: int = 64
) -> dict[str, Any]:
    """Scores on held-out people: reconstruction, and the response of every label to every direction."""
    return {
        "reconstruction": reconstruction_scores(net.G, net.encoder, attribute_net, subset(test, 2 * count)),
        "directions": direction_scores(net.G, net.encoder, attribute_net, subset(test, count), vectors),
    }
