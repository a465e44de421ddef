"""Edits of photographs, of which no truth is known, supervised by what a reader sees in the drawing.

    r_0 = read(G(ws))     r_1 = read(G(ws + delta . D))
    |(r_1 - r_0 - delta) / spread|^2     for the edited attribute it is met, for all others the change is none
    + what the edit does to the colours of large areas, and beyond the face

The difference of two readings is asked for, not a value, so that a reader's opinion of a soft drawing cancels. Without
the term for colours "older" also becomes darker and redder, which it is on the average of portraits. The drawings are
shifted before they are read, so that what is learned is a face and not a pattern that the reader takes for one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.nets.efficientnet_lite import FEATURE_STAGES
from sg3cli.nets.face_reader import READ_STAGES, FaceReader, pooled
from sg3cli.training.people128.autoencoder import face_weight
from sg3cli.training.people128.pair_data import ATTRIBUTES, attribute_index
from sg3cli.training.people128.pair_net import PairNet


class Readable(NamedTuple):
    """`label` of the reader, its change at strength 1, and the values between which it is asked for."""

    label: str
    unit: float
    low: float
    high: float


READABLE = {
    "age": Readable("age", 20.0, 20.0, 85.0),
    "smile": Readable("smile", 0.5, -0.3, 1.2),
    "mouth_open": Readable("mouth_open", 0.15, 0.0, 0.5),
    "eyes_closed": Readable("eyes_closed", 0.5, -0.1, 1.0),
    "yaw": Readable("yaw", 15.0, -35.0, 35.0),
    "pitch": Readable("pitch", 10.0, -20.0, 20.0),
}
SHARES = (3.0, 2.0, 1.5, 1.5, 1.0, 1.0)  # how often each is asked for
LEAK = {"brow_raise": 0.3, "makeup": 0.3}  # what is hardly read counts little where it should stay
STRENGTH = (0.5, 2.0)
LEAST = 0.3  # a wish that the limits shorten to less than this strength is turned round
SHIFT = 4  # pixels
NOISE = 0.02
COLOUR, LUMA = 4.0, 0.3  # weight of the colour term, and in it of lightness against hue
BEYOND = 3.0
BLOCK = 16  # pixels of a large area
REC601 = (0.299, 0.587, 0.114)
STAGES = tuple(sorted({*READ_STAGES, *FEATURE_STAGES}))


class ReadEdits:
    """`losses` draws an edit of every photograph of a step and judges it."""

    def __init__(self, reader: FaceReader, resolution: int, device: torch.device, bf16: bool = False) -> None:
        self.reader, self.device, self.bf16 = reader.to(device), device, bf16
        self.face = face_weight(resolution).to(device)
        self.columns = [reader.column(r.label) for r in READABLE.values()]
        leak = torch.ones(len(reader.names))
        for name, share in LEAK.items():
            leak[reader.column(name)] = share
        self.leak = leak.to(device)

    def losses(self, net: PairNet, ws: Tensor, y: Tensor, seed: int) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Terms for codes ws [N,num_ws,w_dim] and their drawings y [N,3,R,R], both without gradient, and the maps of
        `FEATURE_STAGES` of the edited drawings for a discriminator."""
        rng = torch.Generator().manual_seed(seed)
        view = _View.draw(y, rng)
        with torch.no_grad():
            before = self._read(view(y))[0]
        delta, wanted = self._wish(before, rng)
        edited = net.G.synthesis(net.edited(ws, delta.to(ws)))
        after, maps = self._read(view(edited))
        error = ((after - before - wanted) / self.reader.spread).square()
        asked = wanted != 0
        terms = {
            "read_asked": (error * asked).sum(1).mean(),
            "read_leak": (error * ~asked * self.leak).sum(1).mean(),
            "read_colour": COLOUR * self._colour(edited - y),
            "read_beyond": BEYOND * ((edited - y).abs() * (1 - self.face).clamp(min=0)).mean(),
        }
        return terms, maps

    def _wish(self, read: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Strengths [N,K] of one attribute each, and the change of the readings [N,L] that they ask for."""
        delta, wanted = read.new_zeros(len(read), len(ATTRIBUTES)), torch.zeros_like(read)
        chosen = torch.multinomial(torch.tensor(SHARES), len(read), replacement=True, generator=rng)
        low, high = STRENGTH
        for n, k in enumerate(chosen.tolist()):
            name, (_, unit, least, most) = list(READABLE.items())[k]
            size, sign = torch.rand(2, generator=rng).tolist()
            strength = (low + (high - low) * size) * (1 if sign < 0.5 else -1)
            value = float(read[n, self.columns[k]])
            strength = (min(max(value + strength * unit, least), most) - value) / unit
            if abs(strength) < LEAST:
                strength = 1.0 if value < (least + most) / 2 else -1.0
            delta[n, attribute_index()[name]] = strength
            wanted[n, self.columns[k]] = strength * unit
        return delta, wanted

    def _read(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Readings [N,L] and the maps of `FEATURE_STAGES`."""
        x = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            maps = self.reader.net.features(x, STAGES)
        found = dict(zip(STAGES, (m.float() for m in maps), strict=True))
        described = pooled([found[k] for k in READ_STAGES])
        return self.reader.read(self.reader.standardised(described)), [found[k] for k in FEATURE_STAGES]

    def _colour(self, change: Tensor) -> Tensor:
        """[]: mean change [N,3,R,R] of large areas of the face."""
        areas = F.avg_pool2d(change, BLOCK)
        luma = (areas * areas.new_tensor(REC601)[:, None, None]).sum(1, keepdim=True)
        size = (areas - luma).abs().sum(1, keepdim=True) + LUMA * luma.abs()
        return (size * F.avg_pool2d(self.face, BLOCK)).mean()


class _View(NamedTuple):
    """How a drawing is shown to the reader: shifted, with a little noise."""

    x: int
    y: int
    noise: Tensor

    @classmethod
    def draw(cls, like: Tensor, rng: torch.Generator) -> _View:
        x, y = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=rng).tolist()
        return cls(x, y, NOISE * torch.randn(like.shape, generator=rng).to(like))

    def __call__(self, images: Tensor) -> Tensor:
        padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
        side = images.shape[-1]
        top, left = SHIFT + self.y, SHIFT + self.x
        return padded[:, :, top : top + side, left : left + side] + self.noise
