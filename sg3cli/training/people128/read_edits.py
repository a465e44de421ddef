"""Directions for faces of which no edited picture is known, fitted to what a reader sees in the drawing.

    r_0 = read(G(ws))     r_1 = read(G(ws + s D_k))      ws: codes of photographs and renders, s: strength, G: fixed
    |(r_1 - r_0 - s unit_k) / spread|^2     for attribute k; for all others the change that is asked for is none
    + what the edit does to who it is, to colours, to one half of the face alone, beyond the face, and to the parts of
      the face that it is not about
    + size |a_k|^2      D_k = a_k . (what codes of people differ in, each component in its standard deviation)
    - D(G(ws + s D_k))      a discriminator between drawings that are edited and such that are not

The difference of two readings is asked for, not a value, so that a reader's opinion of a soft drawing cancels. Without
the term for colours "older" also becomes darker and redder, which it is on the average of portraits; and what an edit
does to hue, or how deep it makes a shadow, the reader does not see, as little as who looks at the footage
(`compositing.hue`, `.shade`). The drawings are
shifted before they are read, so that what is learned is a face and not a pattern that the reader takes for one; for
the same reason they have to pass for drawings of somebody as he is.

A direction that may go anywhere goes where no face is: it was as large, measured against how codes differ, as a
vector drawn at random, and painted a patch on the jaw for every few years. In the span of the codes, with a price on
its size there, the same years are folds beside the nose and bags under the eyes.

Directions alone learn, the generator does not: a step that taught both cost half a point of the reconstruction's
perceptual distance within a hundred steps, because a generator can answer by becoming deaf to a direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sg3cli.compositing import face_parts
from sg3cli.compositing.hue import REC601
from sg3cli.compositing.shade import as_shown
from sg3cli.nets.efficientnet_lite import FEATURE_STAGES, feature_channels
from sg3cli.nets.face_reader import READ_STAGES, FaceReader, at_size, pooled
from sg3cli.nets.generator import Generator
from sg3cli.training.people128.autoencoder import face_weight
from sg3cli.training.people128.projected_discriminator import ProjectedDiscriminator
from sg3cli.weights.kept import kept_by_labels


class Readable(NamedTuple):
    """`label` of the reader, its change at strength 1, the values between which it is asked for, and how often.

    `held`: how much the lightness of areas counts against their hue where it should stay. Years are lines and folds.
    `keeps`: parts of the face that stay as they are. Somebody with thin brows was given thick ones to be younger, one
    thicker than the other, and a nose that ended earlier.
    """

    label: str
    unit: float
    low: float
    high: float
    share: float = 1.0
    held: float = 0.15
    keeps: tuple[str, ...] = ()


READABLE = {
    "age": Readable("age", 20.0, 20.0, 85.0, 2.5, held=1.0, keeps=("brows", "nose", "eyes", "teeth")),
    "smile": Readable("smile", 0.5, -0.3, 1.2, 1.5, held=0.4, keeps=("brows", "nose")),
    "gender": Readable("male", 0.5, -0.2, 1.2, held=0.5),
}
PARTS = {  # of a face, by iBUG landmarks
    **{name: tuple(chain.from_iterable(pieces)) for name, pieces in face_parts.PARTS.items()},
    "teeth": tuple(range(60, 68)),
}
LEAK = {"brow_raise": 0.3, "makeup": 0.3}  # what is hardly read counts little where it should stay
BLOCK = 8  # pixels of an area: a brow is one or two
NEAR = 0.025  # of the side: how far a part of the face reaches around its landmarks
BALANCE_EVERY = 20  # steps
RIDGE = 20.0  # people, of whom nothing is known, beside those who differ
AT_ONCE = 24
STAGES = tuple(sorted({*READ_STAGES, *FEATURE_STAGES}))

Directions = Mapping[str, Tensor]
Learn = Callable[[], float]


@dataclass(frozen=True)
class ReadConfig:
    """One fit. Weights are those of the terms; strengths are drawn between `least` and `most`, either way."""

    steps: int = 600
    edits_per_step: int = 6
    lr: float = 0.2  # standard deviations of a component
    components: int = 1000
    size: float = 2e-4
    warmup: int = 20
    decay_from: float = 0.6
    least: float = 0.5
    most: float = 2.5
    shift: int = 4  # pixels
    noise: float = 0.02  # in [-1,1] colours
    identity: float = 0.3
    colour: float = 3.0
    beyond: float = 9.0
    symmetry: float = 7.0
    kept: float = 8.0
    realism: float = 0.6  # length of the discriminator's gradient at a drawing, over that of what is read
    seed: int = 0


def inner_face(size: int) -> Tensor:
    """[1,1,R,R] in 0..1: an ellipse from the hair line to the chin of an aligned face, with a soft edge.

    Hair is beyond it: most of it lies where an edit of footage may not change anything, and a rim of grey would show.
    """
    axis = (torch.arange(size) + 0.5) / size
    x, y = (axis[None, :] - 0.5) / 0.3, (axis[:, None] - 0.58) / 0.36
    return torch.sigmoid(8 * (1 - (x * x + y * y).sqrt()))[None, None]


class Faces(NamedTuple):
    """Codes ws [N,num_ws,w_dim] of pictures, and where the landmarks [N,68,2] of these lie, in pixels of a drawing."""

    ws: Tensor
    landmarks: Tensor


class ReadEdits:
    """`losses` draws edits of some codes and judges them."""

    def __init__(self, reader: FaceReader, G: Generator, config: ReadConfig) -> None:
        self.reader, self.G, self.config = reader, G.eval().requires_grad_(False), config
        self.face, self.beyond = face_weight(G.img_resolution), 1 - inner_face(G.img_resolution)
        self.columns = {name: reader.column(readable.label) for name, readable in READABLE.items()}
        self.leak = torch.ones(len(reader.names))
        for name, share in LEAK.items():
            self.leak[reader.column(name)] = share
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.critic = ProjectedDiscriminator(feature_channels(), torch.device("cpu"), share=config.realism)

    def losses(self, directions: Directions, faces: Faces, rng: torch.Generator) -> tuple[dict[str, Tensor], Learn]:
        """Terms for one edit of each face; gradients reach the directions alone.

        And the step of the discriminator that is due afterwards.
        """
        c, ws = self.config, faces.ws
        with torch.no_grad():
            y = self.G.synthesis(ws)
        view = _View.draw(y, rng, c.shift, c.noise)
        with torch.no_grad():
            before, who, plain = self._read(view(y))
        names, strengths = self.wishes(before, list(directions), rng)
        change = torch.stack([s * directions[name] for name, s in zip(names, strengths.tolist(), strict=True)])
        edited = self.G.synthesis(ws + change)
        after, whom, drawn = self._read(view(as_in_footage(y, edited, names, faces.landmarks)))
        wanted = self._wanted(names, strengths)
        error, asked = ((after - before - wanted) / self.reader.spread).square(), wanted != 0
        terms = {
            "asked": (error * asked).sum(1).mean(),
            "leak": (error * ~asked * self.leak).sum(1).mean(),
            "identity": c.identity * (1 - (who * whom).sum(1)).mean(),
            "colour": c.colour * self._colour(edited - y, torch.tensor([READABLE[name].held for name in names])),
            "symmetry": c.symmetry * _asymmetry(edited - y),
            "kept": c.kept * _kept(edited - y, faces.landmarks, [READABLE[name].keeps for name in names]),
            "beyond": c.beyond * ((edited - y).abs() * self.beyond).mean(),
        }
        terms["total"] = torch.stack(list(terms.values())).sum()
        where = self.face.expand(len(ws), -1, -1, -1)
        if self.critic.ready:
            terms["realism"] = self.critic.realism(drawn, where)
            if edited.requires_grad and (self.critic.steps % BALANCE_EVERY == 0 or not self.critic.weight):
                self.critic.balance(terms["realism"], terms["asked"] + terms["leak"], edited)
            terms["total"] = terms["total"] - self.critic.weight * terms["realism"]
        return terms, lambda: self.critic.learn(drawn, plain, where)

    def wishes(self, read: Tensor, names: list[str], rng: torch.Generator) -> tuple[list[str], Tensor]:
        """An attribute and a strength for each row of readings [N,L]; what is reached is a face that can be."""
        c, shares = self.config, torch.tensor([READABLE[name].share for name in names])
        chosen = torch.multinomial(shares, len(read), replacement=True, generator=rng)
        strengths = torch.empty(len(read))
        for n, k in enumerate(chosen.tolist()):
            readable, value = READABLE[names[k]], float(read[n, self.columns[names[k]]])
            size, sign = torch.rand(2, generator=rng).tolist()
            strength = (c.least + (c.most - c.least) * size) * (1 if sign < 0.5 else -1)
            reached = min(max(value + strength * readable.unit, readable.low), readable.high)
            strength = (reached - value) / readable.unit
            if abs(strength) < c.least:  # there already: the other way
                strength = 1.0 if value < (readable.low + readable.high) / 2 else -1.0
            strengths[n] = strength
        return [names[k] for k in chosen.tolist()], strengths

    def _wanted(self, names: list[str], strengths: Tensor) -> Tensor:
        """[N,L]: the change of the readings that is asked for."""
        wanted = torch.zeros(len(names), len(self.reader.names))
        for row, name, strength in zip(wanted, names, strengths, strict=True):
            row[self.columns[name]] = strength * READABLE[name].unit
        return wanted

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Readings [N,L], unit vectors [N,E] that say who it is, and the maps that a discriminator is shown."""
        maps = dict(zip(STAGES, self.reader.net.features(at_size(x), STAGES), strict=True))
        features = self.reader.standardised(pooled([maps[k] for k in READ_STAGES]))
        return self.reader.read(features), self.reader.embed(features), [maps[k] for k in FEATURE_STAGES]

    def _colour(self, change: Tensor, held: Tensor) -> Tensor:
        """[]: mean change [N,3,R,R] of areas of the face, lightness weighted by held [N], and its pixels' hue."""
        areas, held = F.avg_pool2d(change, BLOCK), held[:, None, None, None]
        in_areas = _hue(areas) + held * _lightness(areas).abs()
        spots = _rms(held * _hue(change), self.face)  # lines and folds have no colour of their own
        return (in_areas * F.avg_pool2d(self.face, BLOCK)).mean() + 0.5 * spots


def as_in_footage(plain: Tensor, edited: Tensor, names: Sequence[str], landmarks: Tensor) -> Tensor:
    """Drawings `[N,3,R,R]` edited by one of `READABLE` each, as footage shows them: in the hue of `plain`, some in its
    shade, and with parts of the face, by its landmarks `[N,68,2]` (pixels), that stay (`weights.kept`)."""
    hue, kept = as_shown(plain, edited, ("hue",)), [kept_by_labels([READABLE[name].label]) for name in names]
    shaded = torch.tensor(["shade" in aspects for aspects in kept])
    shown = torch.where(shaded[:, None, None, None], as_shown(plain, hue, ("shade",)), hue)
    parts = [tuple(aspects & PARTS.keys()) for aspects in kept]
    return torch.lerp(shown, plain, near_parts(landmarks, parts, plain.shape[-1]))


def _lightness(colours: Tensor) -> Tensor:
    """[N,3,H,W] -> [N,1,H,W]."""
    return (colours * colours.new_tensor(REC601)[:, None, None]).sum(1, keepdim=True)


def _hue(colours: Tensor) -> Tensor:
    """[N,3,H,W] -> [N,1,H,W]: how far a difference of colours is from grey."""
    return (colours - _lightness(colours)).abs().sum(1, keepdim=True)


def _asymmetry(change: Tensor) -> Tensor:
    """[]: difference of a change [N,3,R,R] from its mirror image, in small areas."""
    areas = F.avg_pool2d(change, BLOCK // 2)
    return 0.5 * _rms(areas - areas.flip(3), areas.new_ones(1))


def _kept(change: Tensor, landmarks: Tensor, keeps: Sequence[tuple[str, ...]]) -> Tensor:
    """[]: change [N,3,R,R] near the landmarks [N,68,2] (pixels) of the parts that each face keeps."""
    near = near_parts(landmarks, keeps, change.shape[-1])
    return _rms(F.avg_pool2d(change, 2), F.avg_pool2d(near, 2))


def near_parts(landmarks: Tensor, parts: Sequence[tuple[str, ...]], side: int) -> Tensor:
    """[N,1,R,R] in 0..1: near the landmarks [N,68,2] (pixels of R = `side`) of some parts of each face."""
    shown = torch.tensor([[any(k in PARTS[part] for part in of) for k in range(68)] for of in parts])
    axis = (torch.arange(side) + 0.5) / (NEAR * side)
    dx, dy = (axis - landmarks[..., k, None] / (NEAR * side) for k in (0, 1))  # [N,68,R]
    near = torch.exp(-0.5 * dx.square())[:, :, None] * torch.exp(-0.5 * dy.square())[..., None]
    return (near * shown[..., None, None]).amax(1, keepdim=True)


def _rms(values: Tensor, weight: Tensor) -> Tensor:
    """[]: root of the weighted mean square of values [N,C,H,W], meant over N: a small spot counts more than a veil."""
    return ((values.square() * weight).mean((1, 2, 3)) + 1e-12).sqrt().mean()


class _View(NamedTuple):
    """How drawings are shown to the reader: shifted, with a little noise."""

    shift: int
    x: int
    y: int
    noise: Tensor

    @classmethod
    def draw(cls, like: Tensor, rng: torch.Generator, shift: int, noise: float) -> _View:
        x, y = torch.randint(-shift, shift + 1, (2,), generator=rng).tolist()
        return cls(shift, x, y, noise * torch.randn(like.shape, generator=rng))

    def __call__(self, images: Tensor) -> Tensor:
        padded, side = F.pad(images, (self.shift,) * 4, mode="replicate"), images.shape[-1]
        top, left = self.shift + self.y, self.shift + self.x
        return padded[:, :, top : top + side, left : left + side] + self.noise


class Span:
    """What codes ws [N,num_ws,w_dim] differ in: principal components, each scaled to its standard deviation."""

    def __init__(self, ws: Tensor, components: int) -> None:
        self.shape = ws.shape[1:]
        flat = ws.flatten(1)
        _, singular, vectors = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
        keep = min(components, int((singular > 1e-5 * singular[0]).sum()))
        self.deviations = singular[:keep] / len(ws) ** 0.5
        self.vectors = vectors[:keep]
        self.of_codes = (flat - flat.mean(0)) @ self.vectors.T / self.deviations

    def place(self, a: Tensor) -> Tensor:
        """Coordinates [r] -> a direction [num_ws,w_dim]. The first code, which places the picture, is left alone."""
        vector = ((a * self.deviations) @ self.vectors).view(self.shape)
        return torch.cat([torch.zeros_like(vector[:1]), vector[1:]])

    def of_people(self, labels: Tensor) -> Tensor:
        """[L,r]: by how much the codes of people differ for each unit of labels [N,L], the other labels being equal."""
        spread = labels.std(0) + 1e-6
        z = (labels - labels.mean(0)) / spread
        ridge = RIDGE * torch.eye(z.shape[1])
        return torch.linalg.solve(z.T @ z + ridge, z.T @ self.of_codes) / spread[:, None]


@torch.no_grad()
def people_start(edits: ReadEdits, span: Span, ws: Tensor) -> dict[str, Tensor]:
    """Coordinates [r] of each readable attribute to begin with: how people differ in it by what is read of them."""
    read = [edits.reader(edits.G.synthesis(part).clamp(-1, 1)) for part in ws.split(AT_ONCE)]
    slopes = span.of_people(torch.cat(read))
    return {name: slopes[edits.columns[name]] * readable.unit for name, readable in READABLE.items()}


def fit_directions(edits: ReadEdits, faces: Faces, say: Callable[[str], None] = lambda line: None) -> dict[str, Tensor]:
    """Directions [num_ws,w_dim] by name, fitted on the codes of faces: in the span of the codes, from how people
    differ."""
    c, span = edits.config, Span(faces.ws, edits.config.components)
    found = {name: a.clone().requires_grad_() for name, a in people_start(edits, span, faces.ws).items()}

    def directions() -> dict[str, Tensor]:
        return {name: span.place(a) for name, a in found.items()}

    optimiser = torch.optim.Adam([*found.values()], betas=(0.9, 0.99))
    sums: dict[str, float] = {}
    for step in range(c.steps):
        rng = torch.Generator().manual_seed(c.seed * 1_000_003 + step)
        chosen = torch.randperm(len(faces.ws), generator=rng)[: c.edits_per_step]
        decay = 1 - 0.95 * max((step / c.steps - c.decay_from) / (1 - c.decay_from), 0.0)
        optimiser.param_groups[0]["lr"] = c.lr * decay * min(1.0, (step + 1) / c.warmup)
        losses, learn = edits.losses(directions(), Faces(*(of[chosen] for of in faces)), rng)
        losses["size"] = c.size * torch.stack([a.square().sum() for a in found.values()]).sum()
        optimiser.zero_grad(set_to_none=True)
        (losses["total"] + losses["size"]).backward()
        optimiser.step()
        learn()
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if step % 50 == 49:
            say(f"step {step + 1}: " + ", ".join(f"{name} {value / 50:.3f}" for name, value in sums.items()))
            sums = {}
    return {name: vector.detach() for name, vector in directions().items()}
