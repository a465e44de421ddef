"""Edits that say where to go rather than how far: `age=70`, by a flow on the codes (`nets.code_flow`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from sg3cli.latents.codes import Codes
from sg3cli.nets.code_flow import CodeFlow

AT_ONCE = 64  # frames


@dataclass(frozen=True)
class FlowTo:
    """Brings an attribute to a value: `targets [n]` of the frames, in its own unit; strength 1 is all of the way."""

    flow: CodeFlow
    label: str
    targets: np.ndarray | None = None

    def towards(self, targets: np.ndarray) -> FlowTo:
        """The same for frames of which each has its own value."""
        return replace(self, targets=targets)

    def __call__(self, codes: Codes, strengths: np.ndarray) -> Codes:
        if self.targets is None:
            raise ValueError(f"no value is known that {self.label} shall have")
        ws, share, target = (torch.from_numpy(np.asarray(a, np.float32)) for a in (codes.ws, strengths, self.targets))
        parts = (slice(n, n + AT_ONCE) for n in range(0, len(ws), AT_ONCE))
        with torch.inference_mode():
            moved = torch.cat([self.flow.moved(ws[at], self.label, target[at], share[at]) for at in parts])
        return replace(codes, ws=moved.numpy())
