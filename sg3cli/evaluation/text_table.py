"""What texts do to faces, read by a face reader that had no part in making them.

    python -m sg3cli.evaluation.text_table MODEL --photos PHOTOS --edits EDITS --reader JUDGE --backbone WHEEL --lite1

32 photographs of people and 32 renders, all held out, are inverted and edited by each of ten texts at one alpha. In
standard deviations over people, mean over the faces: how much the label that the text names rises, and the sum of what
all other labels change by, up or down; `read` leaves those out that the reader can hardly read (`UNSURE`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sg3cli.files import write_json
from sg3cli.latents.codes import Codes
from sg3cli.latents.moves import ShiftS
from sg3cli.latents.rendering import draw
from sg3cli.latents.text_model import AUTO
from sg3cli.latents.text_models import load_text_model
from sg3cli.nets.efficientnet_lite import LITE0, LITE1
from sg3cli.nets.face_reader import FaceReader, load_face_reader
from sg3cli.nets.generator import Generator
from sg3cli.nets.restyle import average_image, restyle_codes
from sg3cli.pipeline.text_edits import make_text_direction
from sg3cli.training.people128.pair_data import PictureSet, first_held_out_person, photo_rows, split_groups
from sg3cli.training.people128.read_scores import UNSURE
from sg3cli.weights.bundle import Bundle, load_model
from sg3cli.weights.efficientnet import load_efficientnet_lite

FACES = 32  # of each kind
ENOUGH = 0.5  # standard deviations
AT_ONCE = 16
TEXTS: dict[str, str] = {
    "age": "an old face",
    "male": "a man",
    "smile": "a smiling face",
    "mouth_open": "a face with an open mouth",
    "eyes_closed": "a face with closed eyes",
    "yaw": "a face turned to the right",
    "pitch": "a face looking down",
    "glasses": "a person wearing glasses",
    "beard": "a face with a beard",
    "makeup": "a face with makeup",
}


def held_out_faces(photos: PictureSet, edits: PictureSet, size: int, faces: int = FACES) -> Tensor:
    """`[2 faces,3,size,size]`: photographs of people and unaltered renders that nothing was trained on."""
    people = photo_rows(photos, first_held_out_person(photos.identity))[1]
    plain = np.isin(np.asarray(edits.group), split_groups(edits)[1]) & ~np.asarray(edits.altered)
    chosen = [
        rows[np.linspace(0, len(rows) - 1, faces).round().astype(int)] for rows in (people, np.flatnonzero(plain))
    ]
    return torch.cat([pictures.tensor(rows, size) for pictures, rows in zip((photos, edits), chosen, strict=True)])


@torch.no_grad()
def read_moved(G: Generator, ws: np.ndarray, reader: FaceReader, vector: np.ndarray | None, alpha: float) -> Tensor:
    """`[N,L]`: what is read of the drawings of codes, styles moved by alpha times `vector [channels]`."""
    found = []
    for start in range(0, len(ws), AT_ONCE):
        codes = Codes(ws[start : start + AT_ONCE])
        if vector is not None:
            codes = ShiftS(vector)(codes, np.full(len(codes), alpha, np.float32))
        found.append(reader(draw(G, codes).clamp(-1, 1)))
    return torch.cat(found)


def change_row(before: Tensor, after: Tensor, reader: FaceReader, label: str) -> dict[str, float | str]:
    """Of one text: the `change` of its own label, the `sum` of all others, and which of these is `most`."""
    change = ((after - before) / reader.spread).mean(0)
    column = reader.column(label)
    others = [k for k in range(len(reader.names)) if k != column]
    worst = max(others, key=lambda k: abs(float(change[k])))
    told: dict[str, float | str] = {"change": float(change[column]), "sum": float(change[others].abs().sum())}
    told["read"] = float(sum(abs(float(change[k])) for k in others if reader.names[k] not in UNSURE))
    return told | {"most": f"{reader.names[worst]} {float(change[worst]):+.2f}"}


def passes(row: dict[str, float | str]) -> bool:
    """Whether the label rises enough, and by more than all others change together."""
    return float(row["change"]) >= ENOUGH and float(row["sum"]) < float(row["change"])


def text_table(
    bundle: Bundle, ws: np.ndarray, reader: FaceReader, texts: dict[str, str], alpha: float, text_model: str = AUTO,
    beta: float | None = None,
) -> dict[str, dict[str, float | str]]:  # fmt: skip
    """{label: figures of its text} on the drawings of codes ws `[N,num_ws,w_dim]`."""
    G, model = bundle.generator(), load_text_model(text_model, torch.device("cpu"), bundle=bundle)
    before, table = read_moved(G, ws, reader, None, 0.0), {}
    for label, said in texts.items():
        vector = make_text_direction(bundle, model, said, label, beta=beta).vector[0]
        table[label] = {"text": said, **change_row(before, read_moved(G, ws, reader, vector, alpha), reader, label)}
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="What texts do to held-out faces, by a judging reader.")
    parser.add_argument("model")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--edits", type=Path, required=True)
    parser.add_argument("--reader", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--lite1", action="store_true", help="the backbone is that of lite1")
    parser.add_argument("--alpha", type=float, default=2.0)
    parser.add_argument("--beta", type=float, help="StyleCLIP's own way, by agreement")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bundle = load_model(given.model)
    G, encoder = bundle.generator(), bundle.encoder()
    images = held_out_faces(PictureSet(given.photos), PictureSet(given.edits), G.img_resolution)
    start = average_image(G, encoder.config.input_size)
    with torch.no_grad():
        ws = torch.cat([restyle_codes(encoder, G, part, 3, start) for part in images.split(AT_ONCE)]).numpy()
    reader = load_face_reader(given.reader, load_efficientnet_lite(given.backbone, LITE1 if given.lite1 else LITE0))
    table = text_table(bundle, ws, reader, TEXTS, given.alpha, beta=given.beta)
    for label, row in table.items():
        figures = f"{row['change']:+.2f}, others {row['sum']:.2f}, read {row['read']:.2f} (most {row['most']})"
        sys.stdout.write(f"{row['text']}: {label} {figures}{'' if passes(row) else '  -'}\n")
    sys.stdout.write(f"{sum(map(passes, table.values()))} of {len(table)}\n")
    if given.out is not None:
        write_json(given.out, table)


if __name__ == "__main__":
    main()
