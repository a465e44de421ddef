"""Images for tests of metrics: smooth with an edge, and blurred."""

import numpy as np
import torch


def image(size: int = 64, seed: int = 0) -> torch.Tensor:
    """A smooth image with edges, [1, 3, size, size] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(rng.uniform(4, 14, 2) @ [x.ravel(), y.ravel()] + rng.uniform(0, 6)) for _ in range(3)]
    image = np.stack(waves).reshape(3, size, size) * 0.6 + 0.3 * (x > 0.5)
    return torch.from_numpy(image[None].astype(np.float32)).clamp(-1, 1)


def blurred(x: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        x = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)
    return x
