"""A latent mapper learns the step after which a drawing fits a text.

loss = 1 - similarity of drawing and text
     + l2 * mean square of the step, in standard deviations of the model's codes
     + identity * (1 - likeness of the drawings with and without the step), where the model has a face reader
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.generator import Generator
from sg3cli.nets.latent_mapper import LatentMapper, MapperConfig, level_rows
from sg3cli.training.adaptation.trainer import Codes
from sg3cli.training.config import TrainMapperConfig

Embed = Callable[[Tensor], Tensor]  # images [N,3,R,R] in [-1,1] -> rows [N,D]; gradients go through
BETAS = (0.9, 0.99)  # of Adam
SAMPLES = 1000  # codes that the unit of steps is taken from


class MapperTrainer:
    """`run` trains; `state` and `restore` make a run that was killed the same."""

    def __init__(
        self,
        G: Generator,
        codes: Codes,
        embed: Embed,
        text: Tensor,
        identity: Embed | None,
        config: TrainMapperConfig,
    ) -> None:
        """text [D], of length 1; identity: vectors that are alike for pictures of one person."""
        self.G, self.codes, self.embed, self.text, self.identity = G, codes, embed, text, identity
        self.config = config
        self.mapper = fresh_mapper(G, config).to(text.device)
        self.variance = code_variance(G)
        self.optimizer = torch.optim.Adam(self.mapper.parameters(), lr=config.lr, betas=BETAS)
        self.step = 0

    def run(self) -> Iterator[dict[str, float]]:
        """What each step that is left has found: `loss`, `similarity`, `length` of the steps (r.m.s.), `likeness`."""
        while self.step < self.config.steps:
            ws = self.codes.at(self.step, self.config.batch)
            loss, found = self.loss(ws)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.step += 1
            yield {"loss": float(loss.detach()), **found}

    def loss(self, ws: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Of codes [N,num_ws,w_dim]: the loss, and what it is made of."""
        config, step = self.config, self.mapper(ws)
        drawn = self.G.synthesis(ws + step).clamp(-1, 1)
        similarity = (self.embed(drawn) @ self.text).mean()
        length = step.square().mean() / self.variance
        loss = 1 - similarity + config.l2 * length
        found = {"similarity": similarity.item(), "length": length.item() ** 0.5}
        if self.identity is not None and config.identity > 0:
            with torch.no_grad():
                whose = self.identity(self.G.synthesis(ws).clamp(-1, 1))
            likeness = F.cosine_similarity(self.identity(drawn), whose).mean()
            loss = loss + config.identity * (1 - likeness)
            found["likeness"] = likeness.item()
        return loss, found

    def similarity(self, ws: Tensor, strength: float) -> float:
        """How well drawings of codes, moved by so many steps, fit the text."""
        with torch.no_grad():
            drawn = self.G.synthesis(ws + strength * self.mapper(ws)).clamp(-1, 1)
            return float((self.embed(drawn) @ self.text).mean())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {"step": self.step, "mapper": self.mapper.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a `state`."""
        self.mapper.load_state_dict(state["mapper"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


def fresh_mapper(G: Generator, config: TrainMapperConfig) -> LatentMapper:
    """A mapper that takes no step yet, the same for the same seed. Row 0, which places the picture, has no level."""
    rows = level_rows(G.num_ws, first=1)
    levels = tuple(rows[name] for name in rows if name in config.levels)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return LatentMapper(MapperConfig(G.num_ws, G.config.w_dim, levels))


def code_variance(G: Generator) -> float:
    """Mean variance of a number of the model's codes, untruncated."""
    noise = torch.Generator().manual_seed(0)
    z = torch.randn(SAMPLES, G.config.z_dim, generator=noise).to(G.mapping.w_avg.device)
    with torch.no_grad():
        return float(G.mapping(z)[:, 0].var(0).mean())
