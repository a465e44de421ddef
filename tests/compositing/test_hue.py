"""The hue of an area is the face's, its lightness and all that is finer the edit's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sg3cli.compositing.hue import REC601, images_in_the_hue_of, in_the_hue_of
from sg3cli.levels import HALF
from tests.smooth_images import image

SIDES = (64, 128, 256)
SKIN = (200.0, 150.0, 120.0)


def signed(levels: object, side: int) -> torch.Tensor:
    """One colour all over, [1,3,side,side] in [-1,1]."""
    return (torch.tensor(levels) / HALF - 1)[None, :, None, None].expand(1, 3, side, side).contiguous()


def lightness(x: torch.Tensor) -> torch.Tensor:
    return (((x + 1) * HALF) * torch.tensor(REC601)[:, None, None]).sum(1)


@pytest.mark.parametrize("side", SIDES)
def test_equal_drawings_come_back_to_the_bit(side: int) -> None:
    noise = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    np.testing.assert_array_equal(images_in_the_hue_of(noise, noise, side), noise)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("edited", [(230.0, 130.0, 80.0), (150.0, 150.0, 110.0), (90.0, 100.0, 60.0)])
def test_an_area_keeps_its_hue_and_gets_the_edits_lightness(side: int, edited: tuple[float, float, float]) -> None:
    kept = in_the_hue_of(signed(SKIN, side), signed(edited, side))
    torch.testing.assert_close(lightness(kept), lightness(signed(edited, side)), rtol=0, atol=1e-2)
    colours = (kept[0, :, side // 2, side // 2] + 1) * HALF + 4
    ratio = colours / (torch.tensor(SKIN) + 4)
    torch.testing.assert_close(ratio, ratio.mean().expand(3), rtol=1e-4, atol=0)


def test_a_shadow_is_left_as_it_was_drawn() -> None:
    plain = image(128, seed=3) * 0.4 + 0.3
    shadow = (((plain + 1) * HALF + 4) * 0.7 - 4) / HALF - 1  # one factor for all colours
    assert float((in_the_hue_of(plain, shadow) - shadow).abs().max()) * HALF < 1e-2


def test_a_thin_line_keeps_its_own_colour() -> None:
    plain = signed(SKIN, 128)
    lined = plain.clone()
    lined[:, :, 64] = signed((90.0, 20.0, 20.0), 128)[:, :, 64]
    change = (in_the_hue_of(plain, lined) - lined)[0, :, :, 64].abs().amax(0) * HALF
    assert change[64] < 12  # of the 110 and more by which it differs
    assert change[20] < 1e-3


def test_a_larger_drawing_gets_what_a_smaller_one_does() -> None:
    plain, edited = image(256, seed=1), image(256, seed=2)
    small = [F.avg_pool2d(x, 2) for x in (plain, edited)]
    large = F.avg_pool2d(in_the_hue_of(plain, edited), 2)
    assert float((large - in_the_hue_of(*small)).abs().max()) * HALF < 2.5


def test_what_is_beside_the_square_is_measured_by_the_square() -> None:
    plain, edited = image(96, seed=1), image(96, seed=2)
    whole = in_the_hue_of(plain, edited, 64)
    square = in_the_hue_of(plain[..., :64, :64], edited[..., :64, :64], 64)
    torch.testing.assert_close(square[..., :56, :56], whole[..., :56, :56])
    assert float((whole - in_the_hue_of(plain, edited)).abs().max()) > 1e-3
