"""Global directions of StyleCLIP (Patashnik et al. 2021): from what a text says to the styles that answer to it.

A table says for each style in which direction of the text model's space the image goes when it is moved; a text says
in which direction it shall go. Styles whose direction agrees by less than `beta` are left alone, the others move by
their agreement, the most agreeing one by a whole deviation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sg3cli.errors import UsageError
from sg3cli.latents.text_model import TextModel

NEUTRAL = "a face"
BETA = 0.13
MEDIA = ("photo", "picture", "portrait", "close-up", "snapshot", "drawing", "painting", "rendering", "sculpture")
KINDS = ("", "good ", "bad ", "bright ", "dark ", "small ", "large ", "blurry ")
MORE = ("{}.", "this is {}.", "here you see {}.", "{} in the middle of the picture.", "{} before a plain wall.",
        "a film still of {}.", "a cropped photo of {}.")  # fmt: skip


def templates() -> list[str]:
    """79 sentences around `{}`; the mean over them leaves what is said of the thing, not of its picture."""
    return [f"a {kind}{medium} of {{}}." for medium in MEDIA for kind in KINDS] + list(MORE)


def text_direction(model: TextModel, target: str, neutral: str = NEUTRAL) -> np.ndarray:
    """`[D]` of length 1: from the neutral text to the target. Raises `UsageError` when they mean the same to it."""
    ends = []
    for text in (target, neutral):
        mean = model.texts([template.format(text) for template in templates()]).astype(np.float64).mean(axis=0)
        ends.append(mean / np.linalg.norm(mean))
    difference = ends[0] - ends[1]
    length = float(np.linalg.norm(difference))
    if length < 1e-6:
        raise UsageError(f"{target!r} and {neutral!r} mean the same to {model.name}", "choose another text")
    unit: np.ndarray = difference / length
    return unit


def style_direction(effects: np.ndarray, text: np.ndarray, std: np.ndarray, beta: float = BETA) -> np.ndarray:
    """The styles `[channels]` that alpha 1 adds.

    effects `[channels, D]`, rows of length 1; text `[D]` of length 1; std `[channels]`. Raises `UsageError` when no
    style agrees by `beta`.
    """
    relevance = effects.astype(np.float64) @ text
    most = float(np.abs(relevance).max())
    if most < beta or most == 0:
        hint = f"take --beta below {most:.3f}"
        raise UsageError(f"no style agrees with the text by {beta:g}, the best by {most:.3f}", hint)
    chosen = np.where(np.abs(relevance) >= beta, relevance, 0.0)
    vector: np.ndarray = (chosen / most * std).astype(np.float32)
    return vector


def chosen_channels(vector: np.ndarray, names: Sequence[str], count: int = 8) -> list[str]:
    """Names of the layers of the styles that move most, with how many of each: `L5: 12`."""
    layers: dict[str, int] = {}
    for place in np.flatnonzero(vector).tolist():
        layers[names[place]] = layers.get(names[place], 0) + 1
    ranked = sorted(layers.items(), key=lambda item: -item[1])[:count]
    return [f"{layer}: {number}" for layer, number in ranked]
