"""Mapping network: z (and a label) to the intermediate code w, with truncation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sg3cli.nets.generator_config import GeneratorConfig
from sg3cli.nets.layers import EqualLinear, normalize_second_moment


class Mapping(nn.Module):
    """A few fully connected layers; all layers of the synthesis network get the same w."""

    w_avg: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.num_ws = config.num_ws
        self.c_dim = config.c_dim
        self.num_layers = config.mapping_layers
        self.w_avg_beta = config.w_avg_beta
        width = config.z_dim
        if config.c_dim > 0:
            self.embed = EqualLinear(config.c_dim, config.w_dim)
            width += config.w_dim
        for i in range(config.mapping_layers):
            fc = EqualLinear(width, config.w_dim, activate=True, lr_multiplier=config.mapping_lr_multiplier)
            self.add_module(f"fc{i}", fc)
            width = config.w_dim
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        psi: float = 1.0,
        cutoff: int | None = None,
        update_emas: bool = False,
    ) -> Tensor:
        """z [N, z_dim], label c [N, c_dim] -> ws [N, num_ws, w_dim].

        `psi` pulls the first `cutoff` codes (None: all) towards `w_avg`; `update_emas` moves `w_avg` itself.
        """
        w = normalize_second_moment(z.float())
        if self.c_dim > 0:
            if c is None:
                raise ValueError(f"this generator is conditional: give a label of {self.c_dim} values")
            w = torch.cat([w, normalize_second_moment(self.embed(c.float()))], dim=1)
        for i in range(self.num_layers):
            w = getattr(self, f"fc{i}")(w)
        if update_emas:
            self.w_avg.copy_(w.detach().mean(dim=0).lerp(self.w_avg, self.w_avg_beta))
        ws = w.unsqueeze(1).repeat(1, self.num_ws, 1)
        if psi == 1:
            return ws
        cutoff = self.num_ws if cutoff is None else cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :cutoff], psi), ws[:, cutoff:]], dim=1)
