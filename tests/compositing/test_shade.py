"""Shadows that an edit adds are held to the face's own contrast, softly; what is within it stays as it was drawn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sg3cli.compositing.hue import DARK, REC601, blurred
from sg3cli.compositing.shade import AREA, CONTRAST, face_contrast, images_in_the_shade_of, in_the_shade_of
from sg3cli.levels import HALF
from tests.smooth_images import image

SIDES = (64, 128, 256)


def face(side: int, contrast: float) -> torch.Tensor:
    """[1,3,side,side]: waves of lightness over a mean, whose logarithm varies by `contrast`, in one hue."""
    axis = (torch.arange(side) + 0.5) / side
    waves = torch.sin(2 * math.pi * 3 * axis)[:, None] * torch.sin(2 * math.pi * 3 * axis)[None, :]
    light = torch.exp(2 * contrast * waves)  # a product of two sines has a mean square of a quarter
    levels = torch.tensor([140.0, 100.0, 80.0])[:, None, None] * light - DARK
    return levels[None] / HALF - 1


def darker(plain: torch.Tensor, factor: float, radius: float = 0.08) -> torch.Tensor:
    """A spot in the middle by `factor`."""
    side = plain.shape[-1]
    axis = (torch.arange(side) + 0.5) / side - 0.5
    spot = torch.exp(-0.5 * ((axis[:, None] ** 2 + axis[None, :] ** 2) / radius**2))
    return ((plain + 1 + DARK / HALF) * torch.exp(math.log(factor) * spot)) - 1 - DARK / HALF


def depths(x: torch.Tensor) -> torch.Tensor:
    """[1,1,side,side]: logarithm of the lightness over areas."""
    luma = torch.tensor(REC601)[:, None, None]
    return blurred((((x + 1) * HALF + DARK) * luma).sum(1, keepdim=True), AREA * x.shape[-1]).log()


def depth(before: torch.Tensor, after: torch.Tensor) -> float:
    """Logarithm of the change of lightness in the middle, over an area."""
    middle = before.shape[-1] // 2
    return float((depths(after) - depths(before))[0, 0, middle, middle])


@pytest.mark.parametrize("side", SIDES)
def test_equal_drawings_come_back_to_the_bit(side: int) -> None:
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    np.testing.assert_array_equal(images_in_the_shade_of(noise, noise, side), noise)


@pytest.mark.parametrize("factor", [0.3, 2.2])
@pytest.mark.parametrize("contrast", [0.1, 0.2])
def test_a_smear_is_held_to_the_contrast_of_the_face(factor: float, contrast: float) -> None:
    plain = face(128, contrast)
    smear = darker(plain, factor)
    held = in_the_shade_of(plain, smear)
    limit = CONTRAST * float(face_contrast(depths(plain), 128))
    finer = abs(math.log(factor)) - abs(depth(plain, smear))  # of the spot's middle than an area: that stays
    assert abs(depth(plain, held)) == pytest.approx(limit + finer, abs=0.008)
    assert limit + finer < 0.25 * abs(math.log(factor))
    assert (depth(plain, held) < 0) == (factor < 1)


def test_a_fold_within_the_contrast_stays() -> None:
    plain = face(128, 0.25)
    fold = darker(plain, 0.9)
    assert float((in_the_shade_of(plain, fold) - fold).abs().max()) * HALF < 1.0  # of the 12 that it is deep


def test_all_colours_get_one_factor() -> None:
    plain = face(128, 0.1)
    held = in_the_shade_of(plain, darker(plain, 0.3))
    ratio = ((held + 1) * HALF + DARK)[0, :, 64, 64] / ((plain + 1) * HALF + DARK)[0, :, 64, 64]
    torch.testing.assert_close(ratio, ratio[:1].expand(3), rtol=1e-3, atol=0)


def test_the_contrast_is_that_of_the_face_alone() -> None:
    logarithm = torch.zeros(1, 1, 128, 128)
    logarithm[..., :10, :] = 5  # hair
    logarithm[..., :, :10] = -5  # wall
    assert float(face_contrast(logarithm, 128)) == pytest.approx(0.03)
    assert float(face_contrast(F.pad(torch.log(face(64, 0.2)[:, :1] + 1 + DARK / HALF), (32,) * 4), 64)) == (
        pytest.approx(0.2, rel=0.1)
    )


def test_a_larger_drawing_gets_what_a_smaller_one_does() -> None:
    plain, edited = image(256, seed=1), image(256, seed=2)
    small = [F.avg_pool2d(x, 2) for x in (plain, edited)]
    large = F.avg_pool2d(in_the_shade_of(plain, edited), 2)
    assert float((large - in_the_shade_of(*small)).abs().mean()) * HALF < 2.5


def test_what_reads_the_result_is_told_how_it_depends_on_the_drawing() -> None:
    plain = face(64, 0.15)
    edited = darker(plain, 0.8).requires_grad_()
    in_the_shade_of(plain, edited).sum().backward()
    assert edited.grad is not None and torch.isfinite(edited.grad).all() and float(edited.grad.abs().min()) > 0
    still = plain.clone().requires_grad_()
    in_the_shade_of(plain, still).sum().backward()
    torch.testing.assert_close(still.grad, torch.ones_like(still))
