"""Defaults of the trainings, one frozen dataclass each; the command line and the Python API share them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrepareConfig:
    """Raw images and videos to square training images."""

    size: int = 256  # pixels of the squares that are written
    crop: str = "align"  # align: the FFHQ square | unaligned: the same size, upright, shifted | none: the middle
    shift: float = 0.05  # unaligned: standard deviation of the shift, in sides of the square
    every: float = 1.0  # seconds between the frames of a video that are looked at; 0: every frame
    min_side: int | None = None  # least side of a square in the source, in pixels; None: half of the size
    outside: float = 0.2  # largest share of a square that may lie beyond the image, where it is mirrored
    faces: str = "all"  # all | largest
    landmarks: str = "mesh"  # as for align
    seed: int = 0  # of the shifts


@dataclass(frozen=True)
class TrainEncoderConfig:
    """Training of a ReStyle encoder (`spec`: the published recipe, which samples 8 images a step)."""

    kind: str = "psp"  # psp | e4e
    steps: int = 500_000
    batch: int = 8
    lr: float = 1e-4
    passes: int = 3  # ReStyle steps of each image; each is back-propagated by itself and their gradients are summed
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
    augment: float = 0.5  # share of the images whose colours are changed, and of those that the encoder sees spoiled
    held_out: int = 64  # images at the end of the data for validation, a tenth of them at most
    snapshot_every: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class TrainDirectionsConfig:
    """Fitting of directions to labelled codes (InterFaceGAN)."""

    method: str = "auto"  # auto | svm | logistic | regression
    share: float = 0.02  # of the codes at each end of an attribute's scores
    samples: int = 10_000  # images that a classifier is shown
    truncation: float = 0.7
    unaligned: bool = False  # the first code, which moves the image, is the mean while a classifier looks
    batch: int = 8
    seed: int = 0


@dataclass(frozen=True)
class AdaptConfig:
    """Adaptation of a generator to a text or to pictures (StyleGAN-NADA)."""

    steps: int = 150
    batch: int = 2  # codes of a step
    lr: float = 1e-2  # suits people-128 and a hundred steps; 2e-3 is published, for generators with more channels
    keep: float = 0.0  # weight of the squared change of light and dark, coarsely seen
    truncation: float = 0.7  # of codes from the mapping
    seed: int = 0


@dataclass(frozen=True)
class TrainMapperConfig:
    """A latent mapper towards a text (StyleCLIP)."""

    steps: int = 100
    batch: int = 2  # codes of a step
    lr: float = 0.15  # suits people-128 and a hundred steps; 0.5 is published, for 50,000; weights count a hundredth
    l2: float = 0.3  # weight of the mean square of a step, in standard deviations of codes
    identity: float = 0.1  # weight of 1 - likeness
    levels: tuple[str, ...] = ("coarse", "medium", "fine")  # those that are trained; the others do not move
    truncation: float = 0.7  # of codes from the mapping
    seed: int = 0
