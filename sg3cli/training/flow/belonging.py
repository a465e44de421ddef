"""Which codes belong to an attribute, and what is reached when a value is asked for: measured on drawings.

StyleFlow keeps, for each attribute, the rows of the edited code that its authors chose by hand. Here rows are ranked by
how much of the attribute each moves alone, for how much else it moves, and the fewest are taken that move most of it.

A flow comes less far than it is asked to, the more so the further that is. What it is called for is therefore looked
up: after which call is the value read that is wanted, on average over faces? Read are drawings as they are shown: in
the hue and shade of the face, where the attribute concerns neither, which costs a quarter of the years.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor

from sg3cli.compositing.shade import as_shown
from sg3cli.nets.code_flow import CodeFlow
from sg3cli.nets.generator import Generator
from sg3cli.weights.kept import kept_by_target

Read = Callable[[Tensor], Tensor]  # drawings [N,3,R,R] in [-1,1] -> attributes [N,K]
ReadCodes = Callable[[Tensor], Tensor]  # codes [N,num_ws,w_dim] -> attributes [N,K] of their drawings
Say = Callable[[str], None]

MOST = 0.9  # of an attribute's change that the rows which belong to it have to make
STEP = 1.0  # standard deviations by which an attribute is changed to see which rows do it
AT_ONCE = 16


@torch.inference_mode()
def settle(flow: CodeFlow, ws: Tensor, G: Generator, read: Read, say: Say = lambda line: None) -> None:
    """Fill the flow's rows and what it reaches, by the drawings of codes ws [N,num_ws,w_dim]."""
    before, z = read_drawn(ws, G, read), flow.person(ws)
    for k, label in enumerate(flow.config.targets):
        flow.rows[k] = belonging_rows(flow, k, ws, z, G, read, before)
        shown = reads_shown(G, ws, read, kept_by_target(label, flow.config.keeps_hue))
        flow.reached[k] = what_is_reached(flow, k, ws, z, shown, before)
        rows = np.flatnonzero(flow.rows[k].numpy()).tolist()
        low, high = (float(flow.reached[k, n] * flow.label_std[k] + flow.label_mean[k]) for n in (0, -1))
        say(f"{label}: rows {rows}, from {low:.3g} to {high:.3g}")


def read_drawn(ws: Tensor, G: Generator, read: Read) -> Tensor:
    """[N,K]: the attributes of the drawings of codes."""
    return torch.cat([read(G.synthesis(part).clamp(-1, 1)) for part in ws.split(AT_ONCE)])


def reads_shown(G: Generator, ws: Tensor, read: Read, kept: Collection[str]) -> ReadCodes:
    """What is read of the drawings of edited codes of the faces ws, after what is `kept` was put back."""
    plain = [G.synthesis(part) for part in ws.split(AT_ONCE)]

    def read_codes(edited: Tensor) -> Tensor:
        found = []
        for before, part in zip(plain, edited.split(AT_ONCE), strict=True):
            found.append(read(as_shown(before, G.synthesis(part), kept).clamp(-1, 1)))
        return torch.cat(found)

    return read_codes


def belonging_rows(flow: CodeFlow, k: int, ws: Tensor, z: Tensor, G: Generator, read: Read, before: Tensor) -> Tensor:
    """[num_ws] of 0 and 1: the fewest rows that make `MOST` of attribute number k's change."""
    c = flow.standard(flow.read(ws))
    c[:, k] += STEP
    whole = flow.under(ws, c, z) - ws
    gained, leaked = [], []
    for row in range(1, ws.shape[1]):
        alone = ws.clone()
        alone[:, row] += whole[:, row]
        change = (read_drawn(alone, G, read) - before) / flow.label_std
        gained.append(float(change[:, k].mean()))
        change[:, k] = 0
        leaked.append(float(change.square().sum(1).sqrt().mean()))
    gain = np.maximum(gained, 0.0)
    order = np.argsort(-gain / (np.array(leaked) + 0.05))
    rows = torch.zeros(ws.shape[1])
    if gain.sum() == 0:
        rows[1:] = 1
        return rows
    needed = int(np.searchsorted(np.cumsum(gain[order]), MOST * gain.sum())) + 1
    rows[torch.from_numpy(order[:needed] + 1)] = 1
    return rows


def what_is_reached(flow: CodeFlow, k: int, ws: Tensor, z: Tensor, read: ReadCodes, before: Tensor) -> Tensor:
    """[GRID]: attribute number k after each call, in standard deviations; ascending.

    A soft drawing of somebody old is read as younger than his picture. What counts is by how much the reading changes,
    beside what the code says of the picture.
    """
    reached = []
    for call in flow.asked[k]:
        change = read(flow.called(ws, k, call.expand(len(ws)), z))[:, k] - before[:, k]
        value = (flow.read(ws)[:, k] + change).mean()
        reached.append(float((value - flow.label_mean[k]) / flow.label_std[k]))
    rising = np.maximum.accumulate(np.array(reached))
    return torch.from_numpy(rising + 1e-4 * np.arange(len(rising))).float()  # strictly, so that it can be looked up
