"""Which device computes."""

from __future__ import annotations

import torch

from sg3cli.console import Console
from sg3cli.errors import DeviceError, UsageError


def choose_device(name: str, console: Console) -> torch.device:
    """`auto` (CUDA if there is one), `cpu`, `cuda` or `cuda:1`; says which when it is not the CPU."""
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (number and not number.isdigit()):
        raise UsageError(f"unknown device '{name}'", "choose auto, cpu or cuda")
    available = torch.cuda.is_available()
    if kind == "cuda" and (not available or int(number or 0) >= torch.cuda.device_count()):
        raise DeviceError(f"there is no device {name} here", "use --device cpu; `sg3 doctor` shows what there is")
    if kind == "cpu" or not available:
        return torch.device("cpu")
    device = torch.device(name if kind == "cuda" else "cuda")
    console.notice(f"computing on {torch.cuda.get_device_name(device)}")
    return device
