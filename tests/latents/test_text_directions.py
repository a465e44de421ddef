"""StyleCLIP's global directions: the published arithmetic, and a table made here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from text_reader import ColourModel
from tiny import tiny_generator

from sg3cli.errors import ModelError, UsageError
from sg3cli.latents.sampling import GenerateConfig, Sampler
from sg3cli.latents.spaces import statistics
from sg3cli.latents.style_effects import layer_effects, mean_direction
from sg3cli.latents.text_directions import style_direction, templates, text_direction
from sg3cli.latents.text_model import clip_input
from sg3cli.latents.text_models import load_text_model


def test_there_are_79_templates_and_the_text_is_in_each() -> None:
    found = templates()
    assert len(found) == len(set(found)) == 79 and all(each.count("{}") == 1 for each in found)


def test_a_text_s_direction_is_the_difference_of_normalised_means() -> None:
    class Two(ColourModel):
        def texts(self, texts):  # what is said decides, and a little the sentence
            rows = np.array([[3.0 if "old" in t else 0.0, 1.0, 0.1 * (len(t) % 5), 0.0] for t in texts])
            return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    model = Two()
    ends = [model.texts([t.format(text) for t in templates()]).mean(0) for text in ("an old face", "a face")]
    expected = ends[0] / np.linalg.norm(ends[0]) - ends[1] / np.linalg.norm(ends[1])
    found = text_direction(model, "an old face")
    assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5) and found[0] > 0
    with pytest.raises(UsageError, match="mean the same"):
        text_direction(ColourModel(), "a person", "a face")


def test_styles_move_by_their_agreement_in_deviations() -> None:
    """Below beta nothing, the most agreeing one deviation, against the text backwards."""
    effects = np.array([[1, 0], [0.6, 0.8], [-0.8, 0.6], [0.1, 0.995]])
    std = np.array([2.0, 10.0, 5.0, 7.0])
    found = style_direction(effects, np.array([0.5, 0.0]) / 0.5, std, beta=0.13)
    assert found == pytest.approx([2.0, 6.0, -4.0, 0.0])
    half = style_direction(effects, np.array([0.6, 0.8]), std, beta=0.7)
    assert half == pytest.approx([0.0, 10.0, 0.0, 7 * (0.06 + 0.796)], rel=1e-6)
    with pytest.raises(UsageError, match=r"the best by 1\.000"):
        style_direction(effects, np.array([1.0, 0.0]), std, beta=1.01)


@pytest.mark.parametrize("layer", [-1, 0, 3, 6])
def test_an_effect_is_that_of_the_whole_network_with_one_style_moved(layer: int) -> None:
    """The cached prefix changes nothing, nor does one style stay moved when the next one's turn comes."""
    G, model = tiny_generator(), ColourModel()
    ws = Sampler(G, GenerateConfig(truncation=0.5)).codes(range(3))
    known = statistics(G, "s", 256, psi=0.5)
    found = list(layer_effects(G, ws, layer, known, model, batch=2))
    names = list(G.config.style_sizes)
    start = sum(G.config.style_sizes[name] for name in names[: layer + 1])
    assert len(found) == G.config.style_sizes[names[layer + 1]]
    for channel in (0, len(found) - 1):
        ends = []
        for sign in (1, -1):
            styles = G.synthesis.style_space(torch.from_numpy(ws))
            styles[names[layer + 1]][:, channel] = known.mean[start + channel] + sign * 5 * known.std[start + channel]
            ends.append(model.images(G.synthesis.from_styles(styles)))
        difference = ends[0] - ends[1]
        if np.abs(difference).max() < 1e-5:
            continue  # a style that does nothing
        rows = difference / np.linalg.norm(difference, axis=1, keepdims=True)
        expected = rows.mean(0) / np.linalg.norm(rows.mean(0))
        assert found[channel] == pytest.approx(expected, abs=5e-3)
    later = list(layer_effects(G, ws, layer, known, model, batch=2, first=len(found) - 1))
    assert len(later) == 1 and later[0] == pytest.approx(found[-1], abs=1e-6)


def test_what_changes_nothing_has_no_direction() -> None:
    assert not mean_direction(np.zeros((3, 4))).any()
    assert mean_direction(np.array([[2.0, 0.0], [0.0, 0.0]])) == pytest.approx([1.0, 0.0])


def test_pictures_are_given_to_clip_as_it_wants_them() -> None:
    x = clip_input(torch.ones(2, 3, 32, 32))
    assert x.shape == (2, 3, 224, 224)
    expected = (1 - np.array([0.4815, 0.4578, 0.4082])) / [0.2686, 0.2613, 0.2758]
    assert x[0, :, 0, 0].numpy() == pytest.approx(expected, abs=1e-3)


def test_a_text_model_that_is_not_here_is_named() -> None:
    with pytest.raises(UsageError, match="clip:ViT-L"):
        load_text_model("clip:ViT-L", torch.device("cpu"))
    try:
        import open_clip  # noqa: F401
    except ImportError:
        with pytest.raises(ModelError, match="open_clip_torch"):
            load_text_model("clip:ViT-B-32", torch.device("cpu"))
