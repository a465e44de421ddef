"""Single styles for an attribute (StyleSpace, Wu et al. 2021): those that it answers to, the more local the better.

Pictures at the two ends of an attribute's scores differ in some styles more than in others: these are candidates.
Each is then moved alone, to either side, on a few faces, to see where the picture changes and, where a classifier can
be asked, by how much the attribute answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from sg3cli.nets.generator import Generator

STEP = 2.0  # deviations by which a style is moved to each side
FACES = 8  # that it is moved on

Read = Callable[[torch.Tensor], np.ndarray]  # images [n, 3, R, R] -> scores [n, K]


@dataclass(frozen=True)
class RankedChannel:
    """One style. `answer` is the change of the attribute per deviation of the style, in deviations of the attribute.

    Without a classifier it is what the labels suggest: how far apart the style's means are at the two ends of the
    scores, in its deviations. `locality` is the share of the picture that stays: 1 where one pixel alone changes, 0
    where all change alike. `others` are the answers of all attributes, where a classifier said them.
    """

    name: str  # `L5:133`
    place: int  # among all styles
    deviation: float
    answer: float
    locality: float
    others: tuple[float, ...] = ()

    @property
    def score(self) -> float:
        """By which channels are ranked."""
        return abs(self.answer) * self.locality


def channel_name(sizes: dict[str, int], place: int) -> str:
    """`L5:133` of a style's place among all; see `GeneratorConfig.style_sizes`."""
    for name, size in sizes.items():
        if place < size:
            return f"{name.partition('_')[0]}:{place}"
        place -= size
    raise IndexError(place)


def candidates(styles: np.ndarray, low: np.ndarray, high: np.ndarray, count: int, skip: int) -> np.ndarray:
    """The places `[count]` of the styles whose means differ most between the rows `low` and `high`, best first.

    styles `[N, channels]`; those before `skip` (the input's, which place the picture) are left out.
    """
    difference = np.abs(separations(styles, low, high))
    difference[:skip] = 0
    return np.argsort(difference)[::-1][:count]


def separations(styles: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How far apart the means of the two ends are, in deviations of each style, `[channels]`."""
    spread = styles.std(0)
    apart = styles[high].mean(0) - styles[low].mean(0)
    return np.divide(apart, spread, out=np.zeros_like(spread), where=spread > 1e-9)


@torch.no_grad()
def measure_channels(
    G: Generator,
    ws: np.ndarray,
    places: np.ndarray,
    deviations: np.ndarray,
    read: Read | None = None,
    batch: int = 8,
) -> Iterator[tuple[float, np.ndarray | None]]:
    """Yield (locality, change of all scores per deviation `[K]` or None) for each of the styles `places`.

    ws `[n, num_ws, w_dim]`: the faces; `deviations [channels]`.
    """
    codes = torch.from_numpy(ws).to(G.mapping.w_avg)
    for place in places:
        shift = codes.new_zeros(len(codes), len(deviations))
        shift[:, place] = STEP * float(deviations[place])
        localities, changes = [], []
        for some, by in zip(codes.split(batch), torch.split(shift, batch), strict=True):
            after, before = (G.synthesis(some, shift=sign * by) for sign in (1, -1))
            localities.append(locality(after - before))
            if read is not None:
                changes.append((read(after) - read(before)) / (2 * STEP))
        yield float(np.concatenate(localities).mean()), np.concatenate(changes).mean(0) if changes else None


def locality(difference: torch.Tensor) -> np.ndarray:
    """`[n]` of the differences of images `[n, 3, R, R]`: 1 - the share of the pixels that take part in the change."""
    energy = difference.double().square().mean(dim=1).flatten(1)
    taking_part = energy.sum(1).square() / (energy.square().sum(1) * energy.shape[1]).clamp(min=1e-300)
    return (1 - taking_part).cpu().numpy()
