"""One training over several processes: which share is mine, and sums over all of them.

`torchrun` starts the processes and says in the environment who is who; without it a `Group` is one process and every
operation below is the identity. Every random number of a step belongs to an image's place in the whole batch, and is
drawn by every process for the whole batch, so that a run over N processes is the run of one process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sg3cli.errors import DeviceError, UsageError

T = TypeVar("T", np.ndarray, Tensor)


@dataclass(frozen=True)
class Group:
    """The processes of one training; `device` is where this one computes."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def check_batch(self, batch: int) -> None:
        """Raises UsageError when `batch` images cannot be shared out evenly."""
        if batch % self.world:
            raise UsageError(f"a batch of {batch} cannot be shared by {self.world} processes", "give a multiple")

    def share(self, whole: T) -> T:
        """This process's part of something that has one entry per image of the whole batch.

        Every `world`-th entry, so that the discriminator's groups of images are the same as in one process.
        """
        return whole[self.rank :: self.world]

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes; no gradient passes."""
        if self.world > 1:
            value = value.detach().clone()
            dist.all_reduce(value)
            value /= self.world
        return value

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, in one message."""
        having = [p for p in parameters if p.grad is not None]
        if self.world == 1 or not having:
            return
        flat = self.mean(torch.cat([p.grad.flatten() for p in having if p.grad is not None]))
        for p, part in zip(having, flat.split([p.numel() for p in having]), strict=True):
            assert p.grad is not None
            p.grad.copy_(part.view_as(p))

    def copy_from_first(self, *modules: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.world > 1:
            for module in modules:
                for value in (*module.parameters(), *module.buffers()):
                    dist.broadcast(value.data, src=0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def training_group(device: str = "auto") -> Iterator[Group]:
    """The group that `torchrun` describes, left again at the end; one process when there is no `torchrun`.

    device: "auto", "cpu" or "cuda"; each process takes the GPU of its local rank. Raises DeviceError without a GPU.
    """
    local = int(os.environ.get("LOCAL_RANK", 0))
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("no CUDA device is available", "--device cpu")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    where = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(where)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Group(device=where)
        return
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        group = Group(dist.get_rank(), dist.get_world_size(), where)
        yield group
        group.wait()  # who leaves while another still writes can be aborted by its closing connections
    finally:
        dist.destroy_process_group()
