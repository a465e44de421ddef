"""A text model by its name: the one that comes with a generator, or CLIP."""

from __future__ import annotations

import torch

from sg3cli.errors import UsageError
from sg3cli.latents import text_model
from sg3cli.latents.embedded_text import EmbeddedModel
from sg3cli.latents.text_model import AUTO, DEFAULT, EMBEDDED, TextModel
from sg3cli.weights.bundle import Bundle


def load_text_model(
    name: str, device: torch.device, allow_pull: bool = False, bundle: Bundle | None = None
) -> TextModel:
    """The text model of this name, `embedded` and `auto` for a generator's `bundle`.

    Raises `UsageError` for an unknown one, `ModelError` when it is not here.
    """
    if name == AUTO:
        name = EMBEDDED if bundle is not None and bundle.has_text else DEFAULT
    if name == EMBEDDED and bundle is not None:
        return EmbeddedModel.of(bundle, device, allow_pull)
    if name not in text_model.MODELS:
        raise UsageError(f"unknown text model {name!r}", f"known: {', '.join((EMBEDDED, *text_model.MODELS))}")
    return text_model.MODELS[name](device, allow_pull)
