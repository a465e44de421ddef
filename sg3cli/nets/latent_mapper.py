"""A latent mapper (StyleCLIP, Patashnik et al. 2021, section 5): from a code of W+ to a step that is its own.

Small networks, one for each level of rows, see the codes of their rows and give the step of these rows:

    step(w) = factor * network(w)        edited code = w + strength * step(w)

Rows of no level do not move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sg3cli.nets.layers import EqualLinear

FACTOR = 0.1
DEPTH = 4
RATE = 0.01  # multiplier of weights and biases
NORMS = ("channels", "levels")


@dataclass(frozen=True)
class MapperConfig:
    """`levels`: (first row, one past the last) of each network's rows, which do not overlap.

    `norm` says over what a code has unit mean square before it is seen: its `channels`, or, as in the published
    checkpoints, each channel over the rows of its level (`levels`).
    """

    num_ws: int
    w_dim: int
    levels: tuple[tuple[int, int], ...]
    factor: float = FACTOR
    norm: str = "channels"

    def __post_init__(self) -> None:
        """Raises ValueError for rows that are not there, or belong to two levels."""
        rows = [row for first, end in self.levels for row in range(first, end)]
        if not rows or len(rows) != len({*rows}) or min(rows) < 0 or max(rows) >= self.num_ws:
            raise ValueError(f"levels {self.levels} do not divide {self.num_ws} rows")
        if self.norm not in NORMS:
            raise ValueError(f"unknown norm {self.norm!r}")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> MapperConfig:
        """Raises KeyError, TypeError or ValueError for what is none."""
        return cls(**{**fields, "levels": tuple((int(first), int(end)) for first, end in fields["levels"])})


def level_rows(num_ws: int, first: int = 0) -> dict[str, tuple[int, int]]:
    """Rows of the coarse, medium and fine level: of 16 rows 0-4, 5-7 and 8-15, of others the same shares.

    Rows before `first` belong to none. Raises ValueError where a level would be empty.
    """
    medium, fine = 5 * num_ws // 16, 8 * num_ws // 16
    if not first < medium < fine < num_ws:
        raise ValueError(f"{num_ws} rows are too few for three levels")
    return {"coarse": (first, medium), "medium": (medium, fine), "fine": (fine, num_ws)}


class LatentMapper(nn.Module):
    """ws [N,num_ws,w_dim] -> the step of strength 1 [N,num_ws,w_dim]. A fresh one takes no step."""

    def __init__(self, config: MapperConfig) -> None:
        super().__init__()
        self.config = config
        width = config.w_dim
        self.nets = nn.ModuleList(
            nn.Sequential(*(EqualLinear(width, width, activate=True, lr_multiplier=RATE) for _ in range(DEPTH)))
            for _ in config.levels
        )
        with torch.no_grad():
            for level in range(len(self.nets)):
                self.get_parameter(f"nets.{level}.{DEPTH - 1}.weight").zero_()

    def forward(self, ws: Tensor) -> Tensor:
        """See the class."""
        step = torch.zeros_like(ws)
        over = 1 if self.config.norm == "levels" else 2
        for (first, end), net in zip(self.config.levels, self.nets, strict=True):
            seen = ws[:, first:end]
            seen = seen * (seen.square().mean(over, keepdim=True) + 1e-8).rsqrt()
            step[:, first:end] = self.config.factor * net(seen.flatten(0, 1)).view_as(seen)
        return step
