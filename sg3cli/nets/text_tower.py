"""A small model that puts texts and faces into one space: two towers, trained on captions of labelled pictures.

The image tower is linear: feature maps of a frozen EfficientNet-Lite0, averaged over a 4x4 grid, projected. The text
tower reads word pieces with two layers of attention. Both give vectors of length 1; their scalar product is large where
a text fits. The backbone is not part of it: a model's encoder holds one, else it is pulled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sg3cli.nets.efficientnet_lite import STAGES, EfficientNetLite
from sg3cli.nets.face_reader import GRID, at_size
from sg3cli.nets.word_pieces import Piece, WordPieces

SEEN_STAGES = (1, 2, 3, 4, 5)  # of the backbone; an encoder's goes no further
PLACED = SEEN_STAGES[1:]  # whose maps are averaged over a grid; of all, how strong each channel is
DIMENSION = sum(STAGES[k][3] for k in SEEN_STAGES) + GRID * GRID * sum(STAGES[k][3] for k in PLACED)
PADDING = -1


@dataclass(frozen=True)
class TextConfig:
    """Shapes, the vocabulary, and what words are about.

    `about {label: sets of words}`: a text that has all words of a set speaks of the label; `axes {label: (text,
    opposite)}`: what an edit is read by; `same {label: labels}` that are not held while this one is asked for.
    """

    words: tuple[str, ...]
    decades: tuple[int, ...]
    numbers: tuple[int, int]
    about: Mapping[str, tuple[tuple[str, ...], ...]]
    axes: Mapping[str, tuple[str, str]]
    same: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    misread: tuple[str, ...] = ()  # phrases that were taught and are taken for their opposite
    width: int = 64  # of the common space
    inner: int = 64  # of the text tower
    layers: int = 2
    heads: int = 4
    longest: int = 40  # pieces of a text; what follows is not read

    def to_dict(self) -> dict[str, Any]:
        """For a file's header."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextConfig:
        """Inverse of `to_dict`, also after JSON. Raises `TypeError` for what is none."""
        changed: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        for key in ("axes", "same"):
            changed[key] = {name: tuple(said) for name, said in values[key].items()}
        changed["about"] = {name: tuple(tuple(said) for said in sets) for name, sets in values["about"].items()}
        return cls(**changed)


class ImageTower(nn.Module):
    """Descriptions `[N,DIMENSION]` of pictures to rows `[N,width]` of length 1."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(DIMENSION))
        self.register_buffer("scale", torch.ones(DIMENSION))
        self.project = nn.Linear(DIMENSION, width)

    def forward(self, described: Tensor) -> Tensor:
        """See the class."""
        rows: Tensor = F.normalize(self.project((described - self.mean) * self.scale), dim=1)
        return rows


class TextTower(nn.Module):
    """Texts to rows `[n,width]` of length 1."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.pieces = WordPieces(config.words, config.decades, config.numbers)
        self.longest = config.longest
        self.embedding = nn.Embedding(len(self.pieces) + 1, config.inner)  # the last: where a text begins
        self.places = nn.Parameter(0.02 * torch.randn(config.longest + 1, config.inner))
        layer = nn.TransformerEncoderLayer(
            config.inner, config.heads, 2 * config.inner, 0.1, F.gelu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.out = nn.Linear(config.inner, config.width)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """See the class."""
        rows = [self.pieces.pieces(text)[: self.longest] for text in texts]
        low, high, share = self._padded(rows)
        start, nothing = len(self.pieces), low == PADDING
        first, second = self.embedding(low.clamp(min=0)), self.embedding(high.clamp(min=0))
        words = first + share[:, :, None] * (second - first)
        begin = self.embedding.weight[start].expand(len(rows), 1, -1)
        x = torch.cat([begin, words], 1) + self.places[: words.shape[1] + 1]
        hidden = F.pad(nothing, (1, 0), value=False)
        y = self.layers(x, src_key_padding_mask=hidden)[:, 0]
        found: Tensor = F.normalize(self.out(y), dim=1)
        return found

    def _padded(self, rows: Sequence[Sequence[Piece]]) -> tuple[Tensor, Tensor, Tensor]:
        """`[n,L]` each: the two entries of every piece, `PADDING` after the last one, and the share."""
        length = max(1, *(len(row) for row in rows))
        where = self.places.device
        table = [
            [(p.low, p.high, p.share) for p in row] + [(PADDING, PADDING, 0.0)] * (length - len(row)) for row in rows
        ]
        values = torch.tensor(table, dtype=torch.float32, device=where)
        return values[..., 0].long(), values[..., 1].long(), values[..., 2]


class TextNet(nn.Module):
    """Both towers. `covariance [width,width]`: how the rows of pictures of people differ."""

    covariance: Tensor

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.image = ImageTower(config.width)
        self.text = TextTower(config)
        self.log_scale = nn.Parameter(torch.tensor(2.5))  # of scalar products, in the loss
        self.register_buffer("covariance", torch.eye(config.width) / config.width)

    @torch.no_grad()
    def axes(self) -> Tensor:
        """`[K,width]`: for each axis the difference of its two texts."""
        rows: Tensor = self.text([text for text, _ in self.config.axes.values()])
        rows = rows - self.text([text for _, text in self.config.axes.values()])
        return rows

    def spread(self, directions: Tensor) -> Tensor:
        """`[K]`: the standard deviation over people of what is read along directions `[K,width]`."""
        found: Tensor = ((directions @ self.covariance) * directions).sum(1).clamp(min=1e-12).sqrt()
        return found


def describe(net: EfficientNetLite, x: Tensor) -> Tensor:
    """x `[N,3,R,R]` in [-1,1] -> `[N,DIMENSION]`: means over a grid and root mean squares of the backbone's maps."""
    parts = []
    for stage, y in zip(SEEN_STAGES, net.features(at_size(x), SEEN_STAGES), strict=True):
        y = y.float()
        if stage in PLACED:
            parts.append(F.adaptive_avg_pool2d(y, GRID).flatten(1))
        parts.append((y.square().mean((2, 3)) + 1e-8).sqrt())
    return torch.cat(parts, 1)
