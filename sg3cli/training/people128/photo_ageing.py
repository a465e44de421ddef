"""Photographs that were given the age of rendered people, as a set of pairs: what older looks like on real skin.

A renderer ages one person from 25 to 70 and changes nothing else. What that does to a face, carried over by the face
mesh to a photograph whose head is turned alike:

    b(x) = a(x + u(x)) exp d(x)         a, b: one rendered person young and old
    T(x) = S(x + u(m(x))) exp(g d(m(x)))        S: photograph, m: its face onto the rendered one, g: gain

Folds and lines lie where a face folds, by the photograph's own landmarks, as relief on its own skin. Hair, eyes, brows
and mouth stay. Both orders are pairs: T grows young again as S.

    python -m sg3cli.training.people128.photo_ageing --photos PHOTOS --donors EDITS --out DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.interpolate import LinearNDInterpolator

from sg3cli.compositing.face_mask import beyond_face, smoothstep
from sg3cli.compositing.face_parts import PARTS, beyond_part
from sg3cli.compositing.hue import REC601
from sg3cli.compositing.transfer import read_moved
from sg3cli.errors import InputError
from sg3cli.faces.drawn_mesh import DrawnMesh
from sg3cli.training.people128.pair_data import PictureSet, first_held_out_person, make_pairs, photo_rows
from sg3cli.training.people128.picture_writer import PictureWriter

SIZE = 256
EACH = 4  # renders whose age a photograph is given
ALIKE = 8.0  # degrees by which heads may be turned otherwise
YEARS = 1.0  # units of the attribute that a render must have aged at least
GAIN, MOVE = 1.9, 1.15  # of relief and of motion: a render is modest
COLOURED = 0.4  # of the change of colours beside that of light
DARK = 6.0  # levels added before a logarithm
STEEP = 0.5  # logarithm above which a change counts less and less
OTHER = 0.42  # logarithm of a change that no fold makes: hair, a rim, a beard; the skin there is not known
HAIR = 0.75  # logarithm by which hair is darker than skin
SAGS = 9.0  # pixels: what moves in less is a fold, which flow takes for a lip that is drawn out
DEEPEST = 0.25  # logarithm of what an area darkens or lightens at most: a fold is a line, a wedge is no fold
BROAD = 1.5  # pixels: what is wider is an area
# shares of the face's height over which the surroundings of a part begin to age
FADES = {"brows": 0.04, "eyes": 0.04, "nose": 0.03, "mouth": 0.1}
ANCHORS = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [0.5, 0], [0, 0.5], [1, 0.5], [0.5, 1]])  # where nothing moves


class Ageing(NamedTuple):
    """What age does to a rendered face: motion u `[R, R, 2]` in pixels, and the logarithm d `[R, R, 3]` of a factor."""

    motion: np.ndarray
    factor: np.ndarray


def ageing_between(young: np.ndarray, old: np.ndarray) -> Ageing:
    """Of one person, `[R, R, 3]` uint8 twice; 0 where either shows something else than skin."""
    import cv2

    grey = [cv2.GaussianBlur(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), (0, 0), 1.0) for i in (young, old)]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    search.setFinestScale(0)
    motion = cv2.GaussianBlur(search.calc(grey[1], grey[0], None), (0, 0), SAGS)
    size = len(young)
    moved = read_moved(young, motion / np.float32(size), size).clip(0, 255)
    factor = STEEP * np.tanh((np.log(old + np.float32(DARK)) - np.log(moved + DARK)) / STEEP)
    light = [np.log(i.astype(np.float32).mean(axis=2) + DARK) for i in (moved, old)]
    cheeks = np.median(light[0][size // 2 : 5 * size // 8, 3 * size // 8 : 5 * size // 8])
    other = (np.minimum(*light) < cheeks - HAIR) | (np.abs(factor).max(axis=2) > OTHER)
    spots = cv2.morphologyEx(other.astype(np.float32), cv2.MORPH_OPEN, np.ones((2, 2)))
    near = cv2.GaussianBlur(cv2.dilate(spots, np.ones((5, 5))), (0, 0), 2.5)
    return Ageing(motion, factor * np.clip(1 - 2 * near, 0, 1)[..., None])


def aged(photo: np.ndarray, landmarks: np.ndarray, onto: np.ndarray, age: Ageing) -> np.ndarray:
    """The `photo [R, R, 3]` uint8 with what `age` does; `landmarks [68, 2]` in its pixels, `onto [R, R, 2]`: where in
    the render each of its pixels lies."""
    import cv2

    at = onto[..., 0] - np.float32(0.5), onto[..., 1] - np.float32(0.5)
    motion = cv2.remap(age.motion, *at, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    factor = cv2.remap(age.factor, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    light = (factor @ np.array(REC601, np.float32))[..., None]
    factor = (light + COLOURED * (factor - light)) * (GAIN * skin(landmarks, len(photo)))[..., None]
    factor = held(factor)
    face = smoothstep((0.15 - beyond_face(landmarks, photo.shape[:2])) / 0.3).astype(np.float32)
    moved = read_moved(photo, MOVE * face[..., None] * motion / np.float32(len(photo)), len(photo)).clip(0, 255)
    return np.rint(((moved + DARK) * np.exp(factor) - DARK).clip(0, 255)).astype(np.uint8)


def held(factor: np.ndarray) -> np.ndarray:
    """The logarithm `[R, R, 3]` with its areas softly limited; lines stay as deep as they are."""
    import cv2

    wide = cv2.GaussianBlur(factor, (0, 0), BROAD)
    result: np.ndarray = factor - wide + DEEPEST * np.tanh(wide / DEEPEST)
    return result


def skin(landmarks: np.ndarray, size: int) -> np.ndarray:
    """0..1 `[R, R]` float32: the face but for brows, eyes, nose and mouth, from landmarks `[68, 2]` in pixels."""
    shape = (size, size)
    mask = smoothstep(-beyond_face(landmarks, shape) / 0.06)
    for part, pieces in PARTS.items():
        for piece in pieces:
            mask = mask * smoothstep((beyond_part(landmarks, piece, shape) - 0.02) / FADES[part])
    return mask.astype(np.float32)


def places(photo: np.ndarray, render: np.ndarray, size: int) -> np.ndarray:
    """`[R, R, 2]` float32: where in the render a photograph's pixel lies, from the points `[468, 2 or 3]` of
    both."""
    import cv2

    corners = ANCHORS * size
    known = LinearNDInterpolator(*(np.concatenate([points[:, :2], corners]) for points in (photo, render)))
    y, x = np.mgrid[:size, :size] + 0.5
    result: np.ndarray = cv2.GaussianBlur(known(np.stack([x, y], axis=-1)).astype(np.float32), (0, 0), 2.0)
    return result


class TurnedPairs:
    """Pairs of renders, `rows [M, 2]` of a set, that are found by how the first one's head is turned."""

    pictures: PictureSet
    rows: np.ndarray

    @cached_property
    def poses(self) -> np.ndarray:
        """[M, 2]: yaw and pitch in degrees."""
        return np.stack([self.pictures.column(name)[self.rows[:, 0]] for name in ("yaw", "pitch")], axis=1)

    def like(self, pose: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[int, bool]]:
        """Pairs, and whether they are mirrored, whose heads are turned like `pose [2]`, in random order."""
        for k in rng.permutation(len(self.rows)):
            for mirrored in rng.permutation(2):
                turned = self.poses[k] * (-1 if mirrored else 1, 1)
                if np.abs(turned - pose).max() < ALIKE:
                    yield int(k), bool(mirrored)
                    break

    def pair(self, k: int, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
        """Both pictures `[R, R, 3]` uint8."""
        first, second = (as_sized(self.pictures.picture(int(row))) for row in self.rows[k])
        if not mirrored:
            return first, second
        return np.ascontiguousarray(first[:, ::-1]), np.ascontiguousarray(second[:, ::-1])


@dataclass
class Donors(TurnedPairs):
    """Rendered people at two ages, young first, of a set of pairs: those with nothing but skin in their faces."""

    pictures: PictureSet
    mesh: DrawnMesh

    def __post_init__(self) -> None:
        pairs = make_pairs(self.pictures, np.unique(np.asarray(self.pictures.group))).alone()
        years, first = pairs.delta[:, 0], pairs.rows[:, 0]
        bare = (self.pictures.column("glasses")[first] < 0.5) & (self.pictures.column("beard")[first] < 0.15)
        keep = bare & (np.abs(years) >= YEARS)
        if not keep.any():
            raise InputError(f"{self.pictures.folder} has no pairs of different age without glasses and beard", "")
        self.rows = np.where(years[keep, None] > 0, pairs.rows[keep], pairs.rows[keep][:, ::-1])
        self.units = np.abs(years[keep])


def write_aged(photos: PictureSet, rows: np.ndarray, donors: Donors, folder: Path, seed: int = 0) -> int:
    """Write the set; how many aged pictures it has."""
    writer, rng = PictureWriter(), np.random.default_rng(seed)
    poses = np.stack([photos.column(name) for name in ("yaw", "pitch")], axis=1)
    for group, row in enumerate(rows.tolist()):
        photo, points = as_sized(photos.picture(row)), photos.landmarks[row] * SIZE
        found = donors.mesh.single(photo, SIZE)
        if found is None:
            continue
        writer.add(photo, points, int(photos.identity[row]), group, {})
        left = EACH
        for k, mirrored in donors.like(poses[row], rng):
            young, old = donors.pair(k, mirrored)
            if (face := donors.mesh.single(young, SIZE)) is None:
                continue
            older = aged(photo, points, places(found, face, SIZE), ageing_between(young, old))
            writer.add(older, points, int(photos.identity[row]), group, {"age": float(donors.units[k])})
            if not (left := left - 1):
                break
    return writer.write(folder, f"{photos.folder} has no photograph whose head is turned like a render's")


def as_sized(picture: np.ndarray) -> np.ndarray:
    """A square picture of `SIZE` pixels a side."""
    import cv2

    return picture if len(picture) == SIZE else cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`: the people who are held out for judging are left out."""
    parser = argparse.ArgumentParser(description="Photographs with the age of rendered people.")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--donors", type=Path, required=True, help="set of pairs of renders: synthface edits")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    photos, mesh = PictureSet(given.photos), DrawnMesh.load()
    if mesh is None:
        raise InputError("the face mesh is not here", "get it with `sg3 models pull face-mesh`")
    rows = photo_rows(photos, first_held_out_person(photos.identity))[0]
    count = write_aged(photos, rows, Donors(PictureSet(given.donors), mesh), given.out)
    sys.stdout.write(f"{count} aged photographs in {given.out}\n")


if __name__ == "__main__":
    main()
