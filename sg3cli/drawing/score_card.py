"""The score card of `sg3 train score` as an image: its figures, and which label each direction moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from sg3cli.drawing.text import centred, write

CELL, NAME, TOP, MARGIN, LETTERS = 38, 150, 250, 16, 15  # pixels
PAPER, INK, OWN = (255, 255, 255), (30, 30, 30), (20, 120, 60)
RED, BLUE = np.array([200.0, 50, 40]), np.array([40.0, 90, 190])
SHOWN = 0.08  # labels that no direction moves by more, in standard deviations per unit, are left out
FULL = 0.8  # response that is drawn in full colour
FIGURES = (
    ("psnr_step3", "PSNR of inversions {:.2f} dB"),
    ("frechet_inverted", "Frechet distance: inversions {:.2f}"),
    ("frechet", "samples {:.2f}"),
    ("eq_t", "EQ-T {:.0f} dB"),
    ("eq_r", "EQ-R {:.0f} dB"),
)


def draw(card: Mapping[str, Any]) -> np.ndarray:
    """[H,W,3] uint8 RGB. Rows are directions, columns labels; red moves up, blue down, the green frame is meant."""
    directions = card["directions"]
    labels = shown_labels(directions)
    height, width = TOP + CELL * len(directions) + MARGIN, NAME + CELL * len(labels) + 2 * MARGIN
    canvas = np.full((height, max(width, 900), 3), PAPER, np.uint8)
    figures = ", ".join(text.format(card[key]) for key, text in FIGURES if key in card)
    write(canvas, f"{card['model']}: {card['people']} held-out people", MARGIN, 30, 20, INK)
    write(canvas, figures, MARGIN, 56, LETTERS, INK)
    write(canvas, "label's standard deviations per unit of strength, x 100", MARGIN, 80, LETTERS, INK)
    _column_names(canvas, labels)
    for row, (name, facts) in enumerate(directions.items()):
        y = TOP + CELL * row
        write(canvas, name, MARGIN, y + CELL // 2 + 5, LETTERS, INK)
        for column, label in enumerate(labels):
            _cell(canvas, NAME + CELL * column, y, facts["responses"].get(label, 0.0), label == facts["label"])
    return canvas


def shown_labels(directions: Mapping[str, Any]) -> list[str]:
    """Those that are meant, in the order of the directions, then those that come along, the strongest first."""
    meant = list(dict.fromkeys(facts["label"] for facts in directions.values()))
    strongest: dict[str, float] = {}
    for facts in directions.values():
        for label, slope in facts["responses"].items():
            strongest[label] = max(strongest.get(label, 0.0), abs(slope))
    others = sorted((n for n in strongest if n not in meant and strongest[n] > SHOWN), key=lambda n: -strongest[n])
    return meant + others


def _cell(canvas: np.ndarray, x: int, y: int, value: float, own: bool) -> None:
    share = min(abs(value) / FULL, 1.0)
    colour = (1 - share) * np.array(PAPER) + share * (RED if value > 0 else BLUE)
    canvas[y + 1 : y + CELL - 1, x + 1 : x + CELL - 1] = colour.round()
    if round(100 * abs(value)) >= 1:
        text = f"{100 * value:.0f}"
        centred(canvas, text, x, y + 8, CELL, LETTERS - 3, PAPER if share > 0.6 else INK)
    if own:
        cv2.rectangle(canvas, (x + 1, y + 1), (x + CELL - 2, y + CELL - 2), OWN, 3)


def _column_names(canvas: np.ndarray, labels: list[str]) -> None:
    """Upwards, from the bottom of the header."""
    length = TOP - 100
    strip = np.full((CELL * len(labels), length, 3), PAPER, np.uint8)
    for k, label in enumerate(labels):
        write(strip, label, 4, CELL * k + CELL // 2 + 5, LETTERS - 1, INK)
    canvas[TOP - length : TOP, NAME : NAME + CELL * len(labels)] = np.rot90(strip)
