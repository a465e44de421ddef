"""A generator moved in an aim's direction, beside a frozen copy that draws the same codes.

Trained are the convolutions of all synthesis layers, ToRGB among them, with their biases. The mapping, the affine
layers that make styles of codes, and the Fourier input stay, so that codes, directions and styles mean what they meant.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.generator import Generator
from sg3cli.training.adaptation.aims import Aim
from sg3cli.training.config import AdaptConfig, TrainMapperConfig

BETAS = (0.0, 0.99)  # of Adam, as published
SOFT = 0.02  # of features of length 1: below such a change its direction does not count yet
GREY = (0.299, 0.587, 0.114)
COARSE = 16  # places on a side of the image on which `keep` compares light and dark


class Codes:
    """Codes of each step: of those that were given, or of noise through the mapping, truncated."""

    def __init__(self, G: Generator, config: AdaptConfig | TrainMapperConfig, given: np.ndarray | None = None) -> None:
        """given: [N, num_ws or 1, w_dim]."""
        self.G, self.config = G, config
        self.given = None if given is None else torch.from_numpy(given).float().expand(-1, G.num_ws, -1)

    def at(self, step: int, count: int) -> Tensor:
        """[count, num_ws, w_dim]: a function of the seed and the step alone."""
        noise = np.random.default_rng([self.config.seed, step])
        where = self.G.mapping.w_avg.device
        if self.given is not None:
            places = noise.choice(len(self.given), count, replace=count > len(self.given))
            return self.given[torch.from_numpy(places)].to(where)
        z = torch.from_numpy(noise.standard_normal((count, self.G.config.z_dim), np.float32)).to(where)
        with torch.no_grad():
            ws: Tensor = self.G.mapping(z, psi=self.config.truncation)
        return ws


class Adapter:
    """`parent` draws as it did, `G` is what it becomes. `state` and `restore` make a run that was killed the same."""

    def __init__(self, parent: Generator, aim: Aim, codes: Codes, config: AdaptConfig) -> None:
        self.parent, self.aim, self.codes, self.config = parent.eval().requires_grad_(False), aim, codes, config
        self.G = copy.deepcopy(self.parent)
        self.trained = trained_parameters(self.G)
        for parameter in self.trained.values():
            parameter.requires_grad_(True)
        self.optimizer = torch.optim.Adam(list(self.trained.values()), lr=config.lr, betas=BETAS)
        self.step = 0

    def run(self) -> Iterator[dict[str, float]]:
        """What each step that is left has found; see `measures`."""
        while self.step < self.config.steps:
            ws = self.codes.at(self.step, self.config.batch)
            with torch.no_grad():
                before = self.parent.synthesis(ws)
                was = self.aim.embed(before)
            after = self.G.synthesis(ws)
            change = self.aim.embed(after) - was
            found = measures(change, self.aim)
            loss = directional_loss(change, self.aim) + self.config.keep * light_change(before, after)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.step += 1
            yield {"loss": float(loss.detach()), **found}

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        weights = {name: parameter.detach() for name, parameter in self.trained.items()}
        return {"step": self.step, "weights": weights, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


def trained_parameters(G: Generator) -> dict[str, torch.nn.Parameter]:
    """Weight and bias of every synthesis layer by name; not those of its affine layer."""
    layers = zip(G.layer_names, G.synthesis.layers(), strict=True)
    return {f"{name}.{kind}": getattr(layer, kind) for name, layer in layers for kind in ("weight", "bias")}


def directional_loss(change: Tensor, aim: Aim) -> Tensor:
    """1 - cos of changes of features [N,D] and the aim's direction, the mean; what goes too far is held back.

    A change that is nearly nothing has no direction: it counts less, so that the first steps are gentle. Where the aim
    says how far it is, drawings that have passed it pay for that.
    """
    along = change @ aim.direction
    loss = (1 - along / (change.square().sum(1) + SOFT**2).sqrt()).mean()
    if aim.distance is not None:
        loss = loss + F.relu(along / aim.distance - 1).square().mean()
    return loss


def light_change(before: Tensor, after: Tensor) -> Tensor:
    """Mean squared difference of two drawings [N,3,R,R] in grey, seen coarsely: shape and shading, not strokes."""
    weights = before.new_tensor(GREY).view(1, 3, 1, 1)
    difference = ((after - before) * weights).sum(1, keepdim=True)
    return F.adaptive_avg_pool2d(difference, min(COARSE, difference.shape[-1])).square().mean()


def measures(change: Tensor, aim: Aim) -> dict[str, float]:
    """`cosine` with the direction, `change` of the features, and where it is known the share of the way (`reached`)."""
    with torch.no_grad():
        along, length = change @ aim.direction, change.norm(dim=1)
        found = {"cosine": float((along / length.clamp(min=1e-6)).mean()), "change": float(length.mean())}
        if aim.distance is not None:
            found["reached"] = float(along.mean()) / aim.distance
    return found
