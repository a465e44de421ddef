"""Photographs of people who were given a render's glasses, beard or closed lids, as a set of pairs.

A renderer puts glasses on somebody and changes nothing else. What came is new (`photo_ageing` carries over light and
motion, which no rim is made of), so it is shown itself, in the light of the photograph:

    T = (1 - n) S exp(log b - log a) + n L b        a, b: one rendered person without and with it
    n = |b - a| from `NEW[0]` to `NEW[1]` levels        L: S over a, where both show skin

both brought to the photograph by the face mesh. Rims of a dozen forms would teach a network a blur, so of `TRIES`
renders the one is taken whose change is most like the one that the model draws of this photograph.

    python -m sg3cli.training.people128.photo_wearing --photos PHOTOS --donors EDITS --model MODEL --out DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from sg3cli.compositing.face_mask import beyond_face, smoothstep
from sg3cli.compositing.face_parts import PARTS, beyond_part
from sg3cli.errors import InputError
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.nets.face_reader import FaceReader, load_face_reader
from sg3cli.training.people128.pair_data import (
    Pairs,
    PictureSet,
    attribute_index,
    first_held_out_person,
    make_pairs,
    photo_rows,
)
from sg3cli.training.people128.photo_ageing import SIZE, TurnedPairs, as_sized, places
from sg3cli.training.people128.picture_writer import PictureWriter
from sg3cli.training.people128.transfer_data import sized, softened
from sg3cli.training.people128.transfer_drawings import AT_ONCE, Drawings, draw_pairs
from sg3cli.training.people128.transfer_run import drawer_of
from sg3cli.weights.bundle import READER, load_model
from sg3cli.weights.efficientnet import load_efficientnet_lite

UNITS = {"glasses": 1.0, "beard": 1.5, "eyes_closed": 2.0}  # that a photograph is given
NEAR = 0.75  # units by which a render may have another strength
TRIES = 4  # renders, of which the likest is taken
NEW = (12.0, 40.0)  # levels by which a render changes: from here on something new; in full
DARK = 6.0  # levels added before a ratio
WIDE = 8.0  # pixels over which the light of two skins is compared
LIGHT = (0.3, 3.0)  # the least and the largest factor between them
SHADE = 0.5  # logarithm of the largest factor where nothing is new
BARE = 0.4  # a reader reads less in who wears nothing
READ_AT = 128  # pixels
LIDS = (0.02, 0.06)  # shares of the face's height around an eye: in full, and over which it fades


def worn(photo: np.ndarray, landmarks: np.ndarray, onto: np.ndarray, pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The `photo [R, R, 3]` uint8 with what the second picture of a `pair` of renders has and the first has not.

    `landmarks [68, 2]` in its pixels, `onto [R, R, 2]`: where in the render each of its pixels lies.
    """
    import cv2

    at = onto[..., 0] - np.float32(0.5), onto[..., 1] - np.float32(0.5)
    read = [cv2.remap(i.astype(np.float32), *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for i in pair]
    without, with_it = (image.clip(0, 255) for image in read)
    differs = cv2.GaussianBlur(np.abs(with_it - without).mean(axis=2), (0, 0), 0.8)
    new = smoothstep((differs - NEW[0]) / (NEW[1] - NEW[0])).astype(np.float32)
    beyond, source = beyond_face(landmarks, photo.shape[:2]), photo.astype(np.float32)
    skin = (1 - cv2.dilate(new, np.ones((5, 5)))) * smoothstep(-beyond / 0.05).astype(np.float32) + np.float32(1e-4)
    here, there = (cv2.GaussianBlur(skin[..., None] * i, (0, 0), WIDE) for i in (source, without))
    weight = DARK * cv2.GaussianBlur(skin, (0, 0), WIDE)[..., None]
    light = ((here + weight) / (there + weight)).clip(*LIGHT)
    shade = np.exp(np.clip(np.log(with_it + DARK) - np.log(without + DARK), -SHADE, SHADE))
    kept, shown = (source + DARK) * shade - DARK, (with_it + DARK) * light - DARK
    mixed = kept + new[..., None] * (shown - kept)
    face = smoothstep((0.25 - beyond) / 0.25).astype(np.float32)[..., None]
    return np.rint((source + face * (mixed - source)).clip(0, 255)).astype(np.uint8)


def around_eyes(landmarks: np.ndarray, size: int) -> np.ndarray:
    """0..1 `[R, R, 1]` float32: the eyes and their lids, from landmarks `[68, 2]` in pixels."""
    beyond = np.min([beyond_part(landmarks, piece, (size, size)) for piece in PARTS["eyes"]], axis=0)
    return smoothstep(1 - (beyond - LIDS[0]) / LIDS[1]).astype(np.float32)[..., None]


@dataclass
class Wearers(TurnedPairs):
    """Rendered people without and with one attribute, of a set of pairs."""

    pictures: PictureSet
    mesh: DrawnMesh
    attribute: str
    found: dict[tuple[int, bool], np.ndarray | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pairs = make_pairs(self.pictures, np.unique(np.asarray(self.pictures.group))).alone()
        units = pairs.delta[:, attribute_index()[self.attribute]]
        rows = np.where(units[:, None] > 0, pairs.rows, pairs.rows[:, ::-1])
        bare = self.pictures.column("glasses")[rows[:, 0]] < 0.5
        if self.attribute == "beard":
            bare &= self.pictures.column("beard")[rows[:, 0]] < 0.2
        keep = bare & (np.abs(np.abs(units) - UNITS[self.attribute]) <= NEAR)
        if not keep.any():
            raise InputError(f"{self.pictures.folder} has no pairs that differ in {self.attribute}", "")
        self.rows = rows[keep]

    def points(self, k: int, mirrored: bool) -> np.ndarray | None:
        """The mesh `[468, 2]` of the first picture, if it shows a face."""
        if (k, mirrored) not in self.found:
            self.found[k, mirrored] = self.mesh.single(self.pair(k, mirrored)[0], SIZE)
        return self.found[k, mirrored]


def likest(
    photo: np.ndarray, landmarks: np.ndarray, pose: np.ndarray, wearers: Wearers, drawn: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray | None:  # fmt: skip
    """The `photo [R, R, 3]` with what one of `TRIES` renders wears, that whose change is most like `drawn [n, n, 3]`
    (levels, edited less plain); None where no render's head is turned alike."""
    if (mesh := wearers.mesh.single(photo, SIZE)) is None:
        return None
    tries = []
    for k, mirrored in islice(wearers.like(pose, rng), TRIES):
        if (found := wearers.points(k, mirrored)) is None:
            continue
        result = worn(photo, landmarks, places(mesh, found, SIZE), wearers.pair(k, mirrored))
        if wearers.attribute == "eyes_closed":
            eyes = around_eyes(landmarks, SIZE)
            result = np.rint(photo + eyes * (result.astype(np.float32) - photo)).astype(np.uint8)
        change = softened(sized(result, len(drawn)) - sized(photo, len(drawn)), 1.5)
        tries.append((float(np.abs(change - drawn).mean()), result))
    return min(tries, key=lambda of: of[0])[1] if tries else None


def write_worn(
    photos: PictureSet, rows: np.ndarray, wearers: Wearers, drawn: Drawings, folder: Path, seed: int = 0
) -> int:
    """Write the set of the photographs `rows [M]`, with what the model draws of each; how many pairs it has."""
    writer, rng = PictureWriter(), np.random.default_rng(seed)
    poses = np.stack([photos.column(name) for name in ("yaw", "pitch")], axis=1)
    for group, row in enumerate(rows.tolist()):
        photo, points = as_sized(photos.picture(row)), photos.landmarks[row] * SIZE
        change = drawn.edited[group].astype(np.float32) - drawn.plain[group]
        result = likest(photo, points, poses[row], wearers, change, rng)
        if result is not None:
            person, units = int(photos.identity[row]), {wearers.attribute: UNITS[wearers.attribute]}
            writer.add(photo, points, person, group, {})
            writer.add(result, points, person, group, units)
    return writer.write(folder, f"{photos.folder} has no photograph whose head is turned like a render's")


def given_to(rows: np.ndarray, attribute: str) -> Pairs:
    """Each picture with itself, and the change that it is given."""
    delta = np.zeros((len(rows), len(attribute_index())), np.float32)
    delta[:, attribute_index()[attribute]] = UNITS[attribute]
    return Pairs(np.stack([rows, rows], 1), delta, np.ones(len(rows), np.float32))


@torch.inference_mode()
def without(reader: FaceReader, photos: PictureSet, rows: np.ndarray, labels: Mapping[str, float]) -> np.ndarray:
    """Those of the photographs `rows` that a reader reads below each of `labels`."""
    parts = (photos.tensor(rows[k : k + AT_ONCE], READ_AT) for k in range(0, len(rows), AT_ONCE))
    read = torch.cat([reader(part) for part in parts]).numpy()
    below = [read[:, reader.column(label)] < most for label, most in labels.items()]
    result: np.ndarray = rows[np.all(below, axis=0)]
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`: the people who are held out for judging are left out."""
    parser = argparse.ArgumentParser(description="Photographs with what rendered people wear.")
    parser.add_argument("attribute", choices=sorted(UNITS))
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--donors", type=Path, required=True, help="set of pairs of renders: synthface edits")
    parser.add_argument("--model", default="people-128", help="that draws, and whose reader says who wears nothing")
    parser.add_argument("--backbone", type=Path, required=True, help="of the reader: EfficientNet-Lite0")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    photos, mesh = PictureSet(given.photos), DrawnMesh.load()
    if mesh is None:
        raise InputError("the face mesh is not here", "get it with `sg3 models pull face-mesh`")
    rows = photo_rows(photos, first_held_out_person(photos.identity))[0]
    reader = load_face_reader(load_model(given.model).checked(READER), load_efficientnet_lite(given.backbone))
    bare = without(reader, photos, rows, {"glasses": BARE, given.attribute: BARE})
    given.out.mkdir(parents=True, exist_ok=True)
    drawn = draw_pairs(drawer_of(given.model), photos, given_to(bare, given.attribute), given.out / "drawn.npz")
    wearers = Wearers(PictureSet(given.donors), mesh, given.attribute)
    sys.stdout.write(f"{write_worn(photos, bare, wearers, drawn, given.out)} photographs in {given.out}\n")


if __name__ == "__main__":
    main()
