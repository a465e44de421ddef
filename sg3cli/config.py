"""Defaults of every stage, one frozen dataclass each; the command line and the Python API share them.

Times are in seconds, never in frames, so that a setting means the same at 12.5 and at 60 frames a second.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AlignConfig:
    """Where the face is, and the square it is seen through (`spec`: FFHQ alignment)."""

    landmarks: str = "mesh"  # mesh | fan
    face: str = "largest"  # largest | left | right | N (0-based, by first appearance)
    rule: str = "ffhq"  # ffhq: max(eyes, mouth) | eyes: the reference video code's rule
    crop: str = "hybrid"  # fixed | smooth | hybrid: how the window follows the face
    smooth_centre: float = 0.04  # Gaussian sigma of the quad's centre
    smooth_axes: float = 0.12  # Gaussian sigma of its angle and size
    window: float = 0.5  # Gaussian sigma of the `hybrid` window
    max_gap: float = 0.5  # longest stretch without a face that is interpolated


@dataclass(frozen=True)
class InvertConfig:
    """ReStyle inversion of the aligned crops."""

    model: str = "people-128"  # a name of `sg3 models list` or a folder
    steps: int = 3
    batch: int = 8


@dataclass(frozen=True)
class FinetuneConfig:
    """Pivotal tuning of the generator on the clip."""

    steps: int = 500
    lr: float = 3e-3  # 3e-4 for generators of 1024 px
    batch: int = 4
    l2: float = 1.0
    perceptual: float = 1.0
    loss: str = "auto"  # auto | lpips | structural
    patience: int = 100  # plateau stop: steps without improvement of the smoothed loss
    save_every: int = 25
    seed: int = 0


@dataclass(frozen=True)
class RenderConfig:
    """From codes to the output video."""

    view: str = "frame"  # frame | face | compare
    stitch: str = "paste"  # paste | none
    smooth: str = "paper"  # paper | none | gauss:SECONDS
    feather: float = 0.08  # width of the mask's soft edge, as a share of the crop
    detail: float = 1.0  # share of the source's fine detail that is put back where the edit keeps the shape
    range: str | None = None  # what is edited: 0:10-0:20, 10s..20s, several with commas; None: everything
    batch: int = 2  # on a CPU more frames at once gain nothing and hold hundreds of megabytes; a GPU wants 8


@dataclass(frozen=True)
class EncodeConfig:
    """How the output video is written."""

    codec: str = "libx264"
    crf: float = 16.0
    preset: str = "medium"
    pix_fmt: str = "yuv420p"
    segment: float = 10.0  # seconds of film that are kept when a render is killed; 0: the film is one piece
    format: str | None = None  # container; None: by the output's suffix, Matroska for `-`
