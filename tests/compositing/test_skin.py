"""Skin shows more of its own structure, or less; the camera's noise, eyes, brows, nose and mouth stay."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sg3cli.compositing.skin import skin_mask, with_structure


def landmarks(side: float = 128.0) -> np.ndarray:
    """68 points of a plain face in the middle of a square."""
    points = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([0.5 + 0.26 * np.cos(angle), 0.5 + 0.33 * np.sin(angle)], 1)
    for start, x in ((17, 0.3), (22, 0.56)):
        arch = 0.4 + 0.01 * np.array([1, 0, -0.5, 0, 1])
        points[start : start + 5] = np.stack([np.linspace(x, x + 0.14, 5), arch], 1)
    points[27:31] = np.stack([np.full(4, 0.5), np.linspace(0.45, 0.58, 4)], 1)
    points[31:36] = np.stack([np.linspace(0.45, 0.55, 5), np.full(5, 0.6)], 1)
    around = np.linspace(0, 2 * np.pi, 6, endpoint=False)
    for start, x in ((36, 0.39), (42, 0.61)):
        points[start : start + 6] = np.stack([x + 0.05 * np.cos(around), 0.46 + 0.02 * np.sin(around)], 1)
    lips = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    points[48:60] = np.stack([0.5 + 0.09 * np.cos(lips), 0.69 + 0.03 * np.sin(lips)], 1)
    points[60:68] = points[48:56]
    return points * side


def test_cheeks_and_forehead_are_skin_and_features_are_not() -> None:
    mask = skin_mask(landmarks(), (128, 128))
    at = {"cheek": (0.36, 0.6), "eye": (0.39, 0.46), "mouth": (0.5, 0.69), "nose": (0.5, 0.55), "brow": (0.36, 0.4)}
    found = {name: float(mask[int(128 * y), int(128 * x)]) for name, (x, y) in at.items()}
    assert found["cheek"] > 0.5, found
    assert max(found[name] for name in ("eye", "mouth", "nose", "brow")) == 0, found
    assert mask[5, 64] == mask[120, 64] == mask[64, 4] == 0
    assert mask.dtype == np.float32 and not skin_mask(np.full((68, 2), np.nan), (128, 128)).any()


def test_the_mask_is_one_at_every_size() -> None:
    small, large = skin_mask(landmarks(128), (128, 128)), skin_mask(landmarks(256), (256, 256))
    assert np.abs(cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA) - small).max() < 0.06


@pytest.mark.parametrize("amount", [-0.6, 0.5])
def test_lines_become_deeper_or_shallower_and_noise_and_light_stay(amount: float) -> None:
    x = np.arange(256, dtype=np.float32)
    parts = {"lines": 10 * np.sin(2 * np.pi * x / 8), "light": 10 * np.sin(2 * np.pi * x / 128)}
    for name, share in (("lines", amount), ("light", 0.0)):
        image = np.broadcast_to(128 + parts[name][None, :, None], (64, 256, 3)).astype(np.float32)
        found = with_structure(image, np.full((64, 256), amount, np.float32), pixels=2.0)[:, 64:-64] - 128
        gain = float(found.std() / (image[:, 64:-64] - 128).std())
        assert gain == pytest.approx(1 + share, abs=0.15 * abs(amount) + 0.03), name
    noise = np.random.default_rng(0).normal(128, 5, (64, 256, 3)).astype(np.float32)
    after = with_structure(noise, np.full((64, 256), amount, np.float32), 2.0)
    grain = [cv2.Laplacian(image, cv2.CV_32F).std() for image in (noise, after)]
    assert abs(grain[1] / grain[0] - 1) < 0.6 * abs(amount)


def test_lines_come_out_and_spots_stay() -> None:
    """Somebody's freckled cheek looked stained, not older."""
    axis = np.arange(128, dtype=np.float32)
    wave = 10 * np.sin(2 * np.pi * axis / 10)
    lines = np.broadcast_to(wave[None, :, None], (128, 128, 3)) + 128
    spots = np.broadcast_to((wave[None, :] * wave[:, None] / 10)[..., None], (128, 128, 3)) + 128
    inner, amount = np.s_[24:-24, 24:-24], np.full((128, 128), 0.5, np.float32)
    gains = [
        float((with_structure(image.astype(np.float32), amount, 2.0) - 128)[inner].std() / (image - 128)[inner].std())
        for image in (lines, spots)
    ]
    assert gains[0] > 1.3 and gains[1] < 1.15, gains


def test_where_nothing_is_asked_the_picture_is_the_same_to_the_bit() -> None:
    image = np.random.default_rng(1).normal(128, 30, (32, 32, 3)).astype(np.float32)
    amount = np.zeros((32, 32), np.float32)
    amount[:, 16:] = 0.4
    found = with_structure(image, amount, 1.0)
    assert np.array_equal(found[:, :16], image[:, :16]) and not np.array_equal(found[:, 16:], image[:, 16:])


def test_older_skin_has_deeper_lines_and_no_redder_spots() -> None:
    """Younger skin loses both."""
    x = np.arange(128, dtype=np.float32)
    wave = np.broadcast_to(np.sin(2 * np.pi * x / 8)[None, :, None], (32, 128, 1))
    red = 128 + wave * np.array([10.0, -5.0, -0.05], np.float32)  # of one lightness
    amounts = (np.full((32, 128), a, np.float32) for a in (0.5, -0.5))
    older, younger = (with_structure(red.astype(np.float32), amount, 2.0) for amount in amounts)
    inner = np.s_[:, 16:-16]
    assert np.abs(older - red)[inner].max() < 0.2
    assert (younger - 128)[inner].std() < 0.7 * (red - 128)[inner].std()


@pytest.mark.parametrize("amount", [-0.6, 0.5])
def test_the_rim_of_glasses_is_no_wrinkle(amount: float) -> None:
    """Nothing is done to it, nor beside it, where its relief would come out as a halo."""
    image = np.full((64, 256, 3), 150, np.float32)
    image[:, 60:64] = 25  # a rim
    image[:, 190:194] = 138  # a wrinkle
    after = with_structure(image, np.full((64, 256), amount, np.float32), pixels=2.0)
    assert np.abs(after - image)[:, 52:72].max() < 1.5
    assert amount * (image - after)[:, 192].mean() > 1  # a level or two, lighter or darker
