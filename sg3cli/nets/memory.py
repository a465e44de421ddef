"""How much memory a backward pass through the generator takes, and what to do where that is more than there is.

Two means, neither of which changes what a step means: fewer images at once, their gradients summed; and layers whose
inside is computed again in the backward pass, which gives the same bits for a third more time in those layers.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from sg3cli.nets.generator_config import GeneratorConfig, LayerSpec
from sg3cli.process_memory import peak_rss

ENOUGH = 3 << 30  # bytes that the images of one pass may keep
SHARE = 0.5  # of the free memory that may be kept; the other half is for what comes and goes


def kept_bytes(spec: LayerSpec, images: int, remat: bool = False) -> int:
    """What a layer keeps from the forward to the backward pass, in float32.

    Always its input. Unless it is recomputed (`remat`), also two bits for each sample of the up-sampled grid and, with
    several images, the input and the output of the convolution that their styles scale.
    """
    size = spec.in_size + spec.conv_kernel - 1
    before, after = spec.in_channels * spec.in_size**2, spec.out_channels * size**2
    grid = (spec.out_size - 1) * spec.down + spec.down_taps
    inside = spec.out_channels * grid**2 // 4 + (4 * (before + after) if images > 1 else 0)
    return images * (4 * before + (0 if remat else inside))


def images_at_once(config: GeneratorConfig, batch: int, limit: int = ENOUGH) -> int:
    """Into how large parts a batch is cut: a function of the network alone, so every run sums in the same order."""
    layers = config.layers()
    sizes = range(batch, 1, -1)
    return next((n for n in sizes if sum(kept_bytes(spec, n) for spec in layers) <= limit), 1)


def layers_to_recompute(config: GeneratorConfig, images: int, free: int) -> set[int]:
    """Indices of the layers to compute again, as few as will do: those first that save most."""
    layers = config.layers()
    saved = {i: kept_bytes(spec, images) - kept_bytes(spec, images, True) for i, spec in enumerate(layers)}
    excess = sum(kept_bytes(spec, images) for spec in layers) - SHARE * free
    chosen: set[int] = set()
    for i in sorted(saved, key=lambda i: -saved[i]):
        if excess <= 0:
            break
        chosen.add(i)
        excess -= saved[i]
    return chosen


def free_bytes(device: torch.device) -> int:
    """Memory that is free on the device, or could be freed at once."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        status = Path("/proc/meminfo").read_text(encoding="utf8")
        return 1024 * int(status.partition("MemAvailable:")[2].split()[0])
    except (OSError, IndexError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def forget_peak(device: torch.device) -> bool:
    """Begin anew to note the peak of memory; whether that can be done here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return False
    with os.fdopen(descriptor, "w") as handle:
        handle.write("5")
    return True


def peak_bytes(device: torch.device) -> int:
    """The peak since `forget_peak`: of the device's own memory, of the whole process on the CPU."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else peak_rss()
