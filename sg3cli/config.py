"""Defaults of every stage, one frozen dataclass each; the command line and the Python API share them.

Times are in seconds, never in frames, so that a setting means the same at 12.5 and at 60 frames a second.
"""

from __future__ import annotations

from dataclasses import dataclass

SIDES = ("left", "right", "top", "bottom")
WIDEST = 1.0  # share of the face square by which a side may be expanded
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class InputConfig:
    """How the source is read."""

    rate: str | None = None  # frames a second of pictures, which have no times; None: as the project has it, else 25


@dataclass(frozen=True)
class AlignConfig:
    """Where the face is, and the square it is seen through (`spec`: FFHQ alignment)."""

    landmarks: str = "mesh"  # mesh | fan
    face: str = "largest"  # largest | left | right | all | N | x,y[@time] | x0,y0,x1,y1[@time] | picture; joined by +
    rule: str = "ffhq"  # ffhq: max(eyes, mouth) | eyes: the reference video code's rule
    crop: str = "hybrid"  # fixed | smooth | hybrid: how the window follows the face
    smooth_centre: float = 0.04  # Gaussian sigma of the quad's centre
    smooth_axes: float = 0.12  # Gaussian sigma of its angle and size
    window: float = 0.5  # Gaussian sigma of the `hybrid` window
    max_gap: float = 0.5  # longest stretch without a face that is interpolated
    on_no_face: str = "pass"  # pass | hold | fail: what becomes of frames without the face
    embedder: str | None = None  # ONNX face recognition network that tells people apart; None: what they look like


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
    labels: str = "on"  # on | off: what stands over the two sides of `compare`
    stitch: str = "paste"  # none | paste | tune
    smooth: str = "paper"  # paper | none | gauss:SECONDS
    feather: float = 0.08  # width of the mask's soft edge, as a share of the crop
    detail: float = 1.0  # share of the source's fine detail that is put back where the edit keeps the shape
    protect: str = "all"  # all | hair | occlusion | none: what of the face the source keeps
    mask: str | None = None  # the user's mask: video, picture or folder of pictures; white may change
    mask_mode: str = "multiply"  # multiply | replace: with the face's mask, or in its place
    match: float = 0.0  # share of the mean colour difference at the seam that is taken out
    blend: str = "alpha"  # alpha | gradient
    expand: str | None = None  # left=0.15,top=0.1: more field of view, in shares of the face square
    stitch_steps: int = 100  # most steps of `tune`
    stitch_threshold: float = 0.002  # squared error of the seam at which `tune` stops
    precision: str = "fp32"  # fp32 | bf16: half the time on a CPU with AVX-512-BF16, errors of about a level
    range: str | None = None  # what is edited: 0:10-0:20, 10s..20s, several with commas; None: everything
    batch: int = 2  # on a CPU more frames at once gain nothing and hold hundreds of megabytes; a GPU wants 8


@dataclass(frozen=True)
class EncodeConfig:
    """How the output video is written."""

    codec: str = "libx264"
    crf: float = 16.0
    preset: str = "medium"
    pix_fmt: str | None = None  # None: as the source where the codec can; 8 bits as yuv420p
    lossless: bool = False
    segment: float = 10.0  # seconds of film that are kept when a render is killed; 0: the film is one piece
    format: str | None = None  # container; None: by the output's suffix, Matroska for `-`


def parse_sides(text: str | None) -> tuple[float, float, float, float]:
    """`left=0.15,top=0.1` as shares (left, right, top, bottom); raises `ValueError` that says what is wrong."""
    shares = dict.fromkeys(SIDES, 0.0)
    for part in (text or "").split(",") if text else ():
        name, _, number = part.strip().partition("=")
        if name not in shares:
            raise ValueError(f"'{name}' is no side; sides are {', '.join(SIDES)}")
        try:
            share = float(number)
        except ValueError:
            raise ValueError(f"{name} is '{number}', it must be a number") from None
        if not 0 <= share <= WIDEST:
            raise ValueError(f"{name} is {number}, it must be from 0 to {WIDEST:g} of the face square")
        shares[name] = share
    return shares["left"], shares["right"], shares["top"], shares["bottom"]


@dataclass(frozen=True)
class PrepareConfig:
    """Raw pictures and films to square training pictures."""

    size: int = 256  # pixels of the squares that are written
    crop: str = "align"  # align: the FFHQ square | unaligned: the same size, upright, shifted | none: the middle
    shift: float = 0.05  # unaligned: standard deviation of the shift, in sides of the square
    every: float = 1.0  # seconds between the frames of a film that are looked at; 0: every frame
    min_side: int | None = None  # least side of a square in the source, in pixels; None: half of the size
    outside: float = 0.2  # largest share of a square that may lie beyond the picture, where it is mirrored
    faces: str = "all"  # all | largest
    landmarks: str = "mesh"  # as for align
    seed: int = 0  # of the shifts


@dataclass(frozen=True)
class TrainEncoderConfig:
    """Training of a ReStyle encoder (`spec`: the published recipe, which samples 8 pictures a step)."""

    kind: str = "psp"  # psp | e4e
    steps: int = 500_000
    batch: int = 8
    lr: float = 1e-4
    passes: int = 3  # ReStyle steps of each picture; each is back-propagated by itself and their gradients are summed
    l2: float = 1.0
    perceptual: float = 0.8
    loss: str = "auto"  # auto | lpips | structural
    identity: float = 0.1  # used with an identity network only
    w_norm: float = 0.0  # distance of the codes from their mean
    adversarial: float = 0.1  # e4e: what the discriminator of codes says
    delta: float = 2e-4  # e4e: length of the offsets from the first code
    critic_lr: float = 2e-5
    truncation: float = 0.7  # e4e: psi of the real codes that the discriminator sees
    stage_start: int | None = None  # e4e: step at which the second code gets an offset; None: steps / 25
    stage_every: int | None = None  # e4e: steps until the next code gets one; None: steps / 250
    augment: float = 0.5  # share of the pictures whose colours are changed, and of those that the encoder sees spoiled
    held_out: int = 64  # pictures at the end of the data for validation, a tenth of them at most
    snapshot_every: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class TrainDirectionsConfig:
    """Fitting of directions to labelled codes (InterFaceGAN)."""

    method: str = "auto"  # auto | svm | logistic | regression
    share: float = 0.02  # of the codes at each end of an attribute's scores
    samples: int = 10_000  # pictures that a classifier is shown
    truncation: float = 0.7
    unaligned: bool = False  # the first code, which moves the picture, is the mean while a classifier looks
    batch: int = 8
    seed: int = 0
