"""What goes with a smile, from photographs of people who were taken neutral and smiling.

The face mesh of both pictures, laid on each other by the points that no expression moves, tells how the others move;
both pictures brought to the mean face tell how light changes there. The mean over people, and over both halves of a
face, is what the transfer of a smile adds to what the drawings tell of its mouth (`compositing.smiling`).

    python -m sg3cli.training.people128.smile_pairs --photos PHOTOS --bundle FOLDER
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sg3cli.compositing.smiling import Smiling, on_picture
from sg3cli.errors import InputError
from sg3cli.faces.drawn_mesh import LIPS, OVAL, STILL, DrawnMesh, still_pose
from sg3cli.faces.face_mesh import LEFT_EYE, RIGHT_EYE
from sg3cli.files import write_arrays
from sg3cli.training.people128.pair_data import PictureSet, first_held_out_person
from sg3cli.training.people128.photo_ageing import DARK, places
from sg3cli.training.people128.transfer_bundle import note_part
from sg3cli.weights.bundle import SMILE, load_model

SIDE = 128  # pixels of the mean face's picture
FINE = 0.8  # pixels: what is finer differs by chance
OPEN = 3.0  # pixels around eyes and mouth where what is seen is not skin
# outlines whose inside is no skin, or moves on its own: the eyes, beside the mouth
EYE_OUTLINES = ([33, 160, 158, 133, 153, 144], [263, 387, 385, 362, 380, 373])
EDGE = 5.0  # pixels inside the face's outline over which light ends


def smile_rows(photos: PictureSet) -> np.ndarray:
    """`[n, 2]`: a neutral picture and a smiling one of each person who is not held out and has both."""
    smiling, people = photos.column("is_smiling"), np.asarray(photos.identity)
    held_out, rows = first_held_out_person(people), []
    for person in np.unique(people[people < held_out]):
        of_person = np.flatnonzero(people == person)
        neutral, smiles = (of_person[smiling[of_person] == value] for value in (0, 1))
        if len(neutral) and len(smiles):
            rows.append((neutral[0], smiles[0]))
    return np.array(rows, int).reshape(-1, 2)


def laid_on(points: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """A mesh `[468, 3]` moved, turned and scaled so that its still points lie on those of another."""
    moved: np.ndarray = (points - points[STILL].mean(axis=0)) @ still_pose(points, onto) + onto[STILL].mean(axis=0)
    return moved


def mirrored(values: np.ndarray, shape: np.ndarray, signs: Sequence[float]) -> np.ndarray:
    """The mean of `values [468, C]` and of those at each point's counterpart in the other half of a face of the
    `shape`, with their `signs [C]`."""
    apart = (shape * (-1, 1, 1))[:, None] - shape
    counterpart = np.argmin((apart**2).sum(axis=-1), axis=1)
    result: np.ndarray = (values + values[counterpart] * np.asarray(signs)) / 2
    return result


def fit(photos: PictureSet, mesh: DrawnMesh) -> tuple[Smiling, int]:
    """What goes with a smile, with the distance between the eyes' outer corners as its unit, and of how many people."""
    rows = [(n, s, a, b) for n, s in smile_rows(photos).tolist() for a, b in meshes(photos, mesh, n, s)]
    if not rows:
        raise InputError(f"{photos.folder} has nobody who is taken neutral and smiling", "see is_smiling in its labels")
    apart = [np.linalg.norm(a[RIGHT_EYE] - a[LEFT_EYE]) for _, _, a, _ in rows]
    shapes = [(a - a[STILL].mean(axis=0)) / unit for (_, _, a, _), unit in zip(rows, apart, strict=True)]
    motions = [(laid_on(b, a) - a) / unit for (_, _, a, b), unit in zip(rows, apart, strict=True)]
    shape = np.mean(shapes, axis=0)
    motion = mirrored(np.mean(motions, axis=0), shape, (-1, 1, 1))
    onto = on_picture(shape, SIDE)
    lights = [light_between(photos.picture(n), photos.picture(s), a, b, onto) for n, s, a, b in rows]
    light = np.median(lights, axis=0) * skin(onto)
    return Smiling(*(values.astype(np.float32) for values in (shape, motion, (light + light[:, ::-1]) / 2))), len(rows)


def meshes(photos: PictureSet, mesh: DrawnMesh, neutral: int, smiles: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Both meshes `[468, 3]` in pixels of the pictures; nothing where one is not found."""
    pictures = [photos.picture(row) for row in (neutral, smiles)]
    found = [mesh.single(picture, len(picture)) for picture in pictures]
    if found[0] is not None and found[1] is not None:
        yield found[0], found[1]


def light_between(
    neutral: np.ndarray, smiles: np.ndarray, before: np.ndarray, after: np.ndarray, onto: np.ndarray
) -> np.ndarray:
    """The logarithm `[R, R]` by which a smile is lighter, on the mean face, whose points lie at `onto [468, 2]`; the
    forehead, which no smile lights, is as light in both."""
    import cv2

    pictures = []
    for picture, points in ((neutral, before), (smiles, after)):
        where = places(onto, points[:, :2], SIDE) - np.float32(0.5)
        read = cv2.remap(picture, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        pictures.append(np.log(cv2.GaussianBlur(read.astype(np.float32), (0, 0), FINE).mean(axis=2) + DARK))
    change = pictures[1] - pictures[0]
    result: np.ndarray = change - np.median(sampled(change, onto)[STILL[:6]])
    return result


def skin(points: np.ndarray) -> np.ndarray:
    """0..1 `[R, R]`: where a face with its mesh at `points [468, 2]` shows skin."""
    import cv2

    def inside(which: Sequence[int] | np.ndarray) -> np.ndarray:
        outline = cv2.convexHull(points[np.asarray(which)].astype(np.float32)).astype(np.int32)
        return np.asarray(cv2.fillConvexPoly(np.zeros((SIDE, SIDE), np.float32), outline, 1.0))

    width = 2 * round(EDGE) + 1
    result = cv2.GaussianBlur(cv2.erode(inside(OVAL), np.ones((width, width))), (0, 0), EDGE / 2)
    for outline in (*EYE_OUTLINES, LIPS):
        around = cv2.dilate(inside(outline), np.ones((round(OPEN) + 1,) * 2))
        result = result * (1 - cv2.GaussianBlur(around, (0, 0), OPEN / 3))
    return np.asarray(result)


def sampled(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """`image [R, R]` at `points [n, 2]`, which lie in it."""
    x, y = (np.clip(points[:, k], 0, SIDE - 1).astype(int) for k in (0, 1))
    result: np.ndarray = image[y, x]
    return result


def add_smile(folder: Path, smiling: Smiling, words: str) -> None:
    """Put it into the model's `folder`, with `words` on how it was made. Raises `ModelError`."""
    bundle = load_model(folder)
    write_arrays(bundle.path / SMILE, smiling._asdict())
    note_part(bundle, SMILE, words)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="What goes with a smile, from people taken neutral and smiling.")
    parser.add_argument("--photos", type=Path, required=True, help="set of photographs with `is_smiling` labels")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the model that it is put into")
    given = parser.parse_args(arguments)
    mesh = DrawnMesh.load()
    if mesh is None:
        raise InputError("the face mesh is not here", "get it with `sg3 models pull face-mesh`")
    smiling, people = fit(PictureSet(given.photos), mesh)
    add_smile(given.bundle, smiling, f"mean of {people} people, neutral and smiling (smile_pairs)")
    sys.stdout.write(f"what goes with a smile, from {people} people, is in {given.bundle}\n")


if __name__ == "__main__":
    main()
