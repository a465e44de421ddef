"""Fit the mapping network z -> w to the codes that the encoder gives, so that `generate` draws people from noise.

The generator never saw z while it was trained as a decoder; its codes are close to normally distributed. Two layers
with leaky ReLUs can be an affine map exactly: with the slopes 1 and s, lrelu(-lrelu(-t) / s) = t for every t. So
w = w_avg + A z takes no training, only the mean and the principal axes of the codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sg3cli.nets.generator import Generator
from sg3cli.nets.layers import LRELU_SLOPE, EqualLinear
from sg3cli.nets.mapping import Mapping


@torch.no_grad()
def fit_mapping(G: Generator, codes: Tensor) -> float:
    """Set `G.mapping` to draw from the normal distribution of codes [N,w_dim]; w_avg becomes their mean.

    Returns the share of their variance that z_dim axes hold. The network must have two layers.
    """
    if G.config.mapping_layers != 2:
        raise ValueError(f"the mapping has {G.config.mapping_layers} layers; the fit is for two")
    mean = codes.mean(0)
    _, lengths, axes = torch.linalg.svd(codes - mean, full_matrices=False)
    kept = min(len(lengths), G.config.z_dim)
    A = torch.zeros(G.w_dim, G.config.z_dim)
    A[:, :kept] = (axes[:kept] * lengths[:kept, None]).T / max(len(codes) - 1, 1) ** 0.5
    gain = 2**0.5  # of each activation
    _set(G.mapping, "fc0", -A, -mean)
    _set(G.mapping, "fc1", -torch.eye(G.w_dim) / (LRELU_SLOPE * gain**2), torch.zeros(G.w_dim))
    G.mapping.w_avg.copy_(mean)
    return float(lengths[:kept].square().sum() / lengths.square().sum().clamp(min=1e-12))


def _set(mapping: Mapping, name: str, weight: Tensor, bias: Tensor) -> None:
    """Let a layer multiply by `weight` and add `bias` after its equalised learning rate."""
    layer = mapping.get_submodule(name)
    assert isinstance(layer, EqualLinear)
    layer.weight.copy_(weight / layer.weight_gain)
    layer.bias.copy_(bias / layer.bias_gain)
