"""What edits of held-out photographs do, read by a face reader that had no part in making them.

    python -m sg3cli.training.people128.read_scores MODEL... --photos PHOTOS --reader JUDGE --backbone WHEEL

For every direction of a bundle: the mean change of its label at strengths -2 to 2 against the unedited drawing, the
share of the faces for which it rises all the way, and the leak, which is the root mean square change of all other
labels at strength 1, in standard deviations over people. Of neutral London faces the share that is read as smiling.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from sg3cli.compositing.shade import as_shown
from sg3cli.files import write_json
from sg3cli.nets.efficientnet_lite import LITE0, LITE1
from sg3cli.nets.face_reader import FaceReader, load_face_reader
from sg3cli.nets.restyle import average_image, restyle_codes
from sg3cli.training.people128.pair_data import PictureSet, first_held_out_person, photo_rows
from sg3cli.training.people128.read_edits import READABLE
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.efficientnet import load_efficientnet_lite

Figures = dict[str, dict[str, float]]

STRENGTHS = (-2.0, -1.0, 0.0, 1.0, 2.0)
SMILING = 0.3  # half of the way from the neutral to the smiling London pictures
LABELS = {name: readable.label for name, readable in READABLE.items()} | {
    "mouth-open": "mouth_open", "eyes-closed": "eyes_closed",
    "yaw": "yaw", "pitch": "pitch", "glasses": "glasses", "beard": "beard", "makeup": "makeup",
}  # fmt: skip
UNSURE = ("brow_raise", "makeup")  # not counted as leaks: they can hardly be read


@torch.no_grad()
def readings(
    bundle: Bundle, reader: FaceReader, pictures: PictureSet, rows: np.ndarray, strengths: Sequence[float] = STRENGTHS
) -> dict[str, Tensor]:
    """{direction: [S,N,L]}: what is read of the drawings of `rows`, as they are shown, at each strength."""
    G, encoder = bundle.generator(), bundle.encoder()
    start = average_image(G, encoder.config.input_size)
    vectors = {name: _vector(bundle, name) for name in bundle.direction_names() if name in LABELS}
    found: dict[str, list[Tensor]] = {name: [] for name in vectors}
    for part in np.array_split(rows, max(1, len(rows) // 16)):
        ws = restyle_codes(encoder, G, pictures.tensor(part, G.img_resolution), 3, start)
        plain = G.synthesis(ws)
        before = reader(plain.clamp(-1, 1))
        for name, vector in vectors.items():
            kept = bundle.directions[name].keeps
            shown = (as_shown(plain, G.synthesis(ws + s * vector), kept) if s else plain for s in strengths)
            read = [before if s == 0 else reader(y.clamp(-1, 1)) for s, y in zip(strengths, shown, strict=True)]
            found[name].append(torch.stack(read))
    return {name: torch.cat(parts, 1) for name, parts in found.items()}


def _vector(bundle: Bundle, name: str) -> Tensor:
    with safe_open(str(bundle.direction_path(name)), framework="pt") as stored:
        return stored.get_tensor("direction").float()


def response(read: Tensor, reader: FaceReader, name: str, strengths: Sequence[float] = STRENGTHS) -> dict[str, float]:
    """The figures of one direction from read [S,N,L]."""
    column, zero, one = reader.column(LABELS[name]), strengths.index(0.0), strengths.index(1.0)
    own = read[:, :, column]
    table = {f"at {s:g}": float((own[k] - own[zero]).mean()) for k, s in enumerate(strengths) if s}
    others = [k for k, label in enumerate(reader.names) if k != column and label not in UNSURE]
    change = ((read[one] - read[zero]) / reader.spread)[:, others]
    table["rises"] = float((own.diff(dim=0) > 0).all(0).float().mean())
    table["leak"] = float(change.mean(0).square().mean().sqrt())
    worst = int(change.mean(0).abs().argmax())
    return table | {f"most: {reader.names[others[worst]]}": float(change.mean(0)[worst])}


def smiling_share(read: Tensor, reader: FaceReader, neutral: np.ndarray, strength: int) -> float:
    """Of neutral faces [N] bool, the share that is read as smiling at a strength's number."""
    smiles = read[strength, torch.from_numpy(neutral), reader.column("smile")]
    return float((smiles > SMILING).float().mean())


def scores(bundle: Bundle, reader: FaceReader, pictures: PictureSet, rows: np.ndarray) -> Figures:
    """The figures of every direction of a bundle that a reader can judge."""
    found = readings(bundle, reader, pictures, rows)
    table = {name: response(read, reader, name) for name, read in found.items()}
    neutral = pictures.column("is_smiling")[rows] == 0
    if "smile" in found and neutral.any():
        for k, strength in enumerate(STRENGTHS):
            if strength >= 0:
                table["smile"][f"smiling at {strength:g}"] = smiling_share(found["smile"], reader, neutral, k)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="What edits of held-out photographs do, by a judging reader.")
    parser.add_argument("models", nargs="+", help="names of bundles or their folders")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--reader", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--lite1", action="store_true", help="the backbone is that of lite1")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    pictures = PictureSet(given.photos)
    rows = photo_rows(pictures, first_held_out_person(pictures.identity))[1]
    net = load_efficientnet_lite(given.backbone, LITE1 if given.lite1 else LITE0)
    reader, table = load_face_reader(given.reader, net), {}
    for model in given.models:
        table[model] = scores(load_model(model), reader, pictures, rows)
        for name, row in table[model].items():
            figures = ", ".join(f"{what} {value:.2f}" for what, value in row.items())
            sys.stdout.write(f"{Path(model).name} {name}: {figures}\n")
    if given.out is not None:
        write_json(given.out, table)


if __name__ == "__main__":
    main()
