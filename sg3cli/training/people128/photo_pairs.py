"""Pairs of real photographs of one person, as a set of pairs like the rendered ones: real smiles, real open mouths.

The photographs of `shared/photos` have people seen neutral and smiling under one light (London), and frames of people
who speak (grid). The second picture of a pair is laid into the window of the first: same scale, turn and place by the
corners of the eyes and the bridge of the nose. Around the face (jaw to brows) the first picture goes on, with a soft
seam: hair, ears and shoulders move between two photographs, and an edit of the mouth shall not learn that. How much the
face moved is read off the landmarks, in the units of the renders.

    python -m sg3cli.training.people128.photo_pairs --photos PHOTOS --out DIR
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sg3cli.training.people128.pair_data import ATTRIBUTES, PictureSet, first_held_out_person, photo_rows
from sg3cli.training.people128.picture_writer import PictureWriter

LONDON, GRID = 2, 6  # numbers of these sources
STABLE = (36, 39, 42, 45, 27, 28, 29, 30)  # landmarks that neither smile nor speech moves much
# What one unit of an attribute changes, over the distance of the outer corners of the eyes: fitted on frontal renders
# in which it alone differs.
SMILE_LIFT, SMILE_WIDTH, SMILE_GAP, OPEN_GAP = 0.0748, 0.0665, 0.0109, 0.1163
LEAST = 0.25  # units: pairs that differ less are left out
FEATHER = 0.014  # sigma of the seam, in shares of the side


class Mouth(NamedTuple):
    """Measures over the distance of the outer corners of the eyes, in the frame of the eyes."""

    lift: float  # of the corners above the middle of the inner lips
    width: float
    gap: float


def measure_mouth(points: np.ndarray) -> Mouth:
    """Landmarks [68,2] of any scale."""
    across = points[45] - points[36]
    side = float(np.linalg.norm(across))
    down = np.array([-across[1], across[0]]) / side
    corners, inner = (points[48] + points[54]) / 2, (points[62] + points[66]) / 2
    width, gap = (float(np.linalg.norm(points[a] - points[b])) / side for a, b in ((48, 54), (62, 66)))
    return Mouth(float((inner - corners) @ down) / side, width, gap)


def difference(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """Landmarks of two pictures -> {attribute: change in its units} of smile and mouth."""
    first, second = measure_mouth(a), measure_mouth(b)
    smile = 0.5 * ((second.lift - first.lift) / SMILE_LIFT + (second.width - first.width) / SMILE_WIDTH)
    opened = (second.gap - first.gap - SMILE_GAP * smile) / OPEN_GAP
    return {"smile": smile, "mouth_open": opened}


def window_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[2,3] similarity that takes points [N,2] to target [N,2] in least squares (Umeyama 1991, without reflection)."""
    p, q = source - source.mean(0), target - target.mean(0)
    square = (p**2).sum()
    c, s = (p * q).sum() / square, (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / square
    linear = np.array([[c, -s], [s, c]])
    return np.c_[linear, target.mean(0) - linear @ source.mean(0)]


def chosen_pairs(photos: PictureSet, rows: np.ndarray) -> list[tuple[int, list[int]]]:
    """(row of the plain picture, rows of others of this person): neutral and smiling, or the mouth shut and others."""
    source, smiling = photos.column("source"), photos.column("is_smiling")
    groups = []
    for person in np.unique(photos.identity[rows]):
        own = rows[photos.identity[rows] == person]
        london, grid = own[source[own] == LONDON], own[source[own] == GRID]
        if len(london) == 2 and set(smiling[london]) == {0.0, 1.0}:
            first, second = sorted(london, key=lambda r: smiling[r])
            groups.append((int(first), [int(second)]))
        if len(grid) > 1:
            order = sorted(grid, key=lambda r: measure_mouth(photos.landmarks[r]).gap)
            groups.append((int(order[0]), [int(r) for r in order[1:]]))
    return groups


def write_pairs(photos: PictureSet, rows: np.ndarray, folder: Path) -> int:
    """Write the set; how many pairs it has."""
    writer = PictureWriter()
    for number, (first, others) in enumerate(chosen_pairs(photos, rows)):
        plain, at, person = photos.picture(first), photos.landmarks[first], int(photos.identity[first])
        size = plain.shape[0]
        writer.add(plain, at * size, person, number, {})
        for other in others:
            points = photos.landmarks[other]
            change = difference(at, points)
            if max(abs(v) for v in change.values()) < LEAST:
                continue
            change |= {n: float(photos.attributes[other, k] - photos.attributes[first, k]) for n, k in _pose()}
            M = window_transform(points[list(STABLE)] * size, at[list(STABLE)] * size)
            moved = points * size @ M[:, :2].T + M[:, 2]
            picture = _joined(plain, _laid(photos.picture(other), M), np.concatenate([at * size, moved]))
            writer.add(picture, moved, person, number, change)
    return writer.write(folder, f"{photos.folder} has no two pictures of one person that fit")


def _pose() -> list[tuple[str, int]]:
    return [(n, k) for k, n in enumerate(ATTRIBUTES) if n in ("yaw", "pitch")]


def _laid(picture: np.ndarray, M: np.ndarray) -> np.ndarray:
    import cv2

    pixels = M.copy()
    pixels[:, 2] += M[:, :2] @ [0.5, 0.5] - 0.5  # cv2 counts pixel centres from 0, landmarks from half a pixel
    side = picture.shape[0]
    return cv2.warpAffine(picture, pixels, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)


def _joined(outside: np.ndarray, inside: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Two pictures [S,S,3] joined along the hull of the landmarks [N,2] in pixels."""
    import cv2

    side = outside.shape[0]
    mask = np.zeros((side, side), np.float32)
    cv2.fillConvexPoly(mask, cv2.convexHull(points.round().astype(np.int32)), 1.0)
    mask = cv2.GaussianBlur(mask, (0, 0), FEATHER * side)[:, :, None]
    return (outside + mask * (inside.astype(np.float32) - outside)).round().clip(0, 255).astype(np.uint8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry of `python -m`: the people who are held out for judging are left out."""
    parser = argparse.ArgumentParser(description="Pairs of real photographs of one person.")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    photos = PictureSet(given.photos)
    rows = photo_rows(photos, first_held_out_person(photos.identity))[0]
    sys.stdout.write(f"{write_pairs(photos, rows, given.out)} pairs in {given.out}\n")


if __name__ == "__main__":
    main()
