"""ReStyle (Alaluf et al. 2021): invert an image by a few encoder passes, each correcting the one before."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.encoder import Encoder
from sg3cli.nets.generator import Generator

STEPS = 3  # of an encoder that does not say how many it needs; the paper takes five


def average_image(G: Generator, size: int) -> Tensor:
    """The image of the mean code, [1, 3, size, size]: what ReStyle starts from."""
    ws = G.mapping.w_avg.expand(1, G.num_ws, -1)
    return _pool(_upright(G, ws), size)


def restyle_steps(
    encoder: Encoder, G: Generator, x: Tensor, steps: int = STEPS, avg_image: Tensor | None = None
) -> Iterator[Tensor]:
    """Yield the codes [N, num_ws, w_dim] after each of `steps` passes over aligned images x [N, 3, *, *].

    `avg_image` [1, 3, S, S] is `average_image(G, S)`, given by callers that have many batches.
    """
    size = encoder.config.input_size
    current = average_image(G, size) if avg_image is None else avg_image
    current = current.expand(len(x), -1, -1, -1)
    ws = G.mapping.w_avg.expand(len(x), G.num_ws, -1)
    for step in range(steps):
        ws = restyle_pass(encoder, x, ws, current)
        yield ws
        if step + 1 < steps:
            current = reconstruction(G, ws, size)


def restyle_pass(encoder: Encoder, x: Tensor, ws: Tensor, current: Tensor) -> Tensor:
    """Codes [N, num_ws, w_dim] that one pass makes of `ws`, whose images are `current` [N, 3, S, S]."""
    updated: Tensor = ws + encoder(torch.cat([_pool(x, encoder.config.input_size), current], dim=1))
    return updated


def reconstruction(G: Generator, ws: Tensor, size: int) -> Tensor:
    """What the encoder is shown of codes `ws`: their aligned images [N, 3, size, size]."""
    return _pool(_upright(G, ws), size)


def restyle_codes(
    encoder: Encoder, G: Generator, x: Tensor, steps: int = STEPS, avg_image: Tensor | None = None
) -> Tensor:
    """The codes [N, num_ws, w_dim] after the last step; no image is made of them."""
    *_, ws = restyle_steps(encoder, G, x, steps, avg_image)
    return ws


def restyle(
    encoder: Encoder,
    G: Generator,
    x: Tensor,
    steps: int = STEPS,
    avg_image: Tensor | None = None,
    transform: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Invert x [N, 3, *, *] in [-1, 1]: (ws [N, num_ws, w_dim], images [N, 3, R, R]).

    The encoder only ever sees aligned images; `transform` (see `Synthesis.forward`) moves the final ones.
    """
    ws = restyle_codes(encoder, G, x, steps, avg_image)
    return ws, (_upright(G, ws) if transform is None else G.synthesis(ws, transform=transform))


def _upright(G: Generator, ws: Tensor) -> Tensor:
    """Aligned image: the identity, whatever transform the loaded generator may carry."""
    y: Tensor = G.synthesis(ws, transform=torch.eye(3, device=ws.device))
    return y


def _pool(x: Tensor, size: int) -> Tensor:
    return x if x.shape[-2:] == (size, size) else F.adaptive_avg_pool2d(x, (size, size))
