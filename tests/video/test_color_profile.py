"""Colour profiles against another program's (littleCMS, through Pillow)."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pictures import ADOBE, DISPLAY_P3, SRGB, profile, scene
from PIL import Image, ImageCms

from sg3cli.video.color_profile import ColorProfile


@pytest.mark.parametrize("tone", ["para", "gamma", "table"])
@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE], ids=["p3", "adobe"])
def test_colours_are_those_of_another_program(primaries, tone: str) -> None:
    data = profile(primaries, tone, "A profile")
    theirs = ImageCms.profileToProfile(
        Image.fromarray(scene()), ImageCms.ImageCmsProfile(io.BytesIO(data)), ImageCms.createProfile("sRGB"), 1
    )
    ours = ColorProfile(data)
    assert ours.name == "A profile" and ours.convertible and not ours.is_srgb
    assert np.abs(ours.to_srgb(scene()).astype(int) - np.asarray(theirs)).max() <= 1


def test_profiles_that_mean_srgb() -> None:
    theirs = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert ColorProfile(theirs).is_srgb and ColorProfile(profile(SRGB, "para", "x")).is_srgb
    assert not ColorProfile(profile(SRGB, "table", "x")).is_srgb


def test_damaged_profiles_are_not_converted() -> None:
    whole = profile(DISPLAY_P3, "table", "A")
    rng = np.random.default_rng(0)
    assert not ColorProfile(b"").convertible and not ColorProfile(whole[:200]).convertible
    for _ in range(300):
        data = bytearray(whole[: int(rng.integers(1, len(whole)))] if rng.random() < 0.3 else whole)
        for at in rng.integers(0, len(data), 4):
            data[at] = int(rng.integers(0, 256))
        damaged = ColorProfile(bytes(data))
        assert not damaged.convertible or damaged.to_srgb(scene()).shape == scene().shape
