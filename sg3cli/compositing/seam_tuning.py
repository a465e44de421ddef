"""Stitch-it-in-Time (Tzaban et al. 2022, section 3.4), for the whole clip at once.

There, the generator is tuned again for every frame, from scratch, until the border of its edited face meets the frame.
Here one copy of the clip's tuned generator learns it for all frames together, in batches: the seam of every frame asks
for nearly the same, and a face between two frames that were seen is met as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sg3cli.latents.codes import Codes
from sg3cli.latents.pivotal_tuning import PivotalTuner, Targets, TuneStep
from sg3cli.levels import tensor_to_signed
from sg3cli.metrics.perceptual import PerceptualLoss
from sg3cli.nets.generator import Generator
from sg3cli.settings import FinetuneConfig

CONTENT = 0.1  # weight of the inside against the border
FULL = 254  # opacity from which on a pixel is inside


@dataclass(frozen=True)
class SeamTargets(Targets):
    """Crops to be met, and the opacity `masks [K, N, N]` uint8 they will be pasted with.

    On the soft edge (opacity between 0 and 1) `images` shows what leaves the frame as it is, inside the edited face.
    """

    masks: np.ndarray


class Unused(PerceptualLoss):
    """The place of a loss that is not asked."""

    name = "none"


class SeamTuner(PivotalTuner):
    """Tunes a copy of `G` so that its edited faces end in the frame; `run()` also stops at a border error.

    The `codes` of the K targets are edited. The log's `l2` is the border's error and `perceptual` the inside's: sums
    over channels of squared differences (images in [-1, 1]), means over the pixels, as in the reference.
    """

    targets: SeamTargets

    def __init__(
        self,
        G: Generator,
        codes: Codes | np.ndarray,
        transforms: np.ndarray,
        targets: SeamTargets,
        config: FinetuneConfig,
        threshold: float,
    ) -> None:
        weighted = replace(config, l2=1.0, perceptual=CONTENT)
        super().__init__(G, codes, transforms, targets, weighted, Unused())
        self.threshold = threshold

    def run(self) -> Iterator[TuneStep]:
        """Tune until done, or until the border's error of all frames that were seen lately is below the threshold."""
        recent: list[float] = []
        window = -(-len(self.targets.frames) // max(self.config.batch, 1))
        for step in super().run():
            yield step
            recent = [*recent[-window + 1 :], step.l2] if window > 1 else [step.l2]
            if len(recent) >= min(window, 20) and np.mean(recent) < self.threshold:
                return

    def _losses(self, chosen: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Border and inside error of the targets `chosen [B]`, and what was drawn."""
        frames, device = self.targets.frames[chosen], self.ws.device
        levels = torch.from_numpy(self.targets.images[chosen]).to(device)
        masks = torch.from_numpy(self.targets.masks[chosen]).to(device)[:, None]
        target = tensor_to_signed(levels.permute(0, 3, 1, 2)).contiguous()
        image = self.draw(frames)
        error = (image - target).square().sum(dim=1, keepdim=True)
        border, inside = ((masks > 0) & (masks < FULL)).float(), (masks >= FULL).float()
        return weighted_mean(error, border), weighted_mean(error, inside), image.detach()


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean of `values` with `weights`, both `[B, 1, N, N]`; 0 where nothing has weight."""
    return (values * weights).sum() / weights.sum().clamp(min=1)


def seam_target(
    edited: np.ndarray, plain: np.ndarray, source: np.ndarray, opacity: np.ndarray, detail: float
) -> tuple[np.ndarray, np.ndarray]:
    """What the tuned generator shall draw `[N, N, 3]`, and the mask `[N, N]`, both uint8.

    Inside that is the `edited` face. On the border it is what pastes as the frame itself: the `source`'s crop where
    the generator's image is shown, the `plain` face where the paste adds only what the edit changes (`detail`).
    """
    mask = np.rint(opacity * 255).astype(np.uint8)
    kept = detail * plain.astype(np.float32) + (1 - detail) * source
    image = np.where((mask >= FULL)[..., None], edited, np.rint(np.clip(kept, 0, 255)).astype(np.uint8))
    return image, mask
