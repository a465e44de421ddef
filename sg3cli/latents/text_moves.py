"""What a model can do to a face, and what each of that is in a text model's eyes: what text edits are composed of.

Derivatives of single styles lead astray in a small model: a step along them changes what a network reads more than what
is seen. So whole moves are taken, drawn and looked at: the directions that the model brings, and for all that none was
made for the principal ones among the codes of people, as a flow knows them, or else among the styles of the model's own
samples. (With those of people the embedded model's texts do twice as much.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from sg3cli.latents.codes import Codes
from sg3cli.latents.moves import ShiftS
from sg3cli.latents.rendering import draw
from sg3cli.latents.spaces import statistics, to_s_direction
from sg3cli.latents.text_model import TextModel
from sg3cli.nets.code_flow import CodeFlow
from sg3cli.nets.generator import Generator
from sg3cli.weights.direction_file import Direction

COMPONENTS = 40  # principal directions beside those that the model brings
AT_ONCE = 8


def known_moves(
    G: Generator, directions: Mapping[str, Direction], people: CodeFlow | None = None
) -> dict[str, np.ndarray]:
    """Name -> `[channels]`: strength 1 of each direction, and one standard deviation along each component.

    The Fourier input, which places the picture, stays.
    """
    rows = np.arange(1, G.num_ws)
    moves = {}
    for name, direction in directions.items():
        in_s = direction.vector[0] if direction.space == "s" else to_s_direction(G, direction.vector, rows)
        moves[name] = in_s.astype(np.float32)
    found = sample_components(G) if people is None else people_components(G, people)
    return moves | {f"component {k + 1}": move.astype(np.float32) for k, move in enumerate(found)}


def people_components(G: Generator, people: CodeFlow) -> np.ndarray:
    """`[n,channels]`: what the codes of people differ in, one standard deviation each."""
    rows = np.arange(1, G.num_ws)
    return np.stack([to_s_direction(G, one, rows) for one in people.components(COMPONENTS).numpy()])


def sample_components(G: Generator) -> np.ndarray:
    """`[n,channels]`: the same of the styles of the model's own samples."""
    covariance = statistics(G, "s", covariance=True).covariance
    assert covariance is not None
    placed = next(iter(G.config.style_sizes.values()))
    covariance[:placed] = covariance[:, :placed] = 0
    values, vectors = np.linalg.eigh(covariance)
    count = min(COMPONENTS, int((values > 1e-9 * values[-1]).sum()))
    return np.stack([np.sqrt(values[-1 - k]) * vectors[:, -1 - k] for k in range(count)])


def move_effects(
    G: Generator, ws: np.ndarray, moves: np.ndarray, model: TextModel, batch: int = AT_ONCE
) -> Iterator[np.ndarray]:
    """Yield for each of moves `[M,channels]` the change `[D]` of an image's row, on average over faces.

    ws `[n,num_ws,w_dim]`: the faces, moved by 1 to each side.
    """
    for move in moves:
        change = 0.0
        for start in range(0, len(ws), batch):
            codes = Codes(ws[start : start + batch])
            ends = []
            for sign in (1.0, -1.0):
                with torch.inference_mode():
                    moved = ShiftS(move)(codes, np.full(len(codes), sign, np.float32))
                    ends.append(model.images(draw(G, moved).clamp(-1, 1)).astype(np.float64))
            change = change + (ends[0] - ends[1]).sum(0) / 2
        yield np.asarray(change) / len(ws)
