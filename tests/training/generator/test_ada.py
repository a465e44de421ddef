"""Adaptive augmentation: what it is at p = 0, that it is differentiable, geometry and colours that can be computed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sg3cli.training.generator.ada import P_MAX, Transforms, apply_transforms, draw_transforms, next_p


def smooth_images(count: int = 4, size: int = 32) -> torch.Tensor:
    """Low waves, which survive resampling."""
    axis = (torch.arange(size) + 0.5) / size
    phase = torch.arange(count)[:, None, None, None] + torch.arange(3)[None, :, None, None]
    return 0.6 * torch.sin(2 * math.pi * axis[None, None, :, None] + phase) * torch.cos(math.pi * axis)


def test_at_zero_images_stay_as_they_are() -> None:
    x = smooth_images()
    T = draw_transforms(4, 0.0, 32, torch.Generator().manual_seed(0))
    assert torch.equal(T.places, torch.eye(3)[:2].expand(4, 2, 3)) and (apply_transforms(x, T) - x).abs().max() < 0.02


def test_a_shift_moves_by_its_pixels_and_a_flip_of_luma_keeps_hue() -> None:
    x = smooth_images()
    places = torch.eye(3)[:2].repeat(4, 1, 1)
    places[:, 0, 2] = 2 * 5 / 32  # look five pixels to the right: the image goes left
    colours = torch.eye(3, 4).repeat(4, 1, 1)
    moved = apply_transforms(x, Transforms(places, colours))
    assert (moved[..., :-6] - x[..., 5:-1]).abs().max() < 0.02
    grey = x.mean(1, keepdim=True).expand_as(x)
    flip = torch.eye(3) - 2 * torch.full((3, 3), 1 / 3)
    colours[:, :, :3] = flip
    flipped = apply_transforms(grey, Transforms(torch.eye(3)[:2].repeat(4, 1, 1), colours))
    assert (flipped + grey).abs().max() < 0.02


def test_every_pixel_and_no_random_number_more_than_needed() -> None:
    """Gradients reach the images, and the whole batch's draws do not depend on who takes which part."""
    x = smooth_images().requires_grad_()
    T = draw_transforms(4, 0.8, 32, torch.Generator().manual_seed(1))
    apply_transforms(x, T).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all() and (x.grad.abs().sum((1, 2, 3)) > 0).all()
    whole = apply_transforms(x.detach(), T)
    part = apply_transforms(x.detach()[1::2], Transforms(*(t[1::2] for t in T)))
    assert torch.allclose(whole[1::2], part, atol=1e-6)


def test_each_transform_is_left_out_as_often_as_p_says() -> None:
    T = draw_transforms(4000, 0.3, 32, torch.Generator().manual_seed(2))
    luma = T.colours[:, :, :3].sum((1, 2)) / 3  # product of contrast and flip along greys; 1 unless one was drawn
    flipped = (luma < 0).float().mean().item()
    assert flipped == pytest.approx(0.15, abs=0.02)  # chosen with 0.3, then every other one
    assert (T.colours[:, 0, 3] != 0).float().mean().item() == pytest.approx(0.3, abs=0.03)


@given(p=st.floats(0, P_MAX), sign=st.floats(-1, 1))
def test_p_follows_the_discriminators_certainty_within_bounds(p: float, sign: float) -> None:
    after = next_p(p, sign, 0.6, images=1000, kimg=100)
    assert 0 <= after <= P_MAX and abs(after - p) <= 0.01 + 1e-12
    assert after >= p if sign > 0.6 else after <= p or sign == 0.6
