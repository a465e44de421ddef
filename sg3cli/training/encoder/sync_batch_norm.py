"""What a group of processes computes together with gradients: sums, and batch normalisation over the whole batch.

`torch.nn.SyncBatchNorm` is for GPUs only. This one runs wherever the group's messages do, and takes sums in float64, so
that two processes normalise as one does.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sg3cli.training.distributed import Group


class _Sum(torch.autograd.Function):
    """Sum over the processes; its gradient is summed as well, because every process's loss depends on it."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class GroupBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the statistics of all processes' images while it trains; the same parameters."""

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W], the same N in every process."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        count = x.numel() // x.shape[1] * dist.get_world_size()
        wide = x.double()
        sums = _Sum.apply(torch.stack([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))]))
        mean = sums[0] / count
        variance = (sums[1] / count - mean.square()).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            momentum = 0.1 if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_((variance * count / max(count - 1, 1)).to(self.running_var), momentum)
        scale = (variance + self.eps).rsqrt().to(x.dtype) * self.weight
        return torch.addcmul(self.bias[:, None, None], x - mean.to(x.dtype)[:, None, None], scale[:, None, None])


def share_batch_norm(net: nn.Module, group: Group) -> None:
    """Make every `BatchNorm2d` in `net` one of the whole group; nothing to do for one process."""
    if group.world == 1:
        return
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GroupBatchNorm  # the same parameters and buffers, under the same names


def gather(group: Group, share: Tensor) -> Tensor:
    """The whole batch [B, ...] in its order, of which every process has a `Group.share`; no gradient passes."""
    if group.world == 1:
        return share.detach()
    parts = [torch.empty_like(share) for _ in range(group.world)]
    dist.all_gather(parts, share.detach().contiguous())
    return torch.stack(parts, 1).flatten(0, 1)
