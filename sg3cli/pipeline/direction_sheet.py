"""A direction to look at: some faces at several strengths, and under them what else moves with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sg3cli.drawing.images import write_png
from sg3cli.drawing.labelled_grid import Cell, Row, labelled_grid, strength_text
from sg3cli.drawing.text import DARK, LEAST, WHITE, line_height, write
from sg3cli.latents.codes import Codes
from sg3cli.latents.edits import make_edit
from sg3cli.latents.rendering import render_crops
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.pipeline.load_edits import load_edits
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.direction_file import Direction
from sg3cli.weights.loaded_nets import LoadedNets

TRUNCATION = 0.7  # of the faces
CELL = 160  # pixels: a side of a face
SHOWN = 12  # attributes in the table under them
UNKNOWN = "what else moves with it is not recorded in its file"


def write_sheet(
    out: Path,
    bundle: Bundle,
    name: str,
    direction: Direction,
    seeds: Sequence[int],
    strengths: Sequence[float],
    device: torch.device,
) -> None:
    """A PNG: a row for each seed, a column for each strength, then the leak table."""
    nets = LoadedNets()
    G = nets.generator(bundle).to(device)
    codes = Codes(Sampler(G, GenerateConfig(truncation=TRUNCATION)).codes(seeds))
    columns = []
    for strength in strengths:
        (edit,) = load_edits([make_edit(name, repr(float(strength)))], bundle, nets).edits
        columns.append(list(render_crops(G, edit.apply(codes, np.zeros(len(codes))))))
    rows = [
        Row(
            f"seed {seed}",
            [
                Cell(f"{direction.name} {strength_text(strength)}", column[k])
                for strength, column in zip(strengths, columns, strict=True)
            ],
        )
        for k, seed in enumerate(seeds)
    ]
    faces = labelled_grid(rows, CELL)
    write_png(out, np.concatenate([faces, words(leak_lines(direction), faces.shape[1])]))


def leak_lines(direction: Direction) -> list[str]:
    """What strength 1 does to every attribute, the most first; one line that says so where that is not known."""
    leak = direction.meta.get("leak")
    if not isinstance(leak, dict) or not leak:
        return [UNKNOWN]
    by = direction.meta.get("leak_by")
    ranked = sorted(leak.items(), key=lambda item: -abs(float(item[1])))[:SHOWN]
    title = "strength 1 moves, in standard deviations" + (f" (by {by}):" if by else ":")
    return [title, *(f"  {name:<16}{float(value):+.2f}" for name, value in ranked)]


def words(lines: Sequence[str], width: int) -> np.ndarray:
    """Lines of text on a dark ground, `[H, width, 3]` uint8."""
    size = LEAST + 4
    line = line_height(size)
    canvas = np.full((line * (len(lines) + 1), width, 3), DARK, np.uint8)
    for k, text in enumerate(lines):
        write(canvas, text, 8, round((k + 1) * line), size, WHITE)
    return canvas
