"""A conditional continuous normalising flow on W+ codes (StyleFlow, Abdal et al. 2021; arXiv 2008.02401).

    dx/dt = v(x, t, c)      x(0): a vector of N(0, I), x(1): a code, c: the attributes of its face

Run backwards under the attributes that a face has, a code becomes what those do not tell of it; run forwards under
other attributes, that becomes a code of the same face with them. Both ways are one differential equation, solved by
`torchdiffeq`, so that the attributes a face has give its code again.

x are a code's principal coordinates, each in its standard deviation; what lies beyond them, and the first code, which
places the picture, is carried along. The attributes of a code are read off its coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 24  # of the solver, fourth order: there and back differ by less than 1e-4 of a standard deviation
WAVES = 8  # sines and cosines that tell the network the time
GRID = 17  # calls at which it is known what an edit reaches
REACH = 4.0  # the largest call: standard deviations of an attribute
FULL = 2.5  # standard deviations to which codes were seen; a larger call goes further the same way


@dataclass(frozen=True)
class CodeFlowConfig:
    """`labels`: the attributes, in the reader's units; `keeps_hue`: those that do not concern the colour of skin.

    The last `held` of them are only told to the flow, so that they stay: nobody can ask for them.
    """

    labels: tuple[str, ...]
    num_ws: int
    w_dim: int
    components: int = 192
    width: int = 512
    blocks: int = 3
    keeps_hue: tuple[str, ...] = ()
    held: int = 0

    @property
    def targets(self) -> tuple[str, ...]:
        """The attributes that can be brought to a value."""
        return self.labels[: len(self.labels) - self.held]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> CodeFlowConfig:
        return cls(**{**fields, "labels": tuple(fields["labels"]), "keeps_hue": tuple(fields.get("keeps_hue", ()))})


class CodeFlow(nn.Module):
    """`moved` is the edit; all codes are [N,num_ws,w_dim], attributes [N,K] in the units of their reader."""

    mean: Tensor
    vectors: Tensor
    deviations: Tensor
    label_mean: Tensor
    label_std: Tensor
    reading: Tensor
    rows: Tensor
    asked: Tensor
    reached: Tensor

    def __init__(self, config: CodeFlowConfig) -> None:
        super().__init__()
        self.config = config
        size, d, k = (config.num_ws - 1) * config.w_dim, config.components, len(config.labels)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("vectors", torch.zeros(d, size))
        self.register_buffer("deviations", torch.ones(d))
        self.register_buffer("label_mean", torch.zeros(k))
        self.register_buffer("label_std", torch.ones(k))
        self.register_buffer("reading", torch.zeros(d + 1, k))  # coordinates and 1 -> standardised attributes
        self.register_buffer("rows", torch.ones(k, config.num_ws))  # which codes belong to an attribute
        self.register_buffer("asked", torch.linspace(-REACH, REACH, GRID).repeat(k, 1))  # calls
        self.register_buffer("reached", torch.linspace(-REACH, REACH, GRID).repeat(k, 1))  # what is read then
        self.velocity = Velocity(d, k, config.width, config.blocks)

    def column(self, label: str) -> int:
        """The number of an attribute. Raises KeyError."""
        if label not in self.config.labels:
            raise KeyError(label)
        return self.config.labels.index(label)

    def coordinates(self, ws: Tensor) -> Tensor:
        """[N,D]: principal coordinates, in standard deviations."""
        return (ws[:, 1:].flatten(1) - self.mean) @ self.vectors.T / self.deviations

    def components(self, count: int) -> Tensor:
        """[count,num_ws,w_dim]: what the codes of people differ in most, one standard deviation each."""
        rows = (self.vectors * self.deviations[:, None])[:count].view(-1, self.config.num_ws - 1, self.config.w_dim)
        return F.pad(rows, (0, 0, 1, 0))

    def strangers(self, count: int, first: Tensor, spread: float, seed: int = 0) -> Tensor:
        """[count,num_ws,w_dim]: codes of nobody, spread as those of people are, `spread` times as far; `first [w_dim]`
        is the first of each, which places the picture."""
        z = torch.randn(count, len(self.deviations), generator=torch.Generator().manual_seed(seed))
        rows = self.mean + (spread * z * self.deviations) @ self.vectors
        return torch.cat([first.expand(count, 1, -1), rows.view(count, -1, self.config.w_dim)], 1)

    def read(self, ws: Tensor) -> Tensor:
        """[N,K]: the attributes of codes."""
        x = self.coordinates(ws)
        return torch.cat([x, torch.ones_like(x[:, :1])], 1) @ self.reading * self.label_std + self.label_mean

    def standard(self, labels: Tensor) -> Tensor:
        """Attributes in standard deviations of those the flow was fitted on."""
        return (labels - self.label_mean) / self.label_std

    def solve(self, x: Tensor, c: Tensor, start: float, end: float) -> Tensor:
        """x(end) from x(start) [N,D] under standardised attributes c [N,K]."""
        from torchdiffeq import odeint

        times = torch.linspace(start, end, STEPS + 1, dtype=x.dtype, device=x.device)
        path: Tensor = odeint(lambda t, y: self.velocity(y, t.expand(len(y)), c), x, times, method="rk4")
        return path[-1]

    def person(self, ws: Tensor) -> Tensor:
        """[N,D]: what a code's attributes do not tell of it."""
        return self.solve(self.coordinates(ws), self.standard(self.read(ws)), 1.0, 0.0)

    def under(self, ws: Tensor, c: Tensor, z: Tensor | None = None) -> Tensor:
        """The codes of the same faces under standardised attributes c [N,K]; z: their `person`, where it is known."""
        x = self.coordinates(ws)
        z = self.person(ws) if z is None else z
        change = ((self.solve(z, c, 0.0, 1.0) - x) * self.deviations) @ self.vectors
        return torch.cat([ws[:, :1], ws[:, 1:] + change.view(len(ws), -1, self.config.w_dim)], 1)

    def called(self, ws: Tensor, k: int, call: Tensor, z: Tensor | None = None) -> Tensor:
        """Codes with attribute number k called for at `call [N]` standard deviations, in the rows that belong to it."""
        c = self.standard(self.read(ws))
        c[:, k] = call.clamp(-FULL, FULL)
        further = (call.abs() / FULL).clamp(min=1)
        return ws + further[:, None, None] * self.rows[k, :, None] * (self.under(ws, c, z) - ws)

    def moved(self, ws: Tensor, label: str, target: Tensor, share: Tensor) -> Tensor:
        """Codes that are `share [N]` of the way to the face whose attribute `label` is `target [N]`."""
        k = self.column(label)
        return ws + share[:, None, None] * (self.called(ws, k, self.call(k, target)) - ws)

    def reach(self, label: str) -> tuple[float, float]:
        """The lowest and the highest value to which an attribute comes on average."""
        k = self.column(label)
        low, high = (self.reached[k, [0, -1]] * self.label_std[k] + self.label_mean[k]).tolist()
        return low, high

    def call(self, k: int, target: Tensor) -> Tensor:
        """The call [N] after which attribute number k is read as `target [N]`."""
        wanted = (target - self.label_mean[k]) / self.label_std[k]
        reached, asked = self.reached[k].contiguous(), self.asked[k]
        place = torch.searchsorted(reached, wanted.contiguous()).clamp(1, GRID - 1)
        low, high = reached[place - 1], reached[place]
        share = ((wanted - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)
        return asked[place - 1] + share * (asked[place] - asked[place - 1])


class Velocity(nn.Module):
    """v(x, t, c): residual blocks that time and attributes scale and shift, beside what is linear in these."""

    def __init__(self, components: int, labels: int, width: int, blocks: int) -> None:
        super().__init__()
        told = labels + 1 + 2 * WAVES
        self.begin = nn.Linear(components, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.told = nn.ModuleList(nn.Linear(told, 2 * width) for _ in range(blocks + 1))
        self.end = nn.Linear(width, components)
        self.linear = nn.Linear(told, components)
        self.own = nn.Linear(1 + 2 * WAVES, components)
        self.dropout = nn.Dropout(0.1)
        nn.init.zeros_(self.end.weight)

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """x [N,D], t [N] in 0..1, c [N,K] -> [N,D]."""
        angles = t[:, None] * torch.pi * torch.arange(1, WAVES + 1, dtype=x.dtype, device=x.device)
        time = torch.cat([t[:, None], angles.sin(), angles.cos()], 1)
        told = torch.cat([c, time], 1)
        h = self._told(0, self.begin(x), told)
        for n, block in enumerate(self.blocks, start=1):
            h = h + self._told(n, block(h), told)
        speed: Tensor = self.end(self.dropout(h)) + self.linear(told) + x * self.own(time)
        return speed

    def _told(self, n: int, h: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told[n](told).chunk(2, 1)
        return F.silu(h * (1 + scale) + shift)
