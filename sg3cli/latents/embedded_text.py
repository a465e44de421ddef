"""The text model that comes with a generator: small, offline, and it says what it does not know.

It has seen captions of faces only (`training.text`). What a text speaks of is known by its words, so that an edit can
hold what the text leaves open (`text_solve`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sg3cli.errors import UsageError
from sg3cli.latents.text_directions import templates
from sg3cli.latents.text_model import EMBEDDED
from sg3cli.latents.text_solve import Readings
from sg3cli.nets.checkpoint import load_text_file
from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.text_tower import TextNet, describe
from sg3cli.nets.word_pieces import words_of
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.encoder_backbone import load_backbone

CLEAR = 0.08  # of the way from the middle of an axis to its end: what lies beyond says which way


class EmbeddedModel:
    """See `text_model.TextModel`."""

    name = EMBEDDED

    def __init__(self, net: TextNet, backbone: EfficientNetLite, device: torch.device) -> None:
        self.net = net.to(device).eval().requires_grad_(False)
        self.backbone = backbone.to(device).eval().requires_grad_(False)
        self.device = device
        self.width = net.config.width

    @classmethod
    def of(cls, bundle: Bundle, device: torch.device, allow_pull: bool = False) -> EmbeddedModel:
        """That of a model. Raises `ModelError` when it has none, or nothing that it can look with."""
        net, _ = load_text_file(bundle.text_path())
        return cls(net, load_backbone(bundle, allow_pull), device)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """See `TextModel`."""
        with torch.inference_mode():
            rows: np.ndarray = self.net.text(texts).float().cpu().numpy()
        return rows

    def images(self, images: Tensor) -> np.ndarray:
        """See `TextModel`."""
        with torch.inference_mode():
            rows: np.ndarray = self.embed(images).cpu().numpy()
        return rows

    def embed(self, images: Tensor) -> Tensor:
        """See `TextModel`."""
        rows: Tensor = self.net.image(describe(self.backbone, images.to(self.device)))
        return rows

    def unknown(self, text: str) -> list[str]:
        """Words that it never saw in a caption; numbers that are no age it saw."""
        return self.net.text.pieces.unknown(text)

    def check(self, text: str) -> list[str]:
        """The labels that a text speaks of. Raises `UsageError` where there is none, or what it says is misread."""
        wrong = [phrase for phrase in self.net.config.misread if f" {phrase} " in f" {' '.join(words_of(text))} "]
        if wrong:
            what = f"the text model is known to misread {wrong[0]!r}"
            raise UsageError(what, "say it without the negation, as 'young' for 'not old'")
        named = self.named(text)
        if named:
            return named
        unknown = ", ".join(self.unknown(text))
        what = f"it does not know {unknown}" if unknown else "it says nothing of how a face looks"
        known = ", ".join(label.replace("_", " ") for label in self.net.config.about)
        raise UsageError(f"{text!r} lies outside of what the text model knows: {what}", f"it knows of faces: {known}")

    def named(self, text: str) -> list[str]:
        """The labels that a text speaks of."""
        pieces, config = self.net.text.pieces, self.net.config
        words = words_of(text)
        said = {base for word in words if (base := pieces.base(word)) is not None}
        found = [label for label, keys in config.about.items() if any(said.issuperset(key) for key in keys)]
        if "age" in config.about and "age" not in found and any(w[0].isdigit() and pieces.piece(w) for w in words):
            found.append("age")
        return found

    def held(self, named: Sequence[str]) -> list[int]:
        """Numbers of the axes that a text which speaks of `named` leaves open."""
        free = {*named, *(other for label in named for other in self.net.config.same.get(label, ()))}
        return [k for k, label in enumerate(self.net.config.axes) if label not in free]

    def towards(self, text: str, label: str) -> float:
        """Where a text lies between the two of a label's axis: 1 at the first, -1 at the second, 0 between them."""
        pair = self.net.config.axes[label]
        row = self.texts([template.format(text) for template in templates()]).mean(0)
        first, second = (self.texts([template.format(end) for template in templates()]).mean(0) for end in pair)
        along = first - second
        return float((2 * row - first - second) @ along / (along @ along))

    def unclear(self, text: str) -> list[str]:
        """Of the labels that a text speaks of, those of which it is not clear which way."""
        axes = self.net.config.axes
        return [label for label in self.named(text) if label in axes and abs(self.towards(text, label)) <= CLEAR]

    def readings(self, text: str, direction: np.ndarray, named: Sequence[str]) -> Readings:
        """What a text asks of an edit: each label that it names by 1, whichever way it says, and nothing of what it
        leaves open. Its own `direction [D]` counts where it names what has no axis, or no clear end of one."""
        axes, names = self.net.axes().cpu(), list(self.net.config.axes)
        rows: list[Tensor] = []
        wanted: list[float] = []
        for label in named:
            place = self.towards(text, label) if label in names else 0.0
            if abs(place) > CLEAR:
                rows.append(axes[names.index(label)] * (1 if place > 0 else -1))
                wanted.append(1.0)
        if len(rows) < len(named):
            rows.append(torch.from_numpy(direction).float())
            wanted.append(1.0)
        for k in self.held(named):
            rows.append(axes[k])
            wanted.append(0.0)
        table = torch.stack(rows)
        spread = self.net.spread(table.to(self.device)).cpu()
        return Readings((table / spread[:, None]).double().numpy(), np.array(wanted))
