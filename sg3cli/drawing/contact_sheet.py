"""A contact sheet: the best images of each person in a clip, with their numbers."""

from __future__ import annotations

import numpy as np

from sg3cli.drawing.text import write
from sg3cli.faces.clustering import Person
from sg3cli.faces.selection import FaceCandidates
from sg3cli.geometry import ffhq_quad, warp_quad

SIDE = 128  # pixels of one image
COLUMNS = 6  # images of one person
MARGIN, LABEL = 8, 22
INK, PAPER = (24, 24, 24), (236, 236, 236)


def best_rows(candidates: FaceCandidates, person: Person) -> np.ndarray:
    """Rows of the sightings to show `[up to COLUMNS]`: spread over time, in each part the most frontal and largest."""
    parts = np.array_split(person.rows, min(COLUMNS, len(person.rows)))
    seen = candidates.seen
    sizes = (seen.boxes[:, 2:] - seen.boxes[:, :2]).max(axis=1)
    worth = np.log(np.maximum(sizes, 1)) - np.abs(seen.yaws) / 30
    return np.array([part[np.argmax(worth[part])] for part in parts])


def crop(rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """One image `[SIDE, SIDE, 3]` uint8 of a face."""
    return np.rint(warp_quad(rgb, ffhq_quad(landmarks), SIDE)).astype(np.uint8)


def draw(rows: list[tuple[str, list[tuple[str, np.ndarray]]]]) -> np.ndarray:
    """The sheet `[H, W, 3]` uint8: a title and captioned images for each person."""
    height = MARGIN + len(rows) * (LABEL + SIDE + LABEL + MARGIN)
    width = MARGIN + COLUMNS * (SIDE + MARGIN)
    sheet = np.full((height, width, 3), PAPER, np.uint8)
    for k, (title, images) in enumerate(rows):
        top = MARGIN + k * (LABEL + SIDE + LABEL + MARGIN)
        write(sheet, title, MARGIN, top + LABEL - 7, 15, INK)
        for column, (caption, image) in enumerate(images):
            left = MARGIN + column * (SIDE + MARGIN)
            sheet[top + LABEL : top + LABEL + SIDE, left : left + SIDE] = image
            write(sheet, caption, left, top + LABEL + SIDE + LABEL - 7, 12, INK)
    return sheet
