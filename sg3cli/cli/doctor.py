"""What this machine offers: versions, device, compiler, models."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from typing import Any

import sg3cli
from sg3cli.weights import store
from sg3cli.weights.registry import TABLE

PACKAGES = ("torch", "av", "numpy", "opencv-python", "face-alignment", "lpips", "typer", "rich", "safetensors")


def examine() -> dict[str, Any]:
    """Facts by section; torch is imported only here."""
    return {
        "sg3": {"version": sg3cli.__version__, "python": platform.python_version(), "system": platform.platform()},
        "packages": {name: _version(name) for name in PACKAGES},
        "device": _device(),
        "tools": {name: shutil.which(name) or "not found" for name in ("c++", "ninja")},
        "models": {name: "here" if store.is_present(name) else "not here" for name in TABLE},
        "folders": {"models": str(store.models_dir()), "torch hub": str(store.torch_hub_dir())},
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _device() -> dict[str, str]:
    import torch

    facts = {"cpu cores": str(len(os.sched_getaffinity(0))), "torch threads": str(torch.get_num_threads())}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {**facts, "cuda": ", ".join(names) or "none"}
