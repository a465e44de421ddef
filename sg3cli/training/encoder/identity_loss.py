"""Whether two images show one person, by a face recognition network of the user's own, with gradients.

The network is TorchScript, of the ArcFace family (Deng et al. 2019, arXiv:1801.07698): aligned faces [N, 3, 112, 112]
in [-1, 1] to vectors [N, K]. A TorchScript file is a program that is run, so none is loaded unless the user names it.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.errors import ModelError

SIDE = 112
FACE = (slice(35, 223), slice(32, 220))  # rows and columns of the face in an FFHQ image of 256 px


def load_torchscript(path: Path, use: str) -> torch.jit.ScriptModule:
    """The program in `path`, in eval mode, frozen. Raises ModelError, which says what it cannot be used for."""
    if not path.is_file():
        raise ModelError(f"there is no file {path}", f"{use} wants a TorchScript network")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch wants new code to use torch.export
            net: torch.jit.ScriptModule = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path} is no TorchScript network: {reason}", "write it with torch.jit.save") from error
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    net.eval()
    return net


class IdentityLoss(nn.Module):
    """1 - cosine of the two images' vectors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.net = load_torchscript(path, "--identity")
        try:
            length = self.net(torch.zeros(2, 3, SIDE, SIDE)).shape
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            raise ModelError(f"{path} does not take faces of 112 px: {reason}", "see --help of --identity") from error
        if len(length) != 2 or length[0] != 2:
            raise ModelError(f"{path} gives {tuple(length)} for two faces", "it has to give one vector for each")

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        """Aligned y, x [N,3,S,S] -> []; `x` is the target."""
        with torch.no_grad():
            wanted = self._vectors(x)
        return (1 - (self._vectors(y) * wanted).sum(1)).mean()

    def _vectors(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, size=(256, 256), mode="bilinear", align_corners=False)
        vectors: Tensor = self.net(F.adaptive_avg_pool2d(x[..., FACE[0], FACE[1]], SIDE))
        return F.normalize(vectors, dim=1)
