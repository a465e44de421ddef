"""The image of a preview: labelled cells in rows, and the words for edits and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from sg3cli.drawing.text import DARK, LEAST, centred, fit, line_height, write
from sg3cli.latents.edits import Edit

LETTERS = 1 / 21  # size of letters as a share of a cell's width
MOST = 30  # pixels: letters are not larger
GAP = 4  # pixels between cells
HEADING = (255, 205, 120)

FRAME_CELL = 480  # pixels: longest side of a cell that shows a frame, where nothing else is asked
FACE_CELLS = (256, 512)  # a face crop is enlarged or reduced into this range


@dataclass(frozen=True)
class Cell:
    """An image `[H, W, 3]` uint8 and what stands under it."""

    label: str
    image: np.ndarray


@dataclass(frozen=True)
class Row:
    """Cells of one moment and, in a sweep, one direction; `heading` stands above them."""

    heading: str
    cells: Sequence[Cell]


def labelled_grid(rows: Sequence[Row], side: int | None, labels: bool = True) -> np.ndarray:
    """All rows as one image `[H, W, 3]` uint8; the longer side of each cell is `side` pixels, None: as it is."""
    fitted = [[resized(cell.image, side) for cell in row.cells] for row in rows]
    width = max(image.shape[1] for row in fitted for image in row)
    height = max(image.shape[0] for row in fitted for image in row)
    columns = max(map(len, fitted))
    letters = int(np.clip(round(width * LETTERS), LEAST + 2, MOST))
    line = line_height(letters) if labels else 0
    gap = GAP if columns * len(rows) > 1 or labels else 0
    block = line + height + line + gap
    canvas = np.full((len(rows) * block + gap, columns * (width + gap) + gap, 3), DARK, np.uint8)
    for r, (row, images) in enumerate(zip(rows, fitted, strict=True)):
        top = gap + r * block
        if labels:
            words, size = fit(row.heading, letters, canvas.shape[1] - 4 * GAP)
            write(canvas, words, 2 * GAP, top + round(0.72 * line), size, HEADING)
        for c, (cell, image) in enumerate(zip(row.cells, images, strict=True)):
            x, y = gap + c * (width + gap), top + line
            canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
            if labels:
                centred(canvas, cell.label, x, y + image.shape[0], image.shape[1], letters)
    return canvas


def resized(image: np.ndarray, side: int | None) -> np.ndarray:
    """The image with its longer side `side` pixels long: averaged where reduced, cubic where enlarged."""
    height, width = image.shape[:2]
    if side is None or side == max(height, width):
        return image
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def cell_side(view: str, shape: tuple[int, ...], cells: int) -> int | None:
    """Longest side of a cell where the user does not say: a single image stays as it is."""
    longest = max(shape[:2])
    if cells == 1:
        return None
    return int(np.clip(longest, *FACE_CELLS)) if view == "face" else min(longest, FRAME_CELL)


# ---- words ---------------------------------------------------------------------------------------------------------


def edits_text(edits: Sequence[Edit], time: float) -> str:
    """`age 2, smile -0.5`: the edits that are at work at `time` seconds; `no edit` if none is."""
    at = np.array([time])
    strengths = [(short_name(edit.direction), float(edit.strength_at(at)[0])) for edit in edits]
    words = [f"{name} {strength_text(strength)}" for name, strength in strengths if strength_text(strength) != "0"]
    return ", ".join(words) or "no edit"


def short_name(direction: str) -> str:
    """A direction's name; of a file its name without folder and suffix."""
    return Path(direction).stem if "/" in direction or direction.endswith((".npy", ".safetensors")) else direction


def strength_text(strength: float) -> str:
    """`2`, `-0.5`, `0.33`; what rounds to nothing is `0`."""
    text = f"{strength:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def time_text(seconds: float) -> str:
    """`1.48 s`, `2:03.50`."""
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes = math.floor(round(seconds, 2) / 60)
    return f"{minutes}:{round(seconds, 2) - 60 * minutes:05.2f}"
