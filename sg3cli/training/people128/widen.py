"""A generator with more channels that draws, to begin with, what the narrow one draws (Net2Net, Chen et al. 2016).

    python -m sg3cli.training.people128.widen --start NARROW --out WIDE --channel-base 6144 --channel-max 192

Each new channel is the copy of an old one, and whoever reads a channel shares its weight out among the copies. What
StyleGAN3 adds to that: demodulation divides by the length of the weights. That is shorter when they are shared out, and
the outputs come out larger by a factor. Leaky ReLU and filters pass it on; the layer that reads them divides it out
again. The factor depends on the style a little and is taken at the mean of some codes: the drawing of `people-128`
stayed within .004 of its own spread, and within .1 with the noise that tells the copies apart.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from torch import Tensor

from sg3cli.errors import ModelError
from sg3cli.nets.generator import Generator
from sg3cli.nets.synthesis import SynthesisLayer
from sg3cli.training.people128.pair_net import PairNet, load_start, save_start

NOISE = 0.05  # of a weight's own size, on every copy


@torch.no_grad()
def widened(G: Generator, channel_base: int, channel_max: int, ws: Tensor, seed: int = 0) -> Generator:
    """`G` with the widths that follow from `channel_base` and `channel_max`, none of them smaller than before.

    ws [N,num_ws,w_dim]: codes at which the drawing is kept. The input keeps its frequencies, so the first width stays.
    Raises `ModelError` where a layer would lose channels or the input would change.
    """
    wide = Generator(dataclasses.replace(G.config, channel_base=channel_base, channel_max=channel_max))
    old, new = G.config.layers(), wide.config.layers()
    fewer = any(n.out_channels < o.out_channels for n, o in zip(new, old, strict=True))
    if fewer or new[0].in_channels != old[0].in_channels:
        raise ModelError("a generator cannot be widened to fewer channels or to another input", "raise channel_base")
    wide.mapping.load_state_dict(G.mapping.state_dict())
    wide.synthesis.input.load_state_dict(G.synthesis.input.state_dict())
    rng = torch.Generator().manual_seed(seed)
    energies = _energies(G, ws)
    source, factor = torch.arange(old[0].in_channels), torch.ones(old[0].in_channels)
    for k, (o, n) in enumerate(zip(old, new, strict=True)):
        copies = torch.arange(n.out_channels) % o.out_channels if not n.is_torgb else torch.arange(n.out_channels)
        narrow, layer = getattr(G.synthesis, o.name), getattr(wide.synthesis, n.name)
        factor = _widen(narrow, layer, source, copies, factor, energies[k], ws[:, k + 1], rng)
        source = copies
    return wide


def _widen(
    narrow: SynthesisLayer,
    layer: SynthesisLayer,
    source: Tensor,
    copies: Tensor,
    factor: Tensor,
    energy: Tensor,
    w: Tensor,
    rng: torch.Generator,
) -> Tensor:
    """Fill `layer`: input channel i is `factor[i]` times the old channel `source[i]`, output o the old `copies[o]`.

    energy [I]: mean square of the old inputs; w [N,w_dim]. Returns how many times too large each output now is, [O].
    """
    often = torch.bincount(source)[source][None, :, None, None]  # how many copies a channel has
    own = narrow.weight[copies][:, source]
    weight = own / (often * factor[None, :, None, None])
    ratio = (factor.square() * energy[source]).mean() / energy.mean()
    layer.magnitude_ema.copy_(narrow.magnitude_ema * ratio)
    layer.affine.weight.copy_(_noisy(narrow.affine.weight[source], rng))
    layer.affine.bias.copy_(narrow.affine.bias[source])
    if narrow.spec.is_torgb:  # not demodulated; its styles are divided by the root of the channels
        gain = ratio.sqrt() * (len(source) / narrow.spec.in_channels) ** 0.5
        layer.weight.copy_(_noisy(weight * gain, rng))
        layer.bias.copy_(narrow.bias)
        return torch.ones(len(copies))
    layer.weight.copy_(_noisy(weight, rng))
    s = narrow.styles(w)[:, source].square().mean(0)[None, :, None, None]
    length, shared_out = (s * own.square() / often).sum((1, 2, 3)), (s * weight.square()).sum((1, 2, 3))
    larger = (length / shared_out / ratio).sqrt()
    layer.bias.copy_(narrow.bias[copies] * larger)
    return larger


def _noisy(weight: Tensor, rng: torch.Generator) -> Tensor:
    return weight * (1 + NOISE * torch.randn(weight.shape, generator=rng))


def _energies(G: Generator, ws: Tensor) -> list[Tensor]:
    """Mean square of every layer's input channels [I] over drawings of ws."""
    found: list[Tensor] = []
    layers = [getattr(G.synthesis, name) for name in G.layer_names]
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].float().square().mean((0, 2, 3))))
        for layer in layers
    ]
    G.synthesis(ws)
    for hook in hooks:
        hook.remove()
    return found


def main() -> None:
    """Entry of `python -m`."""
    parser = argparse.ArgumentParser(description="Widen the generator of a training start.")
    parser.add_argument("--start", type=Path, required=True, help="folder with generator, encoder, directions")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--channel-base", type=int, required=True)
    parser.add_argument("--channel-max", type=int, required=True)
    given = parser.parse_args()
    net = load_start(given.start, 0)
    rng = torch.Generator().manual_seed(0)
    ws = net.G.mapping(torch.randn(32, net.G.config.z_dim, generator=rng))
    G = widened(net.G.eval(), given.channel_base, given.channel_max, ws)
    save_start(given.out, PairNet(G, net.encoder, net.directions.detach()), {})


if __name__ == "__main__":
    main()
