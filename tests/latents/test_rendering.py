"""Rendering: deterministic bytes, batches that can be cut, transforms that move the image."""

import numpy as np
import pytest
import torch
from tiny import RESOLUTION, tiny_generator

from sg3cli.drawing.compare import compare_view
from sg3cli.latents.rendering import render_crops, to_uint8
from sg3cli.weights.bundle import load_model


def codes(G, count: int) -> np.ndarray:
    z = torch.randn(count, G.config.z_dim, generator=torch.Generator().manual_seed(3))
    return G.mapping(z).numpy()


def test_crops_are_the_generator_s_images_in_levels():
    G = tiny_generator()
    ws = codes(G, 3)
    crops = list(render_crops(G, ws, batch=2))
    assert [c.shape for c in crops] == [(RESOLUTION, RESOLUTION, 3)] * 3 and crops[0].dtype == np.uint8
    image = G.synthesis(torch.from_numpy(ws[2:]))[0].permute(1, 2, 0).numpy()
    assert np.abs(crops[2] - np.clip((image + 1) * 127.5, 0, 255)).max() <= 0.51
    assert crops[0].std() > 1 and not np.array_equal(crops[0], crops[1])


def test_slices_at_multiples_of_the_batch_give_the_same_bytes():
    G = tiny_generator()
    ws = codes(G, 7)
    transforms = np.tile(np.eye(3), (7, 1, 1))
    transforms[:, 0, 2] = np.linspace(-0.1, 0.1, 7)
    whole = np.stack(list(render_crops(G, ws, transforms, batch=3)))
    resumed = np.stack(list(render_crops(G, ws[3:], transforms[3:], batch=3)))
    assert np.array_equal(whole[3:], resumed)
    assert np.array_equal(whole, np.stack(list(render_crops(G, ws, transforms, batch=3))))


def test_the_batch_does_not_matter_on_the_cpu():
    """Of the embedded model, whose products over a batch do round otherwise."""
    G = load_model("people-128").generator()
    ws = codes(G, 5)
    alone, two, five = (np.stack(list(render_crops(G, ws, batch=batch))) for batch in (1, 2, 5))
    assert np.array_equal(alone, two) and np.array_equal(alone, five)


def test_inverse_of_a_shift_moves_the_image_by_the_shift():
    G = tiny_generator()
    ws = codes(G, 1)
    shift = 4
    motion = np.array([[1, 0, shift / RESOLUTION], [0, 1, 0], [0, 0, 1]])
    (still,) = render_crops(G, ws)
    (moved,) = render_crops(G, ws, np.linalg.inv(motion)[None])
    inner = slice(6, -6)
    difference = moved[inner, shift + 6 : -6].astype(int) - still[inner, 6 : -shift - 6]
    opposite = moved[inner, 6 : -shift - 6].astype(int) - still[inner, shift + 6 : -6]
    assert np.abs(difference).mean() < 0.3 * np.abs(opposite).mean()


def test_a_transform_kept_in_the_generator_does_not_leak_into_aligned_renders():
    G = tiny_generator()
    ws = codes(G, 1)
    (before,) = render_crops(G, ws)
    G.synthesis.input.transform[0, 2] = 0.3
    assert np.array_equal(next(render_crops(G, ws)), before)


def test_lengths_must_agree():
    G = tiny_generator()
    with pytest.raises(ValueError, match="2 codes but 1 transforms"):
        next(render_crops(G, codes(G, 2), np.eye(3)[None]))


def test_levels_are_rounded_and_clipped():
    values = torch.tensor([-3.0, -1.0, 0.0034, 1.0, 9.0]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_compare_view_puts_the_source_left():
    source, result = np.zeros((4, 6, 3), np.uint8), np.ones((4, 6, 3), np.uint8)
    view = compare_view(source, result)
    assert view.shape == (4, 12, 3) and view[:, :6].max() == 0 and view[:, 6:].min() == 1
    with pytest.raises(ValueError, match="shapes differ"):
        compare_view(source, result[:2])


def test_compare_view_says_which_side_is_which():
    plain = np.full((90, 160, 3), 120, np.uint8)
    bare, view = compare_view(plain, plain), compare_view(plain, plain, ("source", "edited: age 2"))
    changed = (view != bare).any(axis=2)
    assert view.shape == bare.shape and changed[:, :160].any() and changed[:, 160:].sum() > changed[:, :160].sum()
    assert not changed[30:].any()


@pytest.mark.parametrize("kernel", ["T", "R"])
@pytest.mark.parametrize("sides", [(4, 0, 0, 0), (5, 3, 7, 1), (0, 32, 0, 9)])
def test_one_wide_pass_gives_what_shifted_renders_give(kernel, sides):
    """The tiled method (Alaluf et al. 2022): the image slid into the square, once for each part of the canvas."""
    shape = {} if kernel == "R" else {"conv_kernel": 3, "use_radial_filters": False}
    G = tiny_generator(margin_size=10, **shape)
    ws = codes(G, 2)
    motion = np.stack([np.eye(3), [[0.98, 0.1, 0.05], [-0.1, 0.98, -0.02], [0, 0, 1]]])
    left, right, top, bottom = sides
    wide = np.stack(list(render_crops(G, ws, motion, expand=sides))).astype(int)
    assert wide.shape == (2, RESOLUTION + top + bottom, RESOLUTION + left + right, 3)
    for x, y in {(left, top), (0, 0), (left + right, top + bottom), (0, top), (left, 0)}:
        slide = np.eye(3)
        slide[:2, 2] = np.array([left - x, top - y]) / RESOLUTION
        tile = np.stack(list(render_crops(G, ws, motion @ np.linalg.inv(slide)))).astype(int)
        difference = np.abs(wide[:, y : y + RESOLUTION, x : x + RESOLUTION] - tile)
        assert difference[:, 3:-3, 3:-3].max() <= 1 and difference.mean() < 0.1
    with pytest.raises(ValueError, match="cannot be expanded"):
        tiny_generator(img_resolution=24).synthesis(torch.from_numpy(ws), expand=(1, 0, 0, 0))


def test_without_expansion_not_a_bit_changes():
    G = tiny_generator()
    ws = codes(G, 1)
    assert np.array_equal(next(render_crops(G, ws)), next(render_crops(G, ws, expand=(0, 0, 0, 0))))
