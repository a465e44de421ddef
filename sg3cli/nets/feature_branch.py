"""What a network that has seen the world says of a face, as an encoder's second opinion.

An encoder that was trained on a thousand people knows a thousand people. EfficientNet-Lite0 knows a million
photographs: the difference of its features of a picture and of the present drawing, projected to the components in
which such differences lie, says in which direction the code is wrong, and a linear map and a small network turn that
into codes. Backbone and projection are frozen; what is learned begins with zeros.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.nets.efficientnet_lite import LITE0, STAGES, EfficientNetLite

SIZE = 128  # pixels that the backbone is shown
# stage of the backbone, side of the grid over which its map is averaged
GRIDS = ((1, 8), (2, 8), (3, 4), (4, 4), (5, 4))
DIMENSION = sum(STAGES[stage][3] * grid**2 for stage, grid in GRIDS)
HIDDEN = 384  # of encoders that do not say
DROPOUT = 0.15  # while it is trained: of what it says of the target itself, and of the small network's inside


class FeatureBranch(nn.Module):
    """Target and drawing `[N,6,S,S]` in [-1,1] to a correction of the codes `[N,num_ws,w_dim]`, 0 at first.

    `components [D,K]` are scaled so that projected differences have a mean square of 1; `mean [D]` is that of targets.
    """

    mean: Tensor

    def __init__(self, components: int, num_ws: int, w_dim: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.shape = (num_ws, w_dim)
        self.net = EfficientNetLite(LITE0, last=GRIDS[-1][0]).eval().requires_grad_(False)
        self.register_buffer("mean", torch.zeros(DIMENSION))
        frozen = torch.zeros(DIMENSION, components)
        self.components = nn.Parameter(frozen, requires_grad=False)  # as a parameter it may be stored in half
        self.direct = nn.Linear(components, num_ws * w_dim)
        self.inner = nn.Linear(2 * components, hidden)
        self.outer = nn.Linear(hidden, num_ws * w_dim, bias=False)
        for parameter in (self.direct.weight, self.direct.bias, self.outer.weight):
            nn.init.zeros_(parameter)

    def learned(self) -> list[nn.Parameter]:
        """The parameters that are not frozen."""
        return [*self.direct.parameters(), *self.inner.parameters(), *self.outer.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """x [N,6,S,S]: target, then drawing."""
        with torch.no_grad():
            target, drawn = describe(self.net, torch.cat([x[:, :3], x[:, 3:]])).chunk(2)
            away = (target - drawn) @ self.components
            who = (target - self.mean) @ self.components
        seen = torch.cat([away, F.dropout(who, DROPOUT, self.training)], 1)
        hidden = F.dropout(F.silu(self.inner(seen)), DROPOUT, self.training)
        y: Tensor = self.direct(away) + self.outer(hidden)
        return y.view(-1, *self.shape)


def describe(net: EfficientNetLite, x: Tensor) -> Tensor:
    """x [N,3,S,S] in [-1,1] -> [N,DIMENSION]: the maps of `GRIDS`, each averaged over its grid."""
    if x.shape[-1] != SIZE:
        x = F.interpolate(x, size=(SIZE, SIZE), mode="bilinear", antialias=x.shape[-1] > SIZE, align_corners=False)
    x = x.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
    maps = net.features(x, tuple(stage for stage, _ in GRIDS))
    return torch.cat(
        [F.adaptive_avg_pool2d(y.float(), grid).flatten(1) for y, (_, grid) in zip(maps, GRIDS, strict=True)], 1
    )


def fit_components(branch: FeatureBranch, net: EfficientNetLite, targets: Tensor, drawn: Tensor) -> float:
    """Set backbone, `mean` and `components` from descriptions [N,DIMENSION] of pictures and of their drawings.

    Every feature counts in its own standard deviation, components are those of the differences. The share of the
    differences' square that they hold.
    """
    branch.net.load_state_dict({name: net.state_dict()[name] for name in branch.net.state_dict()})
    scale = 1 / (targets.std(0) + 1e-4)
    differences = (targets - drawn) * scale
    _, singular, components = torch.pca_lowrank(differences, branch.components.shape[1], center=False, niter=3)
    branch.mean.copy_(targets.mean(0))
    branch.components.copy_(scale[:, None] * components / (singular / len(targets) ** 0.5))
    return float(singular.square().sum() / differences.square().sum())


@torch.no_grad()
def grow(branch: FeatureBranch, old: FeatureBranch, targets: Tensor, drawn: Tensor) -> float:
    """Make a new, wider `branch` say what `old` says; its further components [D,K-k] are those of what the old ones
    miss of the differences of descriptions [N,DIMENSION].

    A unit that is new hears everything and says nothing yet. The share of the differences' square that all hold.
    """
    few, all_of_them = old.components.shape[1], branch.components.shape[1]
    scale = 1 / (targets.std(0) + 1e-4)
    differences = (targets - drawn) * scale
    known, _ = torch.linalg.qr(old.components / scale[:, None])
    missed = differences - differences @ known @ known.T
    _, singular, vectors = torch.pca_lowrank(missed, all_of_them - few, center=False, niter=3)
    branch.net.load_state_dict(old.net.state_dict())
    branch.mean.copy_(old.mean)
    further = scale[:, None] * vectors / (singular / len(targets) ** 0.5)
    branch.components.copy_(torch.cat([old.components, further], 1))
    branch.direct.weight.zero_()[:, :few] = old.direct.weight
    branch.direct.bias.copy_(old.direct.bias)
    units = len(old.inner.bias)
    heard = branch.inner.weight.view(-1, 2, all_of_them)
    heard[:units] = 0
    heard[:units, :, :few] = old.inner.weight.view(units, 2, few)
    branch.inner.bias[:units] = old.inner.bias
    branch.outer.weight.zero_()[:, :units] = old.outer.weight
    left = (missed - missed @ vectors @ vectors.T).square().sum()
    return float(1 - left / differences.square().sum())
