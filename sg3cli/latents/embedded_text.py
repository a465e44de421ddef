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
from sg3cli.latents.text_model import EMBEDDED
from sg3cli.latents.text_solve import Readings
from sg3cli.nets.checkpoint import load_text_file
from sg3cli.nets.efficientnet_lite import EfficientNetLite
from sg3cli.nets.text_tower import TextNet, describe
from sg3cli.nets.word_pieces import words_of
from sg3cli.weights.bundle import Bundle
from sg3cli.weights.encoder_backbone import load_backbone

LEAST_AGREEMENT = 0.1  # of a text with an axis that it names: below it the text says nothing of which way


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
        """The labels that a text speaks of. Raises `UsageError` where that is none, and says what the model knows."""
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

    def readings(self, text: np.ndarray, named: Sequence[str]) -> Readings:
        """What a text's direction `[D]` asks of an edit: itself by 1, as much of each label if it names several, and
        none of what it leaves open."""
        axes, names = self.net.axes().cpu(), list(self.net.config.axes)
        rows, wanted = [torch.from_numpy(text).float()], [1.0]
        if len(named) > 1:
            for label in named:
                along = axes[names.index(label)] if label in names else None
                if along is not None and abs(agreement := float(along @ rows[0] / along.norm())) > LEAST_AGREEMENT:
                    rows.append(along)
                    wanted.append(1.0 if agreement > 0 else -1.0)
        for k in self.held(named):
            rows.append(axes[k])
            wanted.append(0.0)
        table = torch.stack(rows)
        spread = self.net.spread(table.to(self.device)).cpu()
        return Readings((table / spread[:, None]).double().numpy(), np.array(wanted))
