"""Perceptual distances between image batches: LPIPS or EfficientNet-Lite0 where they are at hand, else structural.

Both map `a, b [N, 3, H, W]` float32 in [-1, 1] to `[N]`, are 0 for equal images and differentiable.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.errors import ModelError, UsageError
from sg3cli.metrics.ssim import gaussian_window, ssim_maps
from sg3cli.metrics.torchvision_compat import import_torchvision
from sg3cli.nets.efficientnet_lite import PerceptualDistance
from sg3cli.weights import store
from sg3cli.weights.efficientnet import load_efficientnet_lite

LITE0_SCALE = 0.2  # a softly drawn face is at 2.3 of Lite0's distance and about .4 of LPIPS
ALEXNET_FILE = "alexnet-owt-7be5be79.pth"  # the name torchvision gives the backbone in the torch hub cache


class PerceptualLoss(nn.Module):
    """A distance with a `name` for notices and reports."""

    name: str

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError

    def describe(self, b: Tensor) -> list[Tensor]:
        """What `compare` needs of targets `b [N, 3, H, W]`, each `[N, ...]`: the same at every step of a tuning."""
        return [b]

    def compare(self, a: Tensor, described: list[Tensor]) -> Tensor:
        """The distance `[N]` of images `a [N, 3, H, W]` from targets that `describe` was given."""
        (b,) = described
        distance: Tensor = self(a, b)
        return distance


class StructuralLoss(PerceptualLoss):
    """Multi-scale structural loss: dissimilarity of structure plus difference of gradients at every scale.

    The structure term is 1 - SSIM with a 7x7 window at scales 1, 1/2, 1/4, ... (Zhao et al. 2017); the
    gradient term keeps edges sharp where SSIM's window averages them away. Needs no weights.
    """

    name = "structural"

    def __init__(self, max_scales: int = 4, gradient: float = 1.0, taps: int = 7, sigma: float = 1.5) -> None:
        super().__init__()
        self.max_scales = max_scales
        self.gradient = gradient
        self.window = gaussian_window(taps, sigma)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        terms: list[Tensor] = []
        while len(terms) < self.max_scales and min(a.shape[-2:]) >= len(self.window):
            terms.append(self._at_one_scale(a, b))
            a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
        if not terms:
            raise ValueError(f"images of {tuple(a.shape[-2:])} are too small for the structural loss")
        return torch.stack(terms).mean(dim=0)

    def _at_one_scale(self, a: Tensor, b: Tensor) -> Tensor:
        luminance, structure = ssim_maps(a, b, self.window)
        dissimilarity = (1 - luminance * structure).mean(dim=(1, 2, 3)) / 2
        return dissimilarity + self.gradient * gradient_distance(a, b)


def gradient_distance(a: Tensor, b: Tensor, eps: float = 1e-3) -> Tensor:
    """Mean Charbonnier distance of horizontal and vertical first differences, `[N]`.

    Smooth at 0, so that its gradient is finite (and zero) where the images agree.
    """
    d = a - b
    dx, dy = d[..., :, 1:] - d[..., :, :-1], d[..., 1:, :] - d[..., :-1, :]
    x, y = (((g * g + eps * eps).sqrt() - eps).mean(dim=(1, 2, 3)) for g in (dx, dy))
    return (x + y) / 2


class LPIPSLoss(PerceptualLoss):
    """LPIPS with the AlexNet backbone (Zhang et al. 2018), float32, frozen."""

    name = "lpips"

    def __init__(self) -> None:
        super().__init__()
        import_torchvision()
        import lpips

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torchvision's `pretrained=` deprecation
            self.net = lpips.LPIPS(net="alex", verbose=False).eval().requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        distance: Tensor = self.net(a, b)
        return distance.flatten()


class Lite0Loss(PerceptualLoss):
    """The distance of `nets.efficientnet_lite` on EfficientNet-Lite0, brought to the size of LPIPS' numbers.

    Raises `ModelError` when the backbone is not in the model store.
    """

    name = "lite0"

    def __init__(self) -> None:
        super().__init__()
        store.require("perceptual")
        net = load_efficientnet_lite(store.path_of("perceptual"))
        # Depthwise convolutions are a fifth faster with the channels last. (bfloat16 is not, and loses the gradient.)
        self.distance = PerceptualDistance(net.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.compare(a, self.describe(b))

    def describe(self, b: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return self.distance.features(b)

    def compare(self, a: Tensor, described: list[Tensor]) -> Tensor:
        return LITE0_SCALE * self.distance.between(self.distance.features(a), described)


def lpips_missing(allow_pull: bool = False) -> str | None:
    """Why LPIPS cannot be used here without a download, or None when it can."""
    try:
        import_torchvision()
        import lpips  # noqa: F401
    except (ImportError, RuntimeError, OSError) as e:  # torchvision's compiled part raises the latter two
        return f"the lpips package does not load ({str(e).splitlines()[0]})"
    if not allow_pull and not (Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET_FILE).is_file():
        return f"its AlexNet backbone {ALEXNET_FILE} is not in the torch hub cache"
    return None


def make_perceptual(kind: str = "auto", allow_pull: bool = False) -> PerceptualLoss:
    """`kind`: "lpips", "lite0", "structural", or "auto": the first of them that needs no download.

    Raises ModelError when one is demanded and cannot be had, UsageError for an unknown kind.
    """
    if kind not in ("auto", "lpips", "lite0", "structural"):
        raise UsageError(f"unknown loss `{kind}`", "choose auto, lpips, lite0 or structural")
    if kind == "structural":
        return StructuralLoss()
    if kind == "lite0":
        if allow_pull and not store.is_present("perceptual"):
            store.pull("perceptual")
        return Lite0Loss()
    reason = lpips_missing(allow_pull)
    if reason is None:
        try:
            return LPIPSLoss()
        except (OSError, RuntimeError) as e:  # no network, or a download with the wrong digest
            reason = f"its backbone cannot be downloaded ({e})"
    if kind == "lpips":
        hint = "allow the download with --pull, or use --loss structural"
        raise ModelError(f"LPIPS is not available: {reason}", hint)
    return Lite0Loss() if store.is_present("perceptual") else StructuralLoss()
